import type pg from "pg";
import type { WatchedTopic } from "../../core/builder/topic-bindings.ts";
import { withLease } from "../lease.ts";
import { look } from "../look.ts";
import { queryError } from "../query-error.ts";

/** Tables by their present names; one that is gone by the name that it was watched as. */
const watchedTopics = `
  select coalesce((
      select pg_catalog.format('%I.%I', n.nspname, c.relname)
      from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = s.relid
    ), s.name) as "table", s.topic
  from millrace.source s order by s.id`;

/** The watched tables and their topics. Rejects with DATABASE_UNAVAILABLE. */
export async function readWatchedTopics(pool: pg.Pool, signal: AbortSignal): Promise<readonly WatchedTopic[]> {
  try {
    return await withLease(pool, signal, (lease) =>
      look(lease.client, () => lease.rows<{ readonly table: string; readonly topic: string }>(watchedTopics)),
    );
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw queryError(error, "list the watched tables");
  }
}
