import { expect, it } from "vitest";
import { eventually, within } from "../../support/deadline.ts";
import type { Recorder } from "../../support/recorder/recorder.ts";
import type { ServerProcess } from "../../support/server-process.ts";
import { Stage, soak, testMs } from "./stage.ts";

/** With prepared transactions allowed nobody nudges, so nobody waits: here they are not. */
const nudging = { settings: { max_prepared_transactions: "0" } };

interface Replica {
  readonly name: string;
  readonly server: ServerProcess;
  readonly client: Recorder;
}

async function replicas(stage: Stage, names: readonly string[]): Promise<Replica[]> {
  const made: Replica[] = [];
  for (const name of names) {
    const server = await stage.server({ databaseUrl: `${stage.url}?application_name=${name}` });
    const client = await stage.client({ client: name, port: () => server.port, start: { now: {} } });
    made.push({ name, server, client });
  }
  return made;
}

/** The replica that sleeps on its notification: it alone holds the advisory lock. */
function untilWaiter(stage: Stage, among: readonly Replica[]): Promise<Replica> {
  return eventually(async () => {
    const [holder] = await stage.sql<{ name: string }>(
      `select application_name as name from pg_locks join pg_stat_activity using (pid)
       where locktype = 'advisory' and mode = 'ExclusiveLock' and granted and application_name like 'replica%'`,
    );
    return among.find(({ name }) => name === holder?.name);
  });
}

/** Whether one event reaches the client within a second of its commit. */
async function arrives(stage: Stage, client: Recorder, key: string): Promise<boolean> {
  const arrived = client.until((frame) => frame.kind === "events" && frame.events.some((event) => event.key === key));
  await stage.sql("select millrace.emit('notes', $1)", [key]);
  return within(1000, arrived);
}

it(
  "G1 with the waiter frozen or killed, one event reaches another replica's client within a second",
  async () => {
    await using stage = await Stage.open(nudging);
    let alive = await replicas(stage, ["replica-1", "replica-2", "replica-3"]);
    for (let round = 0; round < (soak ? 50 : 3); round += 1) {
      const waiter = await untilWaiter(stage, alive);
      const others = alive.filter((replica) => replica !== waiter);
      waiter.server.freeze();
      const arrivals = others.map(({ client }, index) => arrives(stage, client, `frozen ${round} ${index}`));
      expect(await Promise.all(arrivals)).toEqual([true, true]);
      waiter.server.thaw();
    }
    while (alive.length > 1) {
      const waiter = await untilWaiter(stage, alive);
      alive = alive.filter((replica) => replica !== waiter);
      await waiter.client.stop();
      await waiter.server.kill9();
      for (const { name, client } of alive) expect(await arrives(stage, client, `killed ${name}`)).toBe(true);
    }
  },
  testMs,
);

it(
  "G1 an event wakes a sleeping feed, again and again",
  async () => {
    await using stage = await Stage.open(nudging);
    const [replica] = await replicas(stage, ["replica-1"]);
    if (replica === undefined) throw new Error("No replica was started.");
    for (let round = 0; round < 10; round += 1) {
      await untilWaiter(stage, [replica]);
      expect(await arrives(stage, replica.client, `asleep ${round}`)).toBe(true);
    }
  },
  testMs,
);
