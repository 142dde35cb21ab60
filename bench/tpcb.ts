// Real input: pgbench's own TPC-B-like transactions at full speed, all four tables watched, one reader from oldest and one
// live. Every committed change must arrive: balances and sums of deltas equal the tables, row for row.
import { Bed, conditions, pin, tpsOf } from "./bed.ts";
import { benchOptions, report } from "./report.ts";
import { differences, TpcbTally } from "./tpcb-tally.ts";
import { subscribe, type WireStream } from "./wire-client.ts";
import { readEvents, readFrame, readVersion } from "./wire-reader.ts";

const tables = ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"];
const { seconds } = benchOptions(60);

await using bed = await Bed.open();
await bed.pgbench(["-i", "-q", "-s", "10"]);
// A user does the same: a table needs a key to be watched, and pgbench gives this one none.
await bed.sql("alter table pgbench_history add column id bigint generated always as identity primary key");

const unwatched = tpsOf(await load(Math.max(5, seconds / 4)));
await bed.sql("truncate pgbench_history; update pgbench_accounts set abalance = 0 where abalance <> 0");
await bed.sql("update pgbench_tellers set tbalance = 0; update pgbench_branches set bbalance = 0");
await bed.sql("vacuum analyze");
for (const table of tables) await bed.sql(`select millrace.watch('${table}')`);
const server = await bed.server();
await pin(server.pid, 1);

const readers = [await read({ case: "oldest", value: {} }), await read({ case: "now", value: {} })];
const begun = performance.now();
const watched = tpsOf(await load(seconds));
const written = performance.now();
await bed.sql("select millrace.emit('end', 'end', '{}')");
await Promise.all(readers.map(({ last }) => last));
const behind = performance.now() - written;
for (const { stream } of readers) stream.cancel();

const faults = (await Promise.all(readers.map(({ tally }) => compare(tally)))).flat();
const events = readers[0]?.tally.events ?? 0;
report(
  "tpcb",
  [
    {
      what: "committed transactions with four tables watched, a reader from oldest and one live",
      value: watched,
      unit: "tx/s",
      baseline: { what: "unwatched", value: unwatched },
    },
    { what: "events to each reader", value: events / ((written - begun) / 1000), unit: "events/s" },
    { what: `events in all, each of ${readers.length} readers`, value: events, unit: "events" },
    { what: "from the writers' end until the last event had arrived", value: behind, unit: "ms" },
    { what: "differences from the tables", value: faults.length, unit: "", target: "0", met: faults.length === 0 },
  ],
  `pgbench -c 8 -j 2 -M prepared, scale 10, ${seconds} s; ${conditions}; server on core 1`,
);
if (faults.length > 0) {
  process.stdout.write(`\n${faults.slice(0, 20).join("\n")}\n`);
  process.exitCode = 1;
}

function load(duration: number): Promise<string> {
  return bed.pgbench(["-n", "-c", "8", "-j", "2", "-M", "prepared", "-T", String(Math.ceil(duration))]);
}

interface Reader {
  readonly tally: TpcbTally;
  readonly stream: WireStream;
  readonly last: Promise<void>;
}

function read(start: { case: "oldest" | "now"; value: object }): Promise<Reader> {
  return new Promise((resolve, reject) => {
    let tally: TpcbTally | undefined;
    let arrived: () => void = () => {};
    const last = new Promise<void>((done) => {
      arrived = done;
    });
    const stream = subscribe(server.port, { start }, (message) => {
      const frame = readFrame(message);
      if (frame.kind === 1) {
        const opened = new TpcbTally(readVersion(frame.body));
        tally = opened;
        resolve({ tally: opened, stream, last });
      }
      if (frame.kind !== 2) return;
      readEvents(frame.body, (event) => {
        tally?.take(event);
        if (event.topic === "end") arrived();
      });
    });
    stream.ended.catch(reject);
  });
}

async function compare(tally: TpcbTally): Promise<readonly string[]> {
  const table = async (name: string, key: string, balance: string) =>
    new Map(
      (await bed.sql<{ id: number; balance: number }>(`select ${key} as id, ${balance} as balance from ${name}`)).map(
        (row) => [row.id, row.balance],
      ),
    );
  const accounts = await table("pgbench_accounts", "aid", "abalance");
  const tellers = await table("pgbench_tellers", "tid", "tbalance");
  const branches = await table("pgbench_branches", "bid", "bbalance");
  const [count] = await bed.sql<{ n: number }>("select count(*)::int as n from pgbench_history");
  return [
    ...tally.faults,
    ...differences("account", tally.accounts, accounts),
    ...differences("teller", tally.tellers, tellers),
    ...differences("branch", tally.branches, branches),
    ...differences("deltas of account", tally.deltas.aid, accounts),
    ...differences("deltas of teller", tally.deltas.tid, tellers),
    ...differences("deltas of branch", tally.deltas.bid, branches),
    ...(tally.history === count?.n ? [] : [`history: ${tally.history} events, ${count?.n} rows`]),
  ];
}
