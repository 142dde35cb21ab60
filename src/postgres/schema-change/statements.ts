/** Sources that do not look as noted; `id`. Within a look. */
export const changedSources = "select id from millrace.changed_sources() id";

/**
 * Compare one source with what was noted, tell, and note: `change`.
 *
 * One message, because the row of the source's shape is locked until the commit, and with it whoever watches the table again:
 * a process that freezes must not hold it. READ COMMITTED, so that what is compared after the lock is the catalog of now.
 */
export function announceChange(sourceId: number): string {
  return `
    begin isolation level read committed read write;
    set local statement_timeout = '5s';
    set local idle_in_transaction_session_timeout = '5s';
    select o.topic, millrace.announce_schema_change(o.id) as change from millrace.source o where o.id = ${sourceId};
    commit`;
}
