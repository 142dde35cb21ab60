import pg from "pg";
import { tickRow } from "../statements/find-ticks.ts";
import { pinned } from "../statements/look.ts";
import { type KeyRange, rowsIn, tableOf, textArray } from "./key-range.ts";
import { type SnapshotSource, shownColumns } from "./sources.ts";

/*
 * A copy of tables as of exactly one tick, by two transactions:
 *
 *   reader                                        ticker
 *   1 begin repeatable read; lock the tables
 *                                                 2 begin repeatable read; lock tick_lock
 *                                                 3 write a tick at this snapshot, export the snapshot
 *   4 set transaction snapshot
 *                                                 5 commit
 *   6, 7 copy the tables
 *
 * 1 before 3: ALTER TABLE may rewrite a table, and a rewritten table is empty to every snapshot older than the rewrite,
 * silently and for good. Whoever rewrites holds ACCESS EXCLUSIVE until his commit; once ACCESS SHARE is ours, every rewrite
 * is committed, and a snapshot that is taken later sees its rows; no other can begin until we end. LOCK and SET take no
 * snapshot, so that 4 is still possible after 1. ACCESS SHARE stands in no writer's way.
 * 2 before 3: no tick can come between the snapshot and the tick row (see millrace.snapshot_tick). The lock is held for
 * three messages; should this process freeze there, the ticker's timeouts end it, and no tick is written.
 * 4 before 5: an exported snapshot lasts as long as its transaction. After 4 the reader has it for itself.
 * 7 after 5: rows are handed out only once their tick is durable.
 */

/** Message 1. Row security is off so that a policy makes the copy fail, where it would hide rows. */
export function beginReader(sources: readonly SnapshotSource[], deadlineMs: number): string {
  const tables = sources.map(tableOf);
  return `
    begin isolation level repeatable read read only;
    set local row_security = off;
    set local jit = off;
    set local max_parallel_workers_per_gather = 0;
    set local lock_timeout = '1s';
    set local statement_timeout = ${deadlineMs};
    set local idle_in_transaction_session_timeout = ${deadlineMs};
    ${pinned};
    ${tables.length === 0 ? "" : `lock table ${tables.join(", ")} in access share mode`}`;
}

/** Message 2. */
export const beginTicker = `
  begin isolation level repeatable read read write;
  set local synchronous_commit = on;
  set local lock_timeout = '2s';
  set local statement_timeout = '5s';
  set local idle_in_transaction_session_timeout = '3s';
  ${pinned};
  lock table millrace.tick_lock in share row exclusive mode`;

/** Message 3. $1 the epoch that must be in force. */
export const tickAndExport = `
  select ${tickRow} as tick_row,
    pg_catalog.pg_export_snapshot() as snapshot
  from millrace.snapshot_tick($1::uuid) t`;

/** Who holds what message 1, or 2, waits for. */
export const tableLockHolders = `
  select distinct coalesce('pid ' || l.pid, 'a prepared transaction') as holder
  from pg_catalog.pg_locks l
  where l.locktype = 'relation' and l.granted
    and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
    and (l.mode = 'AccessExclusiveLock' and l.relation in (
        select t.relid from millrace.source s, pg_catalog.pg_partition_tree(s.relid) t
        union all select s.relid from millrace.source s)
      or l.relation = 'millrace.tick_lock'::pg_catalog.regclass)
  order by holder`;

/**
 * A row when somebody waits for a table of these sources, $1, that its readers keep from him: nothing but ACCESS EXCLUSIVE
 * does. Everybody who comes after him, writers too, queues behind him.
 */
export const somebodyWaits = `
  select from pg_catalog.pg_locks l
  where l.locktype = 'relation' and not l.granted and l.mode = 'AccessExclusiveLock'
    and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
    and l.relation in (
      select t.relid from millrace.source s, pg_catalog.pg_partition_tree(s.relid) t where s.id = any ($1)
      union all select s.relid from millrace.source s where s.id = any ($1))
  limit 1`;

/**
 * After a query that stands for rows: the tables that it read which are not what its snapshot knew.
 *
 * Message 1 locks the sources alone. Which tables a query reads is known once it has, and it holds their locks from then on;
 * one that was rewritten or truncated between the snapshot and that lock was empty to it, silently. Then its storage is
 * another than the one in the catalog as the snapshot sees it, where a table that was made since is not at all.
 */
export const rewrittenTables = `
  select coalesce(l.relation::pg_catalog.regclass::text, l.relation::text) as name
  from pg_catalog.pg_locks l left join pg_catalog.pg_class c on c.oid = l.relation
  where l.pid = pg_catalog.pg_backend_pid() and l.locktype = 'relation' and l.relation >= 16384
    and (c.oid is null or c.relkind in ('r', 'p', 'm')
      and coalesce(pg_catalog.pg_relation_filenode(c.oid), 0) <> c.relfilenode)
  limit 1`;

/** Message 4. */
export function adoptSnapshot(snapshot: string): string {
  return `set transaction snapshot ${pg.escapeLiteral(snapshot)}`;
}

/**
 * After message 5, for it takes a snapshot.
 *
 * Images are built with the very settings that capture pins: they are read from the function that pins them.
 *
 * tcp_user_timeout, because statement_timeout does not reach a session that is stuck in a write: should this process freeze
 * with the socket full, the transaction would last as long as the freeze. Where the server's system does not have it, the
 * setting is refused, hence only on Linux. transaction_timeout came with Postgres 17: before it, a frozen client whose
 * statement has been ended is an idle transaction, for as long again.
 */
export function pinSettings(deadlineMs: number): string {
  return `
    select pg_catalog.set_config(name, value, true)
    from (
      select split_part(c, '=', 1) as name, substr(c, strpos(c, '=') + 1) as value
      from pg_catalog.pg_proc p, unnest(p.proconfig) c
      where p.oid = 'millrace.row_image(record, text[], text[])'::pg_catalog.regprocedure
      union all
      select 'tcp_user_timeout', '${deadlineMs}' where version() ilike '%linux%'
      union all
      select 'transaction_timeout', '${deadlineMs}' where current_setting('server_version_num')::int >= 170000
    ) setting`;
}

/**
 * Message 6: what the next COPY needs to be bounded and to go on.
 *
 * The server's own clocks end a transaction whose client is frozen or gone. Where rows can be read through an index they are
 * not sorted: a sort of a large table gives no row before all are read, so that a deadline would find nothing to go on from.
 */
export function beforeCopy(remainingMs: number, byIndex: boolean): string {
  const timeout = Math.max(1, Math.ceil(remainingMs));
  const sort = byIndex ? "off" : "on";
  return `
    set local statement_timeout = ${timeout};
    set local idle_in_transaction_session_timeout = ${timeout};
    set local enable_sort = ${sort};
    set local enable_incremental_sort = ${sort}`;
}

/**
 * Message 7: key, image and topic (null when it is the source's own) of each row, in order.
 *
 * A row looks the same here and in its events: the expressions say what those of `millrace.capture_side` say, and a test
 * holds them to it byte by byte. They are written so that nothing is called and no JSON is parsed for the rows of nearly
 * every table, which is 3 to 10 times faster: columns are left out before the image is built, and not cut out of it; a key
 * of a type whose JSON is its text is taken from the row.
 *
 * @param image an expression over `s.t`, where the columns alone do not say it: see `imageExpression`.
 *
 * The rows are in order before their images are built: images are wide.
 */
export function copyRows(source: SnapshotSource, range: KeyRange, image = imageOf(source)): string {
  const { initialState } = source;
  // The line ends, for the query's last may be a comment.
  const rows =
    initialState === undefined
      ? `select s.t, ${image} as image from (select t ${rowsIn(source, range)} offset 0) s offset 0`
      : `select t, pg_catalog.row_to_json(t) as image from (${initialState.sql}\n) t offset 0`;
  return `
    copy (
      select ${keyOf(source)}, i.image, ${topicOf(source)}
      from (
        ${rows}
      ) i
    ) to stdout (format binary)`;
}

function imageOf(source: SnapshotSource): string {
  const shown = shownColumns(source);
  if (shown.length === source.columns.length) return "pg_catalog.row_to_json(s.t)";
  if (shown.length === 0) return "'{}'::json";
  const fields = shown.map((column) => `(s.t).${pg.escapeIdentifier(column)}`);
  return `pg_catalog.row_to_json((select r from (select ${fields.join(", ")}) r))`;
}

function keyOf({ keyColumns, plainKey, initialState }: SnapshotSource): string {
  const [only] = keyColumns;
  const general = `millrace.key_of(i.t, i.image, ${textArray(keyColumns)})`;
  if (keyColumns.length !== 1 || only === undefined || initialState !== undefined) return general;
  if (plainKey) return `(i.t).${pg.escapeIdentifier(only)}::text`;
  return `case when strpos(i.image::text, '\\u') = 0 then i.image ->> ${pg.escapeLiteral(only)} else ${general} end`;
}

function topicOf({ topic, topicColumns }: SnapshotSource): string {
  if (topicColumns.length === 0) return "null::text";
  return `millrace.topic_of(i.t, i.image, ${pg.escapeLiteral(topic)}, ${textArray(topicColumns)})`;
}
