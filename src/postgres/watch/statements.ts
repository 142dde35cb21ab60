/**
 * What one of this server's own sessions does. No row where it is gone, and behind a pooler, whose numbers are its own.
 * Sessions of the same role are always visible.
 *
 * $1 pid, $2 application name. Found by both: a number is given again, a name of this form is not.
 */
export const sessionState = `
  select a.state, a.wait_event_type as "waitType", a.wait_event as "waitEvent",
    (extract(epoch from clock_timestamp() - a.state_change) * 1000)::float8 as "forMs"
  from pg_catalog.pg_stat_activity a where a.pid = $1 and a.application_name = $2`;

/** Ends that session, which nobody reads from any more: it may hold a snapshot, a lock, or the waiter's place. */
export const endSession = `
  select pg_catalog.pg_terminate_backend(a.pid) as ended from pg_catalog.pg_stat_activity a
  where a.pid = $1 and a.application_name = $2`;

/**
 * Who holds the waiter's lock, and for how long it has said nothing. A waiter of Millrace's says something every ten
 * seconds. Without a name of ours it is not ours to end.
 */
const waiter = `
  select a.pid, a.application_name as application,
    (extract(epoch from clock_timestamp() - a.state_change) * 1000)::float8 as "silentMs"
  from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid
  where l.locktype = 'advisory' and l.granted and l.mode = 'ExclusiveLock'
    and l.classid = 'millrace.outbox'::pg_catalog.regclass and l.objid = 1 and l.objsubid = 2
    and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())`;

/** The waiter that has said nothing for $1 milliseconds, if there is one. */
export const silentWaiter = `
  select * from (${waiter}) w
  where w."silentMs" > $1 and w.application like 'millrace %' and w.pid <> pg_catalog.pg_backend_pid()`;

/** Ends the waiter $2, if it has still said nothing for $1 milliseconds. */
export const endSilentWaiter = `
  select pg_catalog.pg_terminate_backend(w.pid) as ended from (${waiter}) w
  where w."silentMs" > $1 and w.pid = $2 and w.application like 'millrace %'`;

/** Whether a session still listens, and holds what it believes to hold: a pooler may have put another one underneath. */
export const listenerState = `
  select exists (
      select from pg_catalog.pg_listening_channels() c where c = 'millrace_wake'
    ) as listens,
    exists (
      select from pg_catalog.pg_locks l
      where l.pid = pg_catalog.pg_backend_pid() and l.locktype = 'advisory' and l.granted and l.mode = 'ExclusiveLock'
        and l.classid = 'millrace.outbox'::pg_catalog.regclass and l.objid = 1 and l.objsubid = 2
    ) as holds`;

/** The last settled version. */
export const settledHead = `
  select (t.first_version + t.count - 1)::float8 as head from millrace.tick t order by t.tick desc limit 1`;

/** All sessions of servers in this database, by part and server. What this role may not see of them is null. */
export const millraceSessions = `
  select a.pid, split_part(a.application_name, ' ', 2) as part, split_part(a.application_name, ' ', 3) as server,
    host(a.client_addr) as client, a.state, a.wait_event_type as "waitType",
    (extract(epoch from clock_timestamp() - a.state_change) * 1000)::float8 as "silentMs",
    row_number() over (partition by a.application_name order by a.backend_start desc nulls last, a.pid desc) = 1 as newest,
    exists (select from (${waiter}) w where w.pid = a.pid) as "holdsWaitersLock"
  from pg_catalog.pg_stat_activity a
  where a.datname = current_database() and a.application_name ~ '^millrace [a-z]+ [0-9a-f]{8}$'
    and a.pid <> pg_backend_pid() and a.application_name not like 'millrace watchdog %'
  order by a.pid`;

/** Keeps that a part was restarted. $1 server, $2 part, $3 code, $4 message. */
export const noteRestart = "select millrace.note_restart($1, $2, $3, $4)";

/** Whether there is a place to look for that. */
export const keepsRestarts = "select to_regclass('millrace.restart') is not null as kept";

/** What was restarted within the last hour, by server and part, the latest first. */
export const lastRestarts = `
  select * from (
    select distinct on (r.server, r.part) r.server, r.part, r.code, r.message,
      (count(*) over (partition by r.server, r.part))::int as times,
      (extract(epoch from clock_timestamp() - r.at) * 1000)::float8 as "agoMs"
    from millrace.restart r where r.at > clock_timestamp() - interval '1 hour'
    order by r.server, r.part, r.id desc) l
  order by l."agoMs" limit 20`;
