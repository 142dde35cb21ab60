/** The functions of upkeep, each a transaction. They look whose turn it is, and bound their own waits for locks. */
export type UpkeepCall =
  | "millrace.turn_default()"
  | "millrace.extend_outbox(millrace.partition_width())"
  | "millrace.rotate_outbox()"
  | `millrace.forget(${number})`
  | `millrace.keep_subscriptions(${number})`
  | `millrace.drop_partition(${number})`;

/**
 * One step of upkeep, in ONE message: the server runs to the commit whatever becomes of the client. Frozen or dead, it holds
 * no lock that writers wait for. The answer is the row of the statement before the last.
 *
 * READ COMMITTED, because what is proved under a lock must be seen by a statement that begins after the lock is there. The
 * timeout bounds what a sick disk can do to everybody else while the outbox is locked; what locks out nobody, reading the
 * default partition above all, may take its time.
 */
export function upkeepStep(call: UpkeepCall): string {
  return `
    begin isolation level read committed read write;
    set local jit = off;
    set local statement_timeout = ${upkeepTimeoutMs(call)};
    set local idle_in_transaction_session_timeout = '5s';
    select ${call} as outcome;
    commit`;
}

/** How long a step may take, in milliseconds. */
export function upkeepTimeoutMs(call: UpkeepCall): number {
  if (call === "millrace.turn_default()") return 3_600_000;
  return call.startsWith("millrace.drop") ? 2_000 : 30_000;
}

/** What upkeep waits for, kept for everybody to see. $1 a sentence or null. */
export const noteUpkeep = "select millrace.note_upkeep($1)";

/**
 * Who holds a lock on the outbox or on one of its partitions, the longest transaction first. How long is known of this
 * role's own sessions, and of all to members of pg_read_all_stats.
 */
export const outboxLockHolders = `
  select case when l.pid is null then 'a prepared transaction' else pg_catalog.concat('pid ', l.pid) end as holder,
    (extract(epoch from pg_catalog.clock_timestamp() - a.xact_start) * 1000)::float8 as "ageMs"
  from (
    select distinct k.pid from pg_catalog.pg_locks k
    where k.locktype = 'relation' and k.granted
      and k.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
      and k.relation in (
        select 'millrace.outbox'::pg_catalog.regclass::pg_catalog.oid
        union all select i.inhrelid from pg_catalog.pg_inherits i where i.inhparent = 'millrace.outbox'::pg_catalog.regclass
      )
      and k.pid is distinct from pg_catalog.pg_backend_pid()
  ) l left join pg_catalog.pg_stat_activity a on a.pid = l.pid
  order by a.xact_start nulls last limit 3`;

/** What is past a limit, and what would be forgotten with it. */
export const prunable = `
  select name, lower_seq::float8 as "lowerSeq", upper_seq::float8 as "upperSeq", bytes::float8 as bytes,
    last_version::float8 as "lastVersion", (extract(epoch from settled_at) * 1000)::float8 as "settledAtMs",
    reason, held_by as "heldBy", due
  from millrace.prunable()`;

/** The settings, and what upkeep waits for. Ages in milliseconds. */
export const readRetention = `
  select (extract(epoch from keep_age) * 1000)::float8 as "keepAgeMs", keep_bytes::float8 as "keepBytes",
    (extract(epoch from hold_cap_age) * 1000)::float8 as "holdCapAgeMs", hold_cap_bytes::float8 as "holdCapBytes",
    waits_for as "waitsFor",
    (extract(epoch from pg_catalog.clock_timestamp() - waits_since) * 1000)::float8 as "waitsMs"
  from millrace.retention`;

/** $1 keep_age, $3 hold_cap_age in seconds; $2, $4 bytes; null for no limit. */
export const writeRetention = `
  select millrace.retain(pg_catalog.make_interval(secs => $1::float8), $2::bigint,
    pg_catalog.make_interval(secs => $3::float8), $4::bigint)`;

/** The oldest readable version and when it settled, and the last version. */
export const readExtent = `
  select f.first_version::float8 as oldest, (extract(epoch from f.time) * 1000)::float8 as "oldestSettledAtMs",
    (l.first_version + l.count - 1)::float8 as head, millrace.drawn()::float8 as drawn,
    pg_catalog.pg_total_relation_size('millrace.tick')::float8 as "tickBytes",
    (select count(*)::float8 from (select from millrace.outbox_default limit 10001) d) as "defaultRows"
  from (select * from millrace.tick order by tick desc limit 1) l
    left join (
      select t.first_version, t.time from millrace.tick t
      where t.tick > (select o.tick from millrace.oldest_tick() o) and t.count > 0 order by t.tick limit 1
    ) f on true`;

/** Partitions in the order of what they hold, the default one last. */
export const readPartitions = `
  select name, lower_seq::float8 as "lowerSeq", upper_seq::float8 as "upperSeq",
    pg_catalog.pg_total_relation_size(relid)::float8 as bytes
  from millrace.partitions() order by lower_seq nulls last`;

/** Who holds history back, what needs most of it first: of subscriptions, which may be thousands, $1 at most. */
export const readHolds = `
  select h.kind, h.name, h.version::float8 as version, (extract(epoch from h.expires_at) * 1000)::float8 as "expiresAtMs"
  from (
    select b.*, pg_catalog.row_number() over (partition by b.kind order by b.version, b.name) as place
    from millrace.held_back() b
  ) h where h.kind <> 'subscription' or h.place <= $1
  order by h.version, h.name`;

/** How many subscriptions there are, and how many are LOST, with $1 of their names at most. */
export const readSubscriptions = `
  select count(*)::float8 as count, count(*) filter (where r.state = 'LOST')::float8 as "lostCount",
    (pg_catalog.array_agg(r.id order by r.id) filter (where r.state = 'LOST'))[1:$1::int] as lost
  from millrace.subscription_record r`;

/** $1 name, $2 version or null, $3 seconds. */
export const placeHold = `
  select name, version::float8 as version, (extract(epoch from expires_at) * 1000)::float8 as "expiresAtMs"
  from millrace.hold($1, $2::bigint, pg_catalog.make_interval(secs => $3::float8))`;

/** $1 name. */
export const releaseHold = "select millrace.release($1) as released";
