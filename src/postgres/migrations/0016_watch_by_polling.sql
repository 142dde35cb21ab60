-- millrace.poll and its end. Whoever may read a table whole may have it polled: what it tells, he could have read. The table's
-- owner is not asked, and nothing is put on the table.

-- Which role calls. A function with definer's rights cannot see who called it: session_user may have taken another role, or be
-- the victim of code of the caller's. But whoever makes a large object owns it. So the caller makes one and names it; a row
-- of the catalog that this snapshot sees although its writer is still in progress was written by this very transaction.
create function millrace.proven_caller(proof oid) returns oid
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  mine constant bigint := pg_current_xact_id()::text::bigint;
  shown record;
  xid bigint;
begin
  select l.lomowner, l.xmin::text::bigint as xmin into shown from pg_largeobject_metadata l where l.oid = proof;
  if found then
    xid := mine + ((shown.xmin - (mine & 4294967295)) + 6442450944) % 4294967296 - 2147483648;
    begin
      if xid >= 3 and pg_xact_status(xid::text::xid8) = 'in progress' then
        return shown.lomowner;
      end if;
    exception when invalid_parameter_value then
      null;
    end;
  end if;
  raise exception 'who calls was not proved' using errcode = '42501', hint = 'Call millrace.poll or millrace.unpoll.';
end $$;
comment on function millrace.proven_caller(oid) is 'The owner of a large object that this transaction has made. Raises for others.';

create function millrace.assert_reader(caller oid, target regclass) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  t pg_class;
begin
  select c.* into strict t from pg_class c where c.oid = target;
  if not has_schema_privilege(caller, t.relnamespace, 'USAGE') or not has_table_privilege(caller, target, 'SELECT') then
    raise exception 'role "%" may not read %', pg_get_userbyid(caller), target
      using errcode = '42501', hint = format('grant select on %s to %I', target, pg_get_userbyid(caller));
  end if;
  if t.relrowsecurity and not (select r.rolsuper or r.rolbypassrls from pg_roles r where r.oid = caller)
      and (t.relforcerowsecurity or not pg_has_role(caller, t.relowner, 'USAGE')) then
    raise exception 'row security hides rows of % from role "%"', target, pg_get_userbyid(caller)
      using errcode = '42501', hint = 'Have it polled by a role that sees all rows.';
  end if;
end $$;
comment on function millrace.assert_reader(oid, regclass) is 'Raises unless this role may read all of the table.';

create function millrace.assert_poll_keeper(caller oid, source int) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (
    select from millrace.poll p join millrace.source s on s.id = p.source_id
    where s.id = source and (pg_has_role(caller, (select n.nspowner from pg_namespace n where n.nspname = 'millrace'), 'MEMBER')
      or exists (select from pg_roles r where r.rolname = p.watcher and pg_has_role(caller, r.oid, 'MEMBER'))
      or exists (select from pg_class c where c.oid = s.relid and pg_has_role(caller, c.relowner, 'USAGE'))))
  then
    raise exception 'role "%" neither owns the table nor had it polled', pg_get_userbyid(caller)
      using errcode = '42501', hint = 'Do it as its owner, as the role that had it polled, or as the owner of Millrace''s schema.';
  end if;
end $$;
comment on function millrace.assert_poll_keeper(oid, int) is 'Raises unless this role may change or end the polling of a source.';

-- The watcher's part of a beginning: what is there is not told. `newest` and `early` say what the column holds, `known_*` which
-- row versions at or above the horizon are visible; whoever lies about them harms what he alone asked for.
create function millrace.register_poll(
  target regclass, column_name text, topic text, key_columns text[], include text[], exclude text[], deleted text,
  every interval, overlap interval, proof oid, horizon bigint, early text, newest text, known_xids bigint[], known_hashes bigint[]
) returns millrace.source
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s'
set timezone = 'UTC' set datestyle = 'ISO, YMD' as $$
#variable_conflict use_column
declare
  caller constant oid := millrace.proven_caller(proof);
  kind constant text := millrace.poll_type(target, register_poll.column_name, 'polling');
  drawn constant bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
  wanted millrace.source;
  before millrace.source;
  same boolean;
begin
  perform millrace.assert_pollable(target);
  perform millrace.assert_reader(caller, target);
  lock table millrace.source in share row exclusive mode;
  begin
    update millrace.registration set count = count + 1;
  exception when serialization_failure then
    raise exception 'another table was watched since this transaction began'
      using errcode = '40001', hint = 'Try again, in a transaction that begins now.';
  end;
  select * into before from millrace.source s where s.relid = target;
  if before.capture <> 'poll' then
    raise exception '% is watched by triggers', target
      using errcode = '22023', hint = 'They see more than polling does. Unwatch it first if they are to go.';
  elsif before.id is not null then
    perform millrace.assert_poll_keeper(caller, before.id);
  end if;
  select format('%I.%I', n.nspname, c.relname), millrace.topic_token(c.relname) into wanted.name, wanted.topic
  from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = target;
  wanted.topic := coalesce(register_poll.topic, wanted.topic);
  wanted.key_columns := coalesce(register_poll.key_columns, millrace.default_key(target));
  perform millrace.assert_key(target, wanted.key_columns);
  select p.topic_columns, p.topic_pattern into wanted.topic_columns, wanted.topic_pattern from millrace.parse_topic(wanted.topic) p;
  perform millrace.assert_columns(target, 'the topic', wanted.topic_columns);
  perform millrace.assert_alone(target, wanted.topic);
  perform millrace.assert_columns(target, 'the included columns', include);
  perform millrace.assert_columns(target, 'the excluded columns', exclude);
  if deleted is not null then
    perform millrace.poll_type(target, deleted, 'deletion');
  end if;
  if exclude && (wanted.key_columns || wanted.topic_columns) then
    raise exception 'a column of the key or the topic of % cannot be excluded', target
      using errcode = '22023', hint = 'Every event shows it: choose other key columns, or leave it in.';
  end if;
  wanted.excluded_columns := '{}';
  if include is not null then
    wanted.included_columns := array(select c from unnest(millrace.image_columns(target)) c
      where c = any (include || wanted.key_columns || wanted.topic_columns) and (exclude is null or c <> all (exclude)));
  else
    wanted.excluded_columns := array(select c from unnest(exclude) c union select a.attname from pg_attribute a
      where a.attrelid = target and a.attnum > 0 and not a.attisdropped and a.attgenerated = 'v');
  end if;
  insert into millrace.source as s (relid, name, topic, topic_columns, topic_pattern, key_columns, included_columns,
      excluded_columns, before_values, capture_truncate, capture)
  values (target, wanted.name, wanted.topic, wanted.topic_columns, wanted.topic_pattern, wanted.key_columns,
      wanted.included_columns, wanted.excluded_columns, false, false, 'poll')
  on conflict (relid) do update set name = excluded.name, topic = excluded.topic, topic_columns = excluded.topic_columns,
    topic_pattern = excluded.topic_pattern, key_columns = excluded.key_columns, included_columns = excluded.included_columns,
    excluded_columns = excluded.excluded_columns
  returning s.* into wanted;
  same := exists (select from millrace.poll p where p.source_id = wanted.id and p.column_name = register_poll.column_name
    and p.column_type = kind);
  insert into millrace.poll as p (source_id, column_name, column_type, deleted_column, every, overlap, watcher, epoch, horizon)
  values (wanted.id, register_poll.column_name, kind, deleted, register_poll.every, register_poll.overlap,
    pg_get_userbyid(caller), millrace.assert_epoch(), register_poll.horizon)
  on conflict (source_id) do update set column_name = excluded.column_name, column_type = excluded.column_type,
    deleted_column = excluded.deleted_column, every = excluded.every, overlap = excluded.overlap, next_at = clock_timestamp(),
    failures = 0, failing_since = null, failure = null, round_horizon = null;
  if same then
    return wanted;
  end if;
  -- Under another column what was not told yet is found from its marks on.
  delete from millrace.poll_mark m where m.source_id = wanted.id;
  update millrace.poll p set newest = case when register_poll.newest is not null
    then millrace.poll_later(kind, null, register_poll.newest) end where p.source_id = wanted.id;
  insert into millrace.poll_mark (source_id, at, next_xid, value)
  select wanted.id, clock_timestamp() - register_poll.overlap, 0, case kind when 'bigint' then early
    when 'timestamp with time zone' then (p.newest::timestamptz - register_poll.overlap)::text
    else (p.newest::timestamp - register_poll.overlap)::text end
  from millrace.poll p where p.source_id = wanted.id
  union all
  select wanted.id, clock_timestamp() + interval '1 microsecond', drawn, p.newest from millrace.poll p where p.source_id = wanted.id;
  if before.id is null then
    insert into millrace.poll_told (source_id, xid, key_hash)
    select distinct wanted.id, u.xid, u.hash from unnest(known_xids, known_hashes) u(xid, hash);
  end if;
  return wanted;
end $$;
comment on function millrace.register_poll(regclass, text, text, text[], text[], text[], text, interval, interval, oid, bigint, text, text, bigint[], bigint[]) is
  'Makes a table a polled source. Part of millrace.poll.';

create function millrace.poll(
  target regclass, "column" text, topic text default null, key_columns text[] default null, include text[] default null,
  exclude text[] default null, deleted text default null, every interval default '1 second', overlap interval default '1 minute'
) returns millrace.source
language plpgsql volatile set search_path = pg_catalog, pg_temp set row_security = off
set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set bytea_output = 'hex'
set extra_float_digits = 1 set lc_monetary = 'C' set quote_all_identifiers = off set standard_conforming_strings = on as $$
declare
  -- As many rows below the newest are looked at from the beginning: of transactions that have drawn a number and not committed.
  near constant int := 10000;
  kind text;
  keys text[];
  proof oid;
  horizon bigint;
  early text;
  newest text;
  known_xids bigint[];
  known_hashes bigint[];
  wanted millrace.source;
begin
  if target is null or "column" is null then
    raise exception 'millrace.poll needs a table and a column'
      using errcode = '22004', hint = 'For example: select millrace.poll(''public.orders'', ''updated_at'').';
  end if;
  perform millrace.assert_pollable(target);
  kind := millrace.poll_type(target, "column", 'polling');
  keys := coalesce(key_columns, millrace.default_key(target));
  perform millrace.assert_key(target, keys);
  if deleted is not null then
    perform millrace.poll_type(target, deleted, 'deletion');
  end if;
  perform millrace.lock_polled(target);
  proof := lo_create(0);
  horizon := pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
  execute format('select format(''%%s'', max(v.value)), format(''%%s'', min(v.value)) from (%s order by t.%I desc limit %s) v',
    millrace.poll_candidates(target, "column", kind, deleted, keys, null, 0), "column", near) into newest, early;
  newest := nullif(newest, '');
  early := case when newest is null or kind <> 'bigint' then null else early end;
  execute format('select array_agg(v.xid), array_agg(hashtextextended(v.keys::text, 0)) from (%s) v where v.xid >= %s',
    millrace.poll_candidates(target, "column", kind, deleted, keys, case when kind = 'bigint' then early
        when kind = 'timestamp with time zone' then (newest::timestamptz - overlap)::text else (newest::timestamp - overlap)::text end,
      pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1048576), horizon) into known_xids, known_hashes;
  wanted := millrace.register_poll(target, "column", topic, key_columns, include, exclude, deleted,
    coalesce(every, interval '1 second'), coalesce(overlap, interval '1 minute'),
    proof, horizon, early, newest, known_xids, known_hashes);
  perform lo_unlink(proof);
  perform millrace.warn_of_polling(target, "column");
  return wanted;
end $$;
comment on function millrace.poll(regclass, text, text, text[], text[], text[], text, interval, interval) is
  'Has a server look at a table from time to time and make an event of each row that has changed: for tables that may have no '
  'triggers. For whoever may read the table; again with other arguments to change them. column: rises with every change. deleted: '
  'a column that says that a row is deleted. every: time between looks. overlap: how long before its commit a '
  'transaction may draw its value. The rest as in millrace.watch. Deleted rows, and what the column does not show, go unseen.';

create function millrace.warn_of_polling(target regclass, column_name text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (
    select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = target and a.attname = column_name and i.indisvalid and i.indpred is null
      and (select m.amname from pg_class x join pg_am m on m.oid = x.relam where x.oid = i.indexrelid) = 'btree')
  then
    raise warning 'no index of % begins with %: each look reads the whole table', target, quote_ident(column_name)
      using hint = format('create index on %s (%I)', target, column_name);
  end if;
  if exists (select from pg_attribute a where a.attrelid = target and a.attname = column_name and not a.attnotnull) then
    raise warning 'column % of % may be null: rows in which it is go unseen', quote_ident(column_name), target
      using hint = 'Make it NOT NULL with a default.';
  end if;
end $$;
comment on function millrace.warn_of_polling(regclass, text) is 'Warns of what makes polling slow or blind. Part of millrace.poll.';

create function millrace.release_poll(target oid, proof oid) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
declare
  polled int;
begin
  select s.id into polled from millrace.source s where s.relid = target and s.capture = 'poll';
  if not found then
    return false;
  end if;
  perform millrace.assert_poll_keeper(millrace.proven_caller(proof), polled);
  delete from millrace.source s where s.id = polled;
  return true;
end $$;
comment on function millrace.release_poll(oid, oid) is 'Forgets a polled source. Part of millrace.unpoll.';

create function millrace.unpoll(target regclass) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  proof constant oid := lo_create(0);
  released constant boolean := millrace.release_poll(target, proof);
begin
  perform lo_unlink(proof);
  return released;
end $$;
comment on function millrace.unpoll(regclass) is
  'Ends the polling of a table: for whoever asked for it, the table''s owner and Millrace''s. False when it was not polled.';

create function millrace.polling(source int) returns json
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select json_build_object('column', p.column_name, 'deletedColumn', p.deleted_column,
    'everyMs', round(extract(epoch from p.every) * 1000), 'overlapMs', round(extract(epoch from p.overlap) * 1000),
    'sinceLookMs', round(extract(epoch from clock_timestamp() - p.polled_at) * 1000),
    'failingMs', round(extract(epoch from clock_timestamp() - p.failing_since) * 1000), 'failure', p.failure)
  from millrace.poll p join millrace.source s on s.id = p.source_id and s.capture = 'poll' where p.source_id = source
$$;
comment on function millrace.polling(int) is 'How a source is polled and how that goes; null when it is not.';

insert into millrace.permission (capability, function)
select 'watcher', unnest('{poll,unpoll,register_poll,release_poll,assert_pollable,poll_type,poll_candidates,lock_polled,'
  'lock_holders,default_key,assert_key,key_candidates,assert_columns,image_columns,warn_of_polling,polling}'::name[])
union all select 'server', 'polling'
on conflict do nothing;

revoke all on function millrace.proven_caller(oid), millrace.assert_reader(oid, regclass), millrace.assert_poll_keeper(oid, int),
  millrace.register_poll(regclass, text, text, text[], text[], text[], text, interval, interval, oid, bigint, text, text, bigint[], bigint[]),
  millrace.poll(regclass, text, text, text[], text[], text[], text, interval, interval), millrace.warn_of_polling(regclass, text),
  millrace.release_poll(oid, oid), millrace.unpoll(regclass), millrace.polling(int) from public;
