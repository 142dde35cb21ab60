-- What each capability may call, as rows: a later migration adds its own, and a function that nobody lists is nobody's.

create table millrace.permission (
  capability text not null check (capability in ('server', 'writer', 'watcher')),
  -- By name, all of that name: an overload does what its namesakes do.
  function name not null,
  primary key (capability, function)
);
comment on table millrace.permission is
  'The functions behind each capability of millrace.allow. A migration that adds a function for others to call adds a row.';
comment on column millrace.permission.capability is 'server, writer or watcher: see millrace.allow.';
comment on column millrace.permission.function is 'Name of a function in this schema.';

insert into millrace.permission (capability, function)
select 'writer', unnest('{emit,transaction}'::name[])
union all
select 'watcher', unnest('{watch,unwatch,assert_watchable,lock_holders,lock_table,install_triggers,prepare_source,'
  'register_source,release_source}'::name[])
union all
select 'server', unnest('{assert_epoch,tick,snapshot_tick,tail,new_xids,emit,transaction,publish,row_image,column_json,'
  'json_text,key_of,topic_of,topic_token}'::name[]);

create or replace function millrace.grant_capability(role name, capability text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  f record;
begin
  execute format('grant usage on schema millrace to %I', role);
  for f in
    select p.oid::regprocedure as signature
    from pg_proc p
    where p.pronamespace = to_regnamespace('millrace')
      and (exists (select from millrace.permission m
                   where m.capability = grant_capability.capability and m.function = p.proname)
        -- Whoever creates a trigger must be allowed to execute its function.
        or grant_capability.capability = 'watcher' and p.prorettype = 'trigger'::regtype)
  loop
    execute format('grant execute on function %s to %I', f.signature, role);
  end loop;
  if grant_capability.capability = 'watcher' then
    execute format('grant select on millrace.source to %I', role);
  elsif grant_capability.capability = 'server' then
    execute format('grant select on all tables in schema millrace to %I', role);
    execute format('grant insert, update, delete on millrace.publication to %I', role);
    -- What LOCK TABLE ... IN SHARE ROW EXCLUSIVE MODE asks for.
    execute format('grant update on millrace.tick_lock to %I', role);
    execute format('grant select on sequence millrace.outbox_seq to %I', role);
  end if;
end $$;
