import { describe, expect, it } from "vitest";
import type { Recorder } from "../../support/recorder/recorder.ts";
import { withClient } from "../../support/workload/workload.ts";
import { Stage, soak, testMs } from "./stage.ts";

/** The WAL writer would make asynchronous commits durable by itself, and hide who did not. */
const lazily = { settings: { wal_writer_delay: "10000", max_prepared_transactions: "0" } };
const asynchronous = ["synchronous_commit = off", "default_transaction_isolation = 'serializable'"];

/** A tick that commits as carelessly as the writers do. */
const carelessTick = `
  create function public.careless() returns trigger language plpgsql as
    $$ begin perform set_config('synchronous_commit', 'off', true); return new; end $$;
  create trigger careless before insert on millrace.tick for each row execute function public.careless();
  alter table millrace.tick enable always trigger careless`;

async function watched(sabotage?: string): Promise<{ stage: Stage; client: Recorder }> {
  const stage = await Stage.open(lazily, asynchronous);
  await stage.sql("create table things (id int primary key)");
  await stage.sql("select millrace.watch('things')");
  if (sabotage !== undefined) await stage.sql(sabotage);
  // All this was committed as carelessly, and has to be there after the crash.
  await stage.sql("checkpoint");
  const server = await stage.server();
  return { stage, client: await stage.client({ client: "client", port: () => server.port, start: { oldest: {} } }) };
}

/** Commits a row, waits until a client has it, and kills Postgres that instant. Says which rows a crash took back. */
async function crashOnDelivery(sabotage?: string): Promise<readonly number[]> {
  const { stage, client } = await watched(sabotage);
  await using _ = stage;
  const lost: number[] = [];
  for (let id = 1; id <= (soak ? 30 : 4); id += 1) {
    const delivered = client
      .until((frame) => frame.kind === "events" && frame.events.some(({ key }) => key === String(id)))
      .then(() => stage.cluster.kill9());
    await stage.sql("insert into things values ($1)", [id]).catch(() => {});
    await delivered;
    await stage.cluster.start();
    const found = await stage.sql("select 1 from things where id = $1", [id]);
    if (found.length === 0) lost.push(id);
    if (lost.length > 0) break;
  }
  return lost;
}

describe("G6 what a client has is durable", () => {
  it(
    "G6 Postgres killed at the moment of delivery still has every delivered row",
    async () => {
      expect(await crashOnDelivery()).toEqual([]);
    },
    testMs,
  );

  it(
    "G6 is seen to break when ticks commit asynchronously",
    async () => {
      expect(await crashOnDelivery(carelessTick)).not.toEqual([]);
    },
    testMs,
  );

  it(
    "G6 the WAL is flushed beyond the commit of everything that was delivered",
    async () => {
      const behind = await commitsBeyondFlush();
      expect(behind.sampled).toBeGreaterThan(20);
      expect(behind.late).toEqual([]);
    },
    testMs,
  );

  it(
    "G6 the flush is seen to lag when ticks commit asynchronously",
    async () => {
      expect((await commitsBeyondFlush(carelessTick)).late).not.toEqual([]);
    },
    testMs,
  );
});

/** Deliveries whose commit record lay beyond what was flushed just after they arrived. */
async function commitsBeyondFlush(sabotage?: string): Promise<{ sampled: number; late: readonly string[] }> {
  const { stage, client } = await watched(sabotage);
  await using _ = stage;
  await stage.sql("create extension pg_walinspect");
  const [begun] = await stage.sql<{ lsn: string }>("select pg_current_wal_insert_lsn()::text as lsn");
  const samples: { xid: string; flushed: string }[] = [];
  await withClient(stage.url, async (probe) => {
    for (let id = 1; id <= 40; id += 1) {
      const delivered = client.until(
        (frame) => frame.kind === "events" && frame.events.some(({ key }) => key === `${id}`),
      );
      const { rows: written } = await probe.query<{ xid: string }>(
        "insert into things values ($1) returning pg_current_xact_id()::xid::text as xid",
        [id],
      );
      await delivered;
      const { rows } = await probe.query<{ lsn: string }>("select pg_current_wal_flush_lsn()::text as lsn");
      samples.push({ xid: written[0]?.xid ?? "", flushed: rows[0]?.lsn ?? "" });
    }
  });
  // A commit of this session, so that the flushed WAL holds all that is to be looked at.
  await stage.sql("begin; set local synchronous_commit = on; create table last_one (); commit");
  const late = await stage.sql<{ xid: string }>(
    `select s.xid from json_to_recordset($2::json) s (xid text, flushed pg_lsn)
     join pg_get_wal_records_info($1::pg_lsn, pg_current_wal_flush_lsn()) r
       on r.xid::text = s.xid and r.resource_manager = 'Transaction' and r.record_type like 'COMMIT%'
     where r.end_lsn > s.flushed`,
    [begun?.lsn, JSON.stringify(samples)],
  );
  return { sampled: samples.length, late: late.map(({ xid }) => xid) };
}
