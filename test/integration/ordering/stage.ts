import pg from "pg";
import type { Event, Version } from "../../../src/core/event.ts";
import { createPostgresStore, type PostgresStore, type PostgresStoreOptions } from "../../../src/postgres/store.ts";
import { freshDatabase } from "../../support/cluster.ts";

export const never = new AbortController().signal;

/** A migrated database, sessions that write to its outbox, and stores that read it. */
export interface Stage extends AsyncDisposable {
  readonly url: string;
  /** A connection; closed with the stage. */
  session(url?: string): Promise<pg.Client>;
  /** A store that has been started; stopped with the stage. It polls only, unless told otherwise. */
  store(options?: Partial<PostgresStoreOptions>): Promise<PostgresStore>;
}

export async function openStage(url?: string): Promise<Stage> {
  const database = url ?? (await freshDatabase({ migrated: true }));
  const closing: (() => Promise<unknown>)[] = [];
  return {
    url: database,
    session: async (as = database) => {
      const client = new pg.Client({ connectionString: as });
      client.on("error", () => undefined);
      await client.connect();
      closing.push(() => client.end());
      return client;
    },
    store: async (options = {}) => {
      const store = createPostgresStore({ url: database, directUrl: false, ...options });
      closing.push(() => store.stop());
      await store.start(never);
      return store;
    },
    [Symbol.asyncDispose]: async () => {
      for (const close of closing.reverse()) await close();
    },
  };
}

/** Writes one event with this text as its key. Answers its seq. */
export async function write(session: pg.ClientBase, key: string): Promise<number> {
  const { rows } = await session.query(
    "insert into millrace.outbox (topic, key, operation, after) values ('t', $1, 'M', json_build_object('key', $1::text)) returning seq",
    [key],
  );
  return Number(rows[0]?.seq);
}

/** Gives the session's transaction its xid without writing anything. */
export async function takeXid(session: pg.ClientBase): Promise<number> {
  const { rows } = await session.query("select pg_current_xact_id()::text as xid");
  return Number(rows[0]?.xid);
}

/** Begins, writes, commits. */
export async function commit(session: pg.ClientBase, ...keys: string[]): Promise<void> {
  await session.query("begin");
  for (const key of keys) await write(session, key);
  await session.query("commit");
}

const tickMessage =
  "begin isolation level read committed; set local synchronous_commit = on; select tick, head from millrace.tick(); commit";

/** One tick as an operator would do it by hand. */
export async function tick(session: pg.ClientBase): Promise<{ readonly tick: number; readonly head: number }> {
  const results: unknown = await session.query(tickMessage);
  if (!Array.isArray(results)) throw new Error("one message of several statements answers with several results");
  const row = results.at(-2)?.rows[0];
  return { tick: Number(row.tick), head: Number(row.head) };
}

/** Everything after a version, by history's pages. */
export async function readAll(store: PostgresStore, after: Version = 0): Promise<readonly Event[]> {
  const events: Event[] = [];
  let at = after;
  for (;;) {
    const page = await store.readAfter(at, never);
    if (page === undefined) return events;
    if (page.firstVersion !== at + 1) throw new Error(`asked for what follows ${at}, got ${page.firstVersion}`);
    for (const event of page.events) {
      at += 1;
      if (event.version !== at) throw new Error(`version ${event.version} stands in the place of ${at}`);
      events.push(event);
    }
  }
}

/** The same as the tail sees it, ticking first. */
export async function advanceAll(store: PostgresStore, after: Version = 0): Promise<readonly Event[]> {
  const events: Event[] = [];
  for (;;) {
    const page = await store.advance(after + events.length, never);
    if (page === undefined) return events;
    events.push(...page.events);
  }
}

export function keysOf(events: readonly Event[]): readonly (string | undefined)[] {
  return events.map(({ key }) => key);
}
