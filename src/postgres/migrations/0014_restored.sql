-- What else a restored dump brings along that means something else here: oids of watched tables, and the ids of transactions
-- that published.

-- Oids mean what they meant in all copies but a restored dump.
create function millrace.is_unadopted() returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select e.outbox_oid <> 'millrace.outbox'::regclass or not millrace.is_origin()
    or e.system_identifier <> (select c.system_identifier from pg_control_system() c) and not millrace.has_same_xids(e)
  from millrace.epoch_in_force() e
$$;
comment on function millrace.is_unadopted() is 'Whether this is a restored dump whose watched tables Millrace knows by old oids.';

-- The table of a source in a restored dump: the one with the trigger that calls the source's function, which still has its
-- old name. Whoever watches tables may put that trigger on a table of theirs: so it must belong to the same role as then,
-- or to one that may do everything here anyway (whoever restores with --no-owner is one). Null when it is not clear.
create function millrace.restored_table(s millrace.source) returns oid
language sql stable set search_path = pg_catalog, pg_temp as $$
  with candidate as (
    select c.oid, format('%I.%I', n.nspname, c.relname) = s.name as same_name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_roles r on r.oid = c.relowner
    where c.relkind in ('r', 'p')
      and (r.rolname = s.owner or r.rolsuper
        or c.relowner = (select m.nspowner from pg_namespace m where m.nspname = 'millrace'))
      and (exists (
          select from pg_trigger t where t.tgrelid = c.oid and t.tgfoid = to_regproc('millrace.capture_' || s.relid)
            and t.tgtype & 1 = 1 and t.tgparentid = 0)
        or to_jsonb(s) ->> 'capture' = 'poll' and format('%I.%I', n.nspname, c.relname) = s.name)
  )
  select min(c.oid::bigint)::oid from candidate c
  where c.same_name or not exists (select from candidate d where d.same_name)
  having count(*) = 1
$$;
comment on function millrace.restored_table(millrace.source) is 'The table of a source in a restored dump, by its trigger and its owner.';

create function millrace.is_restored(relid oid, source_id int) returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
  s millrace.source;
  family oid[];
begin
  select * into s from millrace.source k where k.id = source_id;
  family := array(select a.relid from pg_partition_ancestors(relid) a) || relid;
  -- Adopted while the trigger that asks was running.
  return s.id is not null
    and (s.relid = any (family) or millrace.is_unadopted() and coalesce(millrace.restored_table(s) = any (family), false));
end $$;
comment on function millrace.is_restored(oid, int) is
  'Whether a table, or one that it is a partition of, is a source''s own although its oid is not the one that the source''s '
  'trigger function was written for: in a restored dump, until a Millrace server meets it. Asked by that function.';

-- Functions are renamed in two steps, and oids given in an order in which none is taken: an old one may be another table's
-- new one. What has no table here gets an oid that no table ever has, and is reported as gone.
create function millrace.adopt_sources() returns int
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  s millrace.source;
  tables oid[] := '{}';
  waiting int[];
  next_id int;
  adopted int := 0;
begin
  for s in select * from millrace.source order by id loop
    tables[s.id] := coalesce(millrace.restored_table(s), (4294967295 - s.id)::oid);
  end loop;
  for s in select * from millrace.source order by id loop
    if to_regproc('millrace.capture_' || s.relid) is not null then
      execute format('alter function millrace.%I() rename to %I', 'capture_' || s.relid, 'adopting_' || s.id);
    end if;
  end loop;
  waiting := array(select o.id from millrace.source o where o.relid <> tables[o.id]);
  while cardinality(waiting) > 0 loop
    select w into next_id from unnest(waiting) w
    where not exists (select from millrace.source o where o.relid = tables[w]) limit 1;
    if next_id is null then
      -- A ring: one of them steps aside.
      update millrace.source o set relid = (4294967295 - o.id)::oid where o.id = waiting[1];
    else
      update millrace.source o set relid = tables[next_id] where o.id = next_id;
      waiting := array_remove(waiting, next_id);
    end if;
  end loop;
  for s in select * from millrace.source order by id loop
    adopted := adopted + (exists (select from pg_class c where c.oid = s.relid))::int;
    if to_regproc('millrace.adopting_' || s.id) is not null then
      execute format('alter function millrace.%I() rename to %I', 'adopting_' || s.id, 'capture_' || s.relid);
      begin
        perform millrace.write_capture(s);
      exception when others then
        -- It goes on with its old text, and is_restored says that the table is the right one.
        raise warning 'the trigger function of % could not be written again: %', s.name, sqlerrm;
      end;
    end if;
  end loop;
  return adopted;
end $$;
comment on function millrace.adopt_sources() is 'Gives watched tables of a restored dump the oids that they have here. Part of begin_epoch.';

create function millrace.refuse_unadopted() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if millrace.is_unadopted() then
    raise exception 'this database is a restored copy that Millrace has not begun an epoch in' using errcode = 'MR003',
      hint = 'Start a Millrace server here, or run select millrace.begin_epoch(); then try again.';
  end if;
  return null;
end $$;
comment on function millrace.refuse_unadopted() is 'Refuses watch and unwatch while sources have the oids of another database.';
-- Changed by each watch, and by no restore.
create trigger refuse_unadopted before update on millrace.registration
  for each statement execute function millrace.refuse_unadopted();
create trigger refuse_unadopted before delete on millrace.source
  for each statement execute function millrace.refuse_unadopted();

create function millrace.same_xids_since(epoch uuid) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select not exists (
    select from millrace.epoch e
    where not e.same_xids and e.first_tick > coalesce((select f.first_tick from millrace.epoch f where f.id = same_xids_since.epoch), 0))
$$;
comment on function millrace.same_xids_since(uuid) is
  'Whether transaction ids mean what they meant in this epoch; null for the first.';

-- As in 0005, and the epoch of each publication.
create or replace function millrace.publish(
  topics text[], keys text[], operations text[], payloads text[], headers text[],
  principal text, idempotency_key text, content_hash bytea,
  out xid xid8, out outcome text
)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  kept constant interval := '24 hours';
  used record;
  at_epoch uuid;
  e record;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'publish() needs a transaction that is READ COMMITTED'
      using errcode = 'MR004', hint = 'begin isolation level read committed';
  end if;
  if publish.idempotency_key <> '' then
    select e.id into at_epoch from millrace.epoch e order by e.first_tick desc limit 1;
  end if;
  while publish.idempotency_key <> '' loop
    select p.xid, p.content_hash, p.epoch into used from millrace.publication p
    where p.principal = publish.principal and p.idempotency_key = publish.idempotency_key
      and p.created_at >= clock_timestamp() - kept;
    if found then
      -- What came with a restored dump has another server's id. This transaction's own says the same: once it is settled, so
      -- is everything that was committed before it.
      xid := case when millrace.same_xids_since(used.epoch) then used.xid else pg_current_xact_id() end;
      outcome := case when used.content_hash = publish.content_hash then 'duplicate' else 'conflict' end;
      return;
    end if;
    insert into millrace.publication as p (principal, idempotency_key, content_hash, epoch)
    values (publish.principal, publish.idempotency_key, publish.content_hash, at_epoch)
    on conflict (principal, idempotency_key) do update
      set content_hash = excluded.content_hash, xid = excluded.xid, epoch = excluded.epoch, created_at = excluded.created_at
      where p.created_at < clock_timestamp() - kept;
    exit when found;
  end loop;
  for e in
    select u.* from unnest(topics, keys, operations, payloads, headers)
      with ordinality as u(topic, key, operation, payload, headers, at) order by u.at
  loop
    perform millrace.emit(e.topic, e.key, e.payload::json, e.headers::json, e.operation);
  end loop;
  -- Each request with a key takes a few old ones along, so that the table holds a day's worth and nothing need run at times.
  if publish.idempotency_key <> '' then
    delete from millrace.publication where ctid = any (array(
      select p.ctid from millrace.publication p where p.created_at < clock_timestamp() - kept
      order by p.created_at limit 16 for update skip locked));
  end if;
  xid := pg_current_xact_id();
  outcome := 'appended';
end $$;

insert into millrace.permission (capability, function) values ('server', 'same_xids_since');

revoke all on function millrace.is_unadopted(), millrace.restored_table(millrace.source), millrace.is_restored(oid, int),
  millrace.adopt_sources(), millrace.refuse_unadopted(),
  millrace.same_xids_since(uuid) from public;
