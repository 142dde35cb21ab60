import type { Tick } from "../../core/page.ts";

/**
 * The epoch in force, if this is the database that it was written by; MR003 otherwise. `younger` says that transaction ids
 * have gone back, which the identity alone does not tell.
 */
export const epochInForce = `
  select millrace.assert_epoch() as epoch,
    pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()) < pg_catalog.pg_snapshot_xmax(t.snapshot) as younger
  from (select * from millrace.tick order by tick desc limit 1) t`;

/** What an epoch, $1, descends from, newest first: each ancestor with the last version that its successor took over. */
export const readLineage = `
  with recursive line(parent, fork_version, depth) as (
    select e.parent, e.fork_version, 0 from millrace.epoch e where e.id = $1::uuid
    union all
    select p.parent, p.fork_version, l.depth + 1 from line l join millrace.epoch p on p.id = l.parent
  )
  select l.parent as epoch, l.fork_version::text as "forkVersion" from line l where l.parent is not null order by l.depth`;

/**
 * Begins the epoch that is due, if one is. One message, as a tick is, for it holds the same lock.
 *
 * @param proof A tick of the epoch in force that was read from this database and is not in it any more.
 */
export function beginEpoch(proof: { readonly epoch: string; readonly lost: Tick } | undefined): string {
  const { tick, firstVersion, count, timeMicros } = proof?.lost ?? {};
  const values = proof === undefined ? "" : `'${proof.epoch}', ${tick}, ${firstVersion}, ${count}, ${timeMicros}`;
  return `
    begin isolation level read committed read write;
    set local synchronous_commit = on;
    set local statement_timeout = 0;
    select e.id as epoch, e.parent, e.fork_version::text as "forkVersion", e.reason, e.unsettled::text as unsettled
    from millrace.begin_epoch(${values}) e;
    commit`;
}

/**
 * Whether a dump is being restored into this database at this moment: an epoch that began before its end would miss what is
 * loaded later. Of a restored dump only, told by the oid of its outbox or by its cluster; a copy of files is whole.
 *
 * Primary keys are made once all data of their table, or of all its partitions, are loaded. Triggers come last: a watched
 * table without its own is not there yet, or was dropped long ago; as long as somebody restores, the first is meant.
 */
export const restoreUnderWay = `
  select exists (
      select from unnest('{outbox,tick,epoch,source}'::text[]) as name
      where not exists (
        select from pg_index i
        where i.indrelid = to_regclass('millrace.' || name) and i.indisprimary and i.indisvalid)
    ) or exists (
      select from pg_stat_activity a
      where a.datname = current_database() and a.pid <> pg_backend_pid() and a.application_name in ('pg_restore', 'psql')
    ) and exists (
      select from millrace.source s
      where to_regproc('millrace.capture_' || s.relid) is not null
        and not exists (select from pg_trigger t where t.tgfoid = to_regproc('millrace.capture_' || s.relid))
    ) as restoring
  from (select * from millrace.epoch order by first_tick desc limit 1) e, pg_control_system() c
  where e.outbox_oid <> to_regclass('millrace.outbox') or e.system_identifier <> c.system_identifier`;

/** How an epoch, $1, came about. */
export const readEpoch = `
  select to_char(e.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as "createdAt", e.reason, e.parent,
    e.fork_version::text as "forkVersion", e.unsettled::text as unsettled
  from millrace.epoch e where e.id = $1::uuid`;
