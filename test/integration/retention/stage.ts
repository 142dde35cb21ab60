import type pg from "pg";
import { createPool } from "../../../src/postgres/database.ts";
import { keepOutbox, type Upkeep } from "../../../src/postgres/retention/upkeep.ts";
import { commit, never, openStage, type Stage, tick } from "../ordering/stage.ts";

/** A stage with an outbox that somebody keeps, when told to. */
export interface RetentionStage extends Stage {
  readonly admin: pg.Client;
  /** One round, as the superuser unless another role's URL is given. */
  keep(url?: string): Promise<Upkeep>;
  /** Has everything that is settled now have settled so much earlier. Cursors and open stores do not survive it. */
  age(interval: string): Promise<void>;
  /** Settles one event per key, each in a tick of its own. */
  settle(...keys: string[]): Promise<void>;
  /** Events go to the next partition from now on. */
  nextPartition(): Promise<void>;
  partitions(): Promise<readonly string[]>;
  sql<R extends pg.QueryResultRow>(text: string, values?: readonly unknown[]): Promise<readonly R[]>;
}

export async function openRetentionStage(url?: string): Promise<RetentionStage> {
  const stage = await openStage(url);
  const admin = await stage.session();
  const sql = async <R extends pg.QueryResultRow>(text: string, values: readonly unknown[] = []) =>
    (await admin.query<R>(text, [...values])).rows;
  return {
    ...stage,
    admin,
    sql,
    keep: async (as = stage.url) => {
      const pool = createPool({ url: as, max: 1, idleMs: 1000 });
      try {
        return await keepOutbox(pool, never);
      } finally {
        await pool.end();
      }
    },
    age: async (interval) => void (await sql(`update millrace.tick set time = time - interval '${interval}'`)),
    settle: async (...keys) => {
      for (const key of keys) {
        await commit(admin, key);
        await tick(admin);
      }
    },
    nextPartition: async () => {
      await sql("select millrace.extend_outbox(0)");
      const [next] = await sql<{ lower: string }>(
        "select min(lower_seq)::text as lower from millrace.partitions() where lower_seq > millrace.drawn() + 1",
      );
      const skip = () => sql<{ done: boolean }>("select millrace.skip_to($1::bigint) as done", [next?.lower]);
      while ((await skip())[0]?.done !== true);
    },
    partitions: async () =>
      (await sql<{ name: string }>("select name from millrace.partitions() order by lower_seq nulls last")).map(
        ({ name }) => name,
      ),
    [Symbol.asyncDispose]: async () => {
      await stage[Symbol.asyncDispose]();
    },
  };
}

/** Lets everything be past its time as soon as it has settled. */
export async function keepNothing(admin: pg.Client): Promise<void> {
  await admin.query("alter table millrace.retention drop constraint retention_keep_age_check");
  await admin.query("update millrace.retention set keep_age = '0'");
}
