-- Who may do what. Nothing here is open to PUBLIC: not the schema, not a table, not a function.

create table millrace.access (
  -- By name: roles come and go without telling, and a dump restored elsewhere still means the same.
  role name not null,
  capability text not null check (capability in ('server', 'writer', 'watcher')),
  allowed_at timestamptz not null default clock_timestamp(),
  primary key (role, capability)
);
comment on table millrace.access is 'What millrace.allow has allowed: given again after each migration, for what that one added.';
comment on column millrace.access.role is 'The role, by name.';
comment on column millrace.access.capability is 'server, writer or watcher: see millrace.allow.';
comment on column millrace.access.allowed_at is 'When it was allowed first.';

create function millrace.grant_capability(role name, capability text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  writing constant name[] := '{emit,transaction}';
  watching constant name[] := '{watch,unwatch,assert_watchable,lock_holders,lock_table,install_triggers,prepare_source,'
    'register_source,release_source}';
  governing constant name[] := '{allow,deny,allow_again,grant_capability}';
  -- Parts of others: what they are told, they believe.
  inner_parts constant name[] := '{settle,capture_side,capture_body,assert_owned,assert_alone}';
  f record;
begin
  execute format('grant usage on schema millrace to %I', role);
  for f in
    select p.oid::regprocedure as signature
    from pg_proc p
    where p.pronamespace = to_regnamespace('millrace')
      and case capability
        when 'writer' then p.proname = any (writing)
        when 'watcher' then p.proname = any (watching) or p.prorettype = 'trigger'::regtype
        else p.proname <> all (watching || governing || inner_parts) and p.prorettype <> 'trigger'::regtype
      end
  loop
    execute format('grant execute on function %s to %I', f.signature, role);
  end loop;
  if capability = 'watcher' then
    execute format('grant select on millrace.source to %I', role);
  elsif capability = 'server' then
    execute format('grant select on all tables in schema millrace to %I', role);
    execute format('grant insert, update, delete on millrace.publication to %I', role);
    -- What LOCK TABLE ... IN SHARE ROW EXCLUSIVE MODE asks for.
    execute format('grant update on millrace.tick_lock to %I', role);
    execute format('grant select on sequence millrace.outbox_seq to %I', role);
  end if;
end $$;
comment on function millrace.grant_capability(name, text) is 'The grants behind millrace.allow. Use that.';

create function millrace.allow(role regrole, capability text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  role_name constant name := (select rolname from pg_roles where oid = role);
begin
  if role_name is null or capability is null then
    raise exception 'millrace.allow needs a role and a capability'
      using errcode = '22004', hint = 'For example: select millrace.allow(''app'', ''writer'').';
  end if;
  if capability not in ('server', 'writer', 'watcher') then
    raise exception 'there is no capability "%"', capability
      using errcode = '22023', hint = 'Capabilities are server, writer and watcher.';
  end if;
  perform millrace.grant_capability(role_name, capability);
  insert into millrace.access (role, capability) values (role_name, allow.capability) on conflict do nothing;
end $$;
comment on function millrace.allow(regrole, text) is
  'Lets a role be a server (reads, ticks and publishes; it also needs SELECT on watched tables for snapshots), a writer (calls '
  'millrace.emit; writing to watched tables needs nothing) or a watcher (calls millrace.watch for tables it owns). '
  'For the owner of the schema and superusers.';

create function millrace.deny(role regrole, capability text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  role_name constant name := (select rolname from pg_roles where oid = role);
  kept text;
begin
  delete from millrace.access a where a.role = role_name and a.capability = deny.capability;
  execute format('revoke all on all tables in schema millrace from %I', role_name);
  execute format('revoke all on all sequences in schema millrace from %I', role_name);
  execute format('revoke all on all functions in schema millrace from %I', role_name);
  execute format('revoke all on schema millrace from %I', role_name);
  for kept in select a.capability from millrace.access a where a.role = role_name loop
    perform millrace.grant_capability(role_name, kept);
  end loop;
end $$;
comment on function millrace.deny(regrole, text) is
  'Takes back what millrace.allow gave. After the last capability the role has no grant in the schema and can be dropped.';

create function millrace.allow_again() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  allowed record;
begin
  for allowed in select a.role, a.capability from millrace.access a join pg_roles r on r.rolname = a.role loop
    perform millrace.grant_capability(allowed.role, allowed.capability);
  end loop;
end $$;
comment on function millrace.allow_again() is 'Gives every capability again, for what a migration has just added. Called by millrace migrate.';

revoke all on function millrace.grant_capability(name, text), millrace.allow(regrole, text), millrace.deny(regrole, text),
  millrace.allow_again() from public;
