import type { Event, Operation } from "../../../src/core/event.ts";
import type { FeedDatabase } from "./feed-database.ts";

const operations: Readonly<Record<string, Operation>> = {
  I: "INSERT",
  U: "UPDATE",
  D: "DELETE",
  T: "TRUNCATE",
  M: "MESSAGE",
};

interface Row {
  readonly topic: string;
  readonly key: string | null;
  readonly operation: string;
  readonly before: string | null;
  readonly after: string | null;
}

/** Events after a tick, in the total order, as a reader of history gets them; of one table, or of all. */
export async function eventsOf(database: FeedDatabase, table?: string, afterTick = 0): Promise<readonly Event[]> {
  const rows = await database.sql<Row>(
    `select o.topic, o.key, o.operation, o.before::text, o.after::text
     from millrace.outbox o,
       lateral (select min(t.tick) as tick from millrace.tick t where pg_visible_in_snapshot(o.xid, t.snapshot)) s
     where s.tick > $1 and ($2::text is null or o.source_id = (select id from millrace.source where relid = to_regclass($2)))
     order by s.tick, o.seq`,
    [afterTick, table ?? null],
  );
  return rows.map(({ topic, key, operation, before, after }, at) => ({
    version: at + 1,
    topic,
    key: key ?? undefined,
    operation: operations[operation] ?? "MESSAGE",
    before: imageOf(before),
    after: imageOf(after),
    transaction: "",
    occurredAtMicros: 0,
    headers: undefined,
  }));
}

function imageOf(json: string | null): Uint8Array | undefined {
  return json === null ? undefined : Buffer.from(json);
}
