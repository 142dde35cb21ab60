import { sql } from "kysely";
import { catalog } from "../catalog.ts";
import type { Polling } from "../poll/polling.ts";

/** A table and its partitions. pg_partition_tree is empty for a table that has no partitions and is none. */
const tables = sql`(select s.relid, 0 as level union select t.relid, t.level from pg_catalog.pg_partition_tree(s.relid) t) p
  join pg_catalog.pg_class c on c.oid = p.relid join pg_catalog.pg_namespace n on n.oid = c.relnamespace`;
const called = sql`pg_catalog.format('%I.%I', n.nspname, c.relname)`;
const capture = sql`pg_catalog.to_regproc(pg_catalog.concat('millrace.capture_', s.relid))`;

/**
 * Watched tables as they are now, by name; for a transaction that only looks.
 *
 * Health is judged by the catalog: each table and each of its partitions must carry the row trigger with the source's own
 * function, ENABLE ALWAYS, without a condition, deferred if and only if capture is strict; and the one for TRUNCATE too,
 * where that is captured. A table that came in the place of one that is gone, by a restore for instance, has another oid, and perhaps its triggers too,
 * which tell nothing of a table that they were not made for.
 */
export const listedSources = catalog
  .selectFrom("millrace.source as s")
  .select([
    "s.id",
    "s.relid as oid",
    "s.name as watchedAs",
    "s.topic",
    "s.capture",
    "s.key_columns as keyColumns",
    "s.included_columns as includedColumns",
    "s.excluded_columns as excludedColumns",
    "s.before_values as beforeValues",
    "s.capture_truncate as captureTruncate",
    "s.created_at as createdAt",
  ])
  .select([
    sql<
      string | null
    >`(select ${called} from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where c.oid = s.relid)`.as("table"),
    sql<boolean>`not exists (select from pg_catalog.pg_class c where c.oid = s.relid)
      and exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where ${called} = s.name and c.relkind in ('r', 'p'))`.as("replaced"),
    sql<readonly string[]>`array(select ${called} from ${tables}
      where not exists (select from pg_catalog.pg_trigger t where t.tgrelid = p.relid and t.tgname = '!millrace_row'
        and t.tgfoid = ${capture} and t.tgtype = 29 and t.tgqual is null and t.tgattr = ''
        and t.tginitdeferred = (s.capture = 'strict'))
      order by p.level, c.relname)`.as("withoutTrigger"),
    sql<readonly string[]>`array(select ${called} from ${tables}
      join pg_catalog.pg_trigger t on t.tgrelid = p.relid and t.tgname = '!millrace_row'
      where t.tgenabled <> 'A' order by p.level, c.relname)`.as("switchedOff"),
    sql<readonly string[]>`array(select ${called} from ${tables}
      where s.capture_truncate and not exists (select from pg_catalog.pg_trigger t
        where t.tgrelid = p.relid and t.tgname = '!millrace_truncate'
          and t.tgfoid = ${capture} and t.tgtype = 32 and t.tgenabled = 'A')
      order by p.level, c.relname)`.as("truncateUnseen"),
    sql<readonly string[]>`array(select k from unnest(s.key_columns || s.topic_columns || s.excluded_columns) k
      where not exists (select from pg_catalog.pg_attribute a
        where a.attrelid = s.relid and a.attname = k and not a.attisdropped))`.as("goneColumns"),
    sql<readonly string[]>`array(select a.attname::text from pg_catalog.pg_attribute a
      where a.attrelid = s.relid and a.attname = any (s.key_columns) and a.attnum > 0 and not a.attisdropped
        and not a.attnotnull)`.as("nullableKeys"),
    sql<readonly string[]>`array(select ${called} from ${tables}
      where c.relpersistence = 'u' order by p.level, c.relname)`.as("unlogged"),
  ])
  .select(sql<Polling | null>`millrace.polling(s.id)`.as("polling"))
  .orderBy("s.name");
