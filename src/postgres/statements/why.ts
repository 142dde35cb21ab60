/**
 * The last tick, and committed events that it has not settled: those of transactions that its snapshot had not reached or
 * had seen in progress, as far as they are visible now. At most 10,001 are counted.
 */
export const lastTick = `
  with t as (
    select *, greatest(base_seq, floor_seq) as floor from millrace.tick order by tick desc limit 1
  ), unsettled as (
    (select o.occurred_at from millrace.outbox o
     where o.xid >= (select pg_snapshot_xmax(t.snapshot) from t) and o.seq > (select t.floor from t) limit 10001)
    union all
    (select o.occurred_at from millrace.outbox o
     where o.xid = any (array(select pg_snapshot_xip(t.snapshot) from t)) and o.seq > (select t.floor from t) limit 10001)
  )
  select t.tick::float8 as tick, (t.first_version + t.count - 1)::float8 as head,
    (extract(epoch from t.time) * 1000000)::float8 as "timeMicros",
    greatest(0, extract(epoch from clock_timestamp() - t.time) * 1000)::float8 as "ageMs",
    (select least(count(*), 10001)::int from unsettled) as unsettled,
    (select extract(epoch from clock_timestamp() - min(occurred_at)) * 1000 from unsettled)::float8 as "unsettledAgeMs"
  from t`;

/**
 * Open transactions, the oldest first, and whether each has written events: a writer of the outbox holds its lock until it
 * ends, which everybody may see, also where pg_stat_activity hides the rest from this role. A query may hold secrets: shown
 * to members of the role that owns Millrace.
 */
export const openTransactions = `
  with writers as (
    select distinct l.pid, l.virtualtransaction from pg_catalog.pg_locks l
    where l.locktype = 'relation' and l.mode = 'RowExclusiveLock' and l.granted
      and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
      and l.relation = 'millrace.outbox'::pg_catalog.regclass
  )
  select a.pid, a.usename::text as role, a.application_name as application, a.state,
    (extract(epoch from clock_timestamp() - a.xact_start) * 1000)::float8 as "ageMs",
    exists (select from writers w where w.pid = a.pid) as "wroteEvents",
    case when pg_catalog.pg_has_role(n.nspowner, 'MEMBER') then a.query end as query
  from pg_catalog.pg_stat_activity a, pg_catalog.pg_namespace n
  where n.nspname = 'millrace' and a.datname = current_database() and a.pid <> pg_backend_pid()
    and coalesce(a.backend_type, 'client backend') = 'client backend'
    and (a.xact_start is not null or exists (select from writers w where w.pid = a.pid))
  order by a.xact_start nulls last limit 5`;

/** Prepared transactions, the oldest first: they hold their locks and their events until somebody decides. */
export const preparedTransactions = `
  select p.gid, p.owner::text as role,
    (extract(epoch from clock_timestamp() - p.prepared) * 1000)::float8 as "ageMs",
    exists (
      select from pg_catalog.pg_locks own
        join pg_catalog.pg_locks l on l.virtualtransaction = own.virtualtransaction and l.pid is null
      where own.locktype = 'transactionid' and own.transactionid = p.transaction and own.pid is null
        and l.relation = 'millrace.outbox'::pg_catalog.regclass and l.mode = 'RowExclusiveLock'
    ) as "wroteEvents"
  from pg_catalog.pg_prepared_xacts p
  where p.database = current_database()
  order by p.prepared limit 5`;

/** Who waits for a lock on something of Millrace's or a watched table, and who has it. pid 0 is a prepared transaction. */
export const lockWaits = `
  select l.pid, l.relation::pg_catalog.regclass::text as relation, l.mode, pg_catalog.pg_blocking_pids(l.pid) as "blockedBy"
  from pg_catalog.pg_locks l
  where not l.granted and l.locktype = 'relation'
    and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
    and l.relation in (
      select c.oid from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = 'millrace'
      union all select s.relid from millrace.source s
      union all select t.relid from millrace.source s, pg_catalog.pg_partition_tree(s.relid) t)
  order by l.pid limit 20`;

/** Whether pg_stat_activity tells this role of other roles' sessions. */
export const seesActivity = "select pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') as sees";
