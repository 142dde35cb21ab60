/** The server and the session, whatever the schema. */
export const serverFacts = `
  select current_setting('server_version') as version, current_setting('server_version_num')::int as number,
    current_user::text as role, pg_backend_pid() as pid, pg_is_in_recovery() as recovery,
    current_setting('synchronous_commit') as "synchronousCommit", current_setting('fsync') as fsync,
    current_setting('full_page_writes') as "fullPageWrites",
    current_setting('default_transaction_isolation') as isolation,
    current_setting('default_transaction_read_only') as "readOnly",
    current_setting('max_prepared_transactions')::int as prepared,
    pg_notification_queue_usage() as notifications,
    (extract(epoch from clock_timestamp()) * 1000)::float8 as "clockMs",
    exists (
      select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where n.nspname = 'millrace' and c.relname = 'migration'
    ) as schema`;

/** What the present role may do with Millrace: one of each kind that the capability gives. */
export const capabilities = `
  select bool_and(has_table_privilege(t, 'SELECT')) as "mayRead",
    has_function_privilege('millrace.tick(uuid)', 'EXECUTE')
      and has_function_privilege('millrace.snapshot_tick(uuid)', 'EXECUTE')
      and has_table_privilege('millrace.tick_lock', 'UPDATE') as "mayTick",
    has_function_privilege('millrace.emit(text, text, json, json, text)', 'EXECUTE')
      and has_table_privilege('millrace.publication', 'INSERT') as "mayPublish",
    (select bool_and(has_function_privilege(p.oid, 'EXECUTE')) from pg_catalog.pg_proc p
     where p.pronamespace = to_regnamespace('millrace') and p.proname = 'watch') as "mayWatch"
  from unnest(array['millrace.outbox', 'millrace.tick', 'millrace.epoch', 'millrace.source', 'millrace.publication']) t`;
