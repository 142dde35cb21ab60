-- Watching and unwatching. The statements that need the table's owner (triggers) run with the caller's rights; those that
-- need Millrace's owner (source, trigger function) are functions of their own, which believe nothing that they are told:
-- they want to see, in the catalog, that this very transaction has just set the table's triggers to ENABLE ALWAYS, which
-- nobody but the table's owner can do.

-- Triggers of one table fire in the byte order of their names: ! is the first printable character but for the space. First,
-- because a trigger that changes the row again would otherwise be told of before the change that it answers.

create function millrace.assert_watchable(target regclass) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  t pg_class;
  kind text;
begin
  select c.* into t from pg_class c where c.oid = target;
  if not found then
    raise exception 'there is no table with oid %', target::oid
      using errcode = '42P01', hint = 'Name a table that exists.';
  end if;
  kind := case
    when t.oid < 16384 or t.relnamespace::regnamespace::text in ('pg_catalog', 'information_schema', 'pg_toast') then 'a system catalog'
    when t.relnamespace = to_regnamespace('millrace') then 'one of Millrace''s own'
    when t.relkind = 'v' then 'a view'
    when t.relkind = 'm' then 'a materialized view'
    when t.relkind = 'f' then 'a foreign table'
    when t.relkind = 'S' then 'a sequence'
    when t.relkind not in ('r', 'p') then 'not a table'
    when t.relpersistence = 't' then 'a temporary table'
    when t.relpersistence = 'u' then 'an unlogged table'
    when exists (select from pg_trigger g where g.tgrelid = t.oid and g.tgname = '!millrace_row' and g.tgparentid <> 0)
      then 'a partition of a watched table'
    when exists (select from pg_partition_tree(t.oid) p join pg_class c on c.oid = p.relid
                 where c.relkind = 'f' or c.relpersistence <> 'p')
      then 'a table with a foreign or unlogged partition'
  end;
  if kind is not null then
    raise exception '% is %: it cannot be watched', target, kind
      using errcode = '42809', hint = 'Watch an ordinary or partitioned table: changes are seen where rows are written and logged.';
  end if;
  if not pg_has_role(t.relowner, 'USAGE') then
    raise exception 'role "%" does not own %', current_user, target
      using errcode = '42501', hint = format('Watch it as its owner, %I, or as a superuser.', pg_get_userbyid(t.relowner));
  end if;
end $$;
comment on function millrace.assert_watchable(regclass) is 'Raises, with what to do, for a table that the caller cannot watch.';

create function millrace.lock_holders(target regclass, conflicting text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce(string_agg(distinct coalesce('pid ' || l.pid, 'a prepared transaction'), ', '), 'nobody any more')
  from pg_locks l
  where l.granted and l.pid is distinct from pg_backend_pid() and l.locktype = 'relation' and l.mode = any (conflicting)
    and l.database = (select d.oid from pg_database d where d.datname = current_database())
    and (l.relation = target or l.relation in (select t.relid from pg_partition_tree(target) t))
$$;
comment on function millrace.lock_holders(regclass, text[]) is 'Who holds a lock on the table in one of these modes, as words.';

-- Writers queue behind whoever waits for this lock, so it waits for one second at most.
create function millrace.lock_table(target regclass, mode text) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
declare
  writing constant text[] := '{RowExclusiveLock,ShareUpdateExclusiveLock,ShareLock,ShareRowExclusiveLock,ExclusiveLock,AccessExclusiveLock}';
begin
  execute format('lock table %s in %s mode', target, mode);
exception when lock_not_available then
  raise exception 'could not lock % within 1 s: % in the way', target, millrace.lock_holders(target,
      case when mode = 'access exclusive' then '{AccessShareLock,RowShareLock}'::text[] || writing else writing end)
    using errcode = '55P03', hint = 'Wait for that transaction or end it, then try again.';
end $$;
comment on function millrace.lock_table(regclass, text) is 'Locks a table, waiting for at most 1 s, and says who was in the way.';

-- Leaves the triggers in place, ENABLE ALWAYS, and touched by this transaction.
create function millrace.install_triggers(target regclass, capture_truncate boolean) returns void
language plpgsql set search_path = pg_catalog, pg_temp set client_min_messages = warning as $$
declare
  wanted record;
  found_type smallint;
  leaf regclass;
begin
  for wanted in
    select * from (values
      ('!millrace_row', 29::smallint, 'insert or update or delete', 'row', true),
      ('!millrace_truncate', 32::smallint, 'truncate', 'statement', capture_truncate)) w(name, type, events, level, present)
  loop
    select t.tgtype into found_type from pg_trigger t
    where t.tgrelid = target and t.tgname = wanted.name
      and t.tgfoid = to_regproc('millrace.capture_' || target::oid) and t.tgqual is null and t.tgnargs = 0 and t.tgattr = '';
    if not wanted.present or found_type is distinct from wanted.type then
      if exists (select from pg_trigger t where t.tgrelid = target and t.tgname = wanted.name) then
        perform millrace.lock_table(target, 'access exclusive');
        execute format('drop trigger %I on %s', wanted.name, target);
      end if;
      if wanted.present then
        execute format('create trigger %I after %s on %s for each %s execute function millrace.%I()',
          wanted.name, wanted.events, target, wanted.level, 'capture_' || target::oid);
      end if;
    end if;
    if wanted.present then
      execute format('alter table %s disable trigger %I', target, wanted.name);
      execute format('alter table %s enable always trigger %I', target, wanted.name);
    end if;
  end loop;
  -- Whether that reaches the partitions depends on the version.
  for leaf in
    select p.relid from pg_partition_tree(target) p join pg_trigger t on t.tgrelid = p.relid and t.tgname = '!millrace_row'
    where p.relid <> target and t.tgenabled <> 'A'
  loop
    execute format('alter table %s enable always trigger "!millrace_row"', leaf);
  end loop;
end $$;
comment on function millrace.install_triggers(regclass, boolean) is 'Puts the capture triggers on a table. Part of millrace.watch.';

create function millrace.prepare_source(target regclass) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  watcher name;
begin
  if to_regproc('millrace.capture_' || target::oid) is not null then
    return;
  end if;
  if not exists (select from pg_class c where c.oid = target and c.oid >= 16384 and c.relkind in ('r', 'p')) then
    raise exception '% is not a table', target using errcode = '42809', hint = 'Call millrace.watch instead.';
  end if;
  -- Does nothing until register_source has seen the triggers.
  execute format('create function millrace.capture_%s() returns trigger language plpgsql as ''begin return null; end''', target::oid);
  execute format('revoke all on function millrace.capture_%s() from public', target::oid);
  for watcher in select a.role from millrace.access a join pg_roles r on r.rolname = a.role where a.capability = 'watcher' loop
    execute format('grant execute on function millrace.capture_%s() to %I', target::oid, watcher);
  end loop;
end $$;
comment on function millrace.prepare_source(regclass) is 'Makes the empty trigger function of a table. Part of millrace.watch.';

-- A row of pg_trigger that this snapshot sees although its writer is still in progress was written by this transaction. A
-- subtransaction's id differs from the transaction's, hence not simply: is it mine.
create function millrace.assert_owned(target regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  mine constant bigint := pg_current_xact_id()::text::bigint;
  distance bigint;
  touched boolean := false;
begin
  select ((t.xmin::text::bigint - (mine & 4294967295)) + 6442450944) % 4294967296 - 2147483648 into distance
  from pg_trigger t
  where t.tgrelid = target and t.tgname = '!millrace_row' and t.tgenabled = 'A' and t.tgtype = 29
    and t.tgfoid = to_regproc('millrace.capture_' || target::oid) and t.tgqual is null and t.tgnargs = 0 and t.tgattr = '';
  if found and mine + distance >= 3 then
    begin
      touched := pg_xact_status((mine + distance)::text::xid8) = 'in progress';
    exception when invalid_parameter_value then
      touched := false;
    end;
  end if;
  if touched is not true then
    raise exception 'the capture triggers of % were not put there by its owner in this transaction', target
      using errcode = '42501', hint = 'Call millrace.watch or millrace.unwatch as the table''s owner.';
  end if;
end $$;
comment on function millrace.assert_owned(regclass) is 'Raises unless the table''s owner has touched its capture triggers in this transaction.';

-- Columns by name, as an image shows them. A virtual generated column (Postgres 18) is computed when it is read and has no
-- value in a trigger: it is in no image.
create function millrace.image_columns(target regclass) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce(array_agg(a.attname::text order by a.attnum), '{}') from pg_attribute a
  where a.attrelid = target and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'
$$;
comment on function millrace.image_columns(regclass) is 'The columns of a table that an image can show, in their order.';

create function millrace.default_key(target regclass) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
  select array_agg(a.attname::text order by k.place)
  from pg_index i, unnest(i.indkey::int2[]) with ordinality k(attnum, place), pg_attribute a
  where i.indrelid = target and i.indisprimary and k.place <= i.indnkeyatts
    and a.attrelid = target and a.attnum = k.attnum
$$;
comment on function millrace.default_key(regclass) is 'The primary key''s columns; null when there is none.';

create function millrace.assert_columns(target regclass, purpose text, columns text[]) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  wrong text;
begin
  select string_agg(quote_ident(c), ', ') into wrong
  from unnest(columns) c where c is null or c <> all (millrace.image_columns(target));
  if wrong is not null or array_position(columns, null) is not null then
    raise exception '% has no column % for %', target, coalesce(wrong, 'null'), purpose
      using errcode = '42703', hint = format('Its columns are %s.', array_to_string(millrace.image_columns(target), ', '));
  end if;
end $$;
comment on function millrace.assert_columns(regclass, text, text[]) is 'Raises unless these are columns of the table.';

create function millrace.assert_key(target regclass, key_columns text[]) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  nullable text;
begin
  if coalesce(cardinality(key_columns), 0) = 0 then
    raise exception '% has no primary key', target
      using errcode = '22023', hint = 'Name columns that tell its rows apart: millrace.watch(..., key_columns => ''{a,b}'').';
  end if;
  perform millrace.assert_columns(target, 'the key', key_columns);
  select string_agg(quote_ident(a.attname), ', ') into nullable from pg_attribute a
  where a.attrelid = target and a.attname = any (key_columns) and not a.attnotnull;
  if nullable is not null then
    raise exception 'key column % of % may be null', nullable, target
      using errcode = '22004', hint = 'Make it NOT NULL, or name other key columns: a row without a key cannot be followed.';
  end if;
end $$;
comment on function millrace.assert_key(regclass, text[]) is 'Raises unless these columns can be the key of events.';

-- The topic's columns and pattern; raises when it is neither a topic nor a template.
create function millrace.parse_topic(topic text, out topic_columns text[], out topic_pattern text)
language plpgsql immutable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
  example constant text := regexp_replace(topic, '[{][^{}]+[}]', '%empty', 'g');
begin
  if example collate "C" !~ '^[A-Za-z0-9_%-]+([.][A-Za-z0-9_%-]+)*$' or octet_length(example) > 255 then
    raise exception 'topic % is neither a topic nor a template', quote_literal(left(topic, 300))
      using errcode = '22023', hint = 'For example orders, shop.orders or orders.{region}: tokens of A-Z a-z 0-9 _ % - with '
        'dots between, at most 255 bytes.';
  end if;
  select coalesce(array_agg(m[1]), '{}') into topic_columns from regexp_matches(topic, '[{]([^{}]+)[}]', 'g') m;
  if cardinality(topic_columns) > 0 then
    topic_pattern := '^' || regexp_replace(replace(topic, '.', '[.]'), '[{][^{}]+[}]', '[A-Za-z0-9_%-]+', 'g') || '$';
  end if;
end $$;
comment on function millrace.parse_topic(text) is 'Columns of a topic template and the pattern of the topics that it yields.';

-- Two templates can yield the same topic if they do so token by token; tokens with columns are compared by the text before
-- the first column and after the last. May say yes where the answer is no, never the other way round.
create function millrace.topics_meet(a text, b text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp as $$
  with tokens as (
    select string_to_array(regexp_replace(a, '[{][^{}]+[}]', '*', 'g'), '.') as x,
           string_to_array(regexp_replace(b, '[{][^{}]+[}]', '*', 'g'), '.') as y
  ), pairs as (
    select split_part(p.x, '*', 1) as x_head, reverse(split_part(reverse(p.x), '*', 1)) as x_tail, strpos(p.x, '*') > 0 as x_open,
           split_part(p.y, '*', 1) as y_head, reverse(split_part(reverse(p.y), '*', 1)) as y_tail, strpos(p.y, '*') > 0 as y_open
    from tokens t, unnest(t.x, t.y) p(x, y) where cardinality(t.x) = cardinality(t.y)
  )
  select count(*) > 0 and bool_and(case
    when not x_open and not y_open then x_head = y_head
    when not x_open then starts_with(x_head, y_head) and right(x_head, length(y_tail)) = y_tail
    when not y_open then starts_with(y_head, x_head) and right(y_head, length(x_tail)) = x_tail
    else (starts_with(x_head, y_head) or starts_with(y_head, x_head))
      and (right(x_tail, length(y_tail)) = y_tail or right(y_tail, length(x_tail)) = x_tail)
  end) from pairs
$$;
comment on function millrace.topics_meet(text, text) is 'Whether two topics or templates might yield the same topic.';

-- One topic, one source: else an owner of any table could write, through it, what looks like another's events. Serialized
-- by a lock on the sources: each registration sees those before it.
create function millrace.assert_alone(target regclass, topic text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  other text;
begin
  select s.name into other from millrace.source s
  where s.relid <> target and millrace.topics_meet(s.topic, assert_alone.topic) limit 1;
  if other is not null then
    raise exception 'topic % belongs to the watched table %', quote_literal(topic), other
      using errcode = '23505', hint = 'Give this table a topic of its own: millrace.watch(..., topic => ''...'').';
  end if;
  select s.name into other from millrace.source s
  where s.relid <> target
    and (s.relid in (select a.relid from pg_partition_ancestors(target) a) or s.relid in (select t.relid from pg_partition_tree(target) t))
  limit 1;
  if other is not null then
    raise exception '% and the watched table % are partitions of one another', target, other
      using errcode = '23505', hint = format('Unwatch %s first: every change would be told twice.', other);
  end if;
end $$;
comment on function millrace.assert_alone(regclass, text) is 'Raises when another source has the topic, or the rows.';

-- One row, changed by each registration. A transaction whose snapshot is older than another's registration, and so would not
-- see that its topic is taken, cannot change the row, and fails.
create table millrace.registration (count bigint not null);
insert into millrace.registration values (0);
comment on table millrace.registration is 'How often tables were watched. Part of millrace.watch.';

create function millrace.register_source(
  target regclass, topic text, key_columns text[], include text[], exclude text[], before_values boolean, capture_truncate boolean
) returns millrace.source
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
#variable_conflict use_column
declare
  asked record;
  wanted millrace.source;
begin
  perform millrace.assert_owned(target);
  lock table millrace.source in share row exclusive mode;
  begin
    update millrace.registration set count = count + 1;
  exception when serialization_failure then
    raise exception 'another table was watched since this transaction began'
      using errcode = '40001', hint = 'Try again, in a transaction that begins now.';
  end;
  select format('%s.%s', quote_ident(n.nspname), quote_ident(c.relname)) as name, c.relname into asked
  from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = target;
  wanted.relid := target;
  wanted.name := asked.name;
  wanted.topic := coalesce(register_source.topic, millrace.topic_token(asked.relname));
  wanted.key_columns := coalesce(register_source.key_columns, millrace.default_key(target));
  perform millrace.assert_key(target, wanted.key_columns);
  select p.topic_columns, p.topic_pattern into wanted.topic_columns, wanted.topic_pattern from millrace.parse_topic(wanted.topic) p;
  perform millrace.assert_columns(target, 'the topic', wanted.topic_columns);
  perform millrace.assert_alone(target, wanted.topic);
  perform millrace.assert_columns(target, 'the included columns', include);
  perform millrace.assert_columns(target, 'the excluded columns', exclude);
  if exclude && (wanted.key_columns || wanted.topic_columns) then
    raise exception 'a column of the key or the topic of % cannot be excluded', target
      using errcode = '22023', hint = 'Every event shows it: choose other key columns, or leave it in.';
  end if;
  if include is not null then
    wanted.included_columns := array(select c from unnest(millrace.image_columns(target)) c
      where c = any (include || wanted.key_columns || wanted.topic_columns) and (exclude is null or c <> all (exclude)));
    wanted.excluded_columns := '{}';
  else
    wanted.excluded_columns := array(select c from unnest(exclude) c union select a.attname from pg_attribute a
      where a.attrelid = target and a.attnum > 0 and not a.attisdropped and a.attgenerated = 'v');
  end if;
  insert into millrace.source as s (relid, name, topic, topic_columns, topic_pattern, key_columns, included_columns,
      excluded_columns, before_values, capture_truncate)
  values (wanted.relid, wanted.name, wanted.topic, wanted.topic_columns, wanted.topic_pattern, wanted.key_columns,
      wanted.included_columns, wanted.excluded_columns, coalesce(register_source.before_values, true),
      coalesce(register_source.capture_truncate, true))
  on conflict (relid) do update set name = excluded.name, topic = excluded.topic, topic_columns = excluded.topic_columns,
    topic_pattern = excluded.topic_pattern, key_columns = excluded.key_columns, included_columns = excluded.included_columns,
    excluded_columns = excluded.excluded_columns, before_values = excluded.before_values, capture_truncate = excluded.capture_truncate
  returning s.* into wanted;
  execute format($code$create or replace function millrace.%I() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set bytea_output = 'hex'
    set extra_float_digits = 1 set lc_monetary = 'C' set quote_all_identifiers = off set standard_conforming_strings = on
    as %L$code$, 'capture_' || target::oid, millrace.capture_body(wanted));
  execute format('comment on function millrace.%I() is %L', 'capture_' || target::oid,
    'Captures ' || wanted.name || '. Written by millrace.watch.');
  return wanted;
end $$;
comment on function millrace.register_source(regclass, text, text[], text[], text[], boolean, boolean) is
  'Makes a table with its owner''s capture triggers a source. Part of millrace.watch.';

create function millrace.watch(
  target regclass, topic text default null, key_columns text[] default null, include text[] default null,
  exclude text[] default null, before_values boolean default true, capture_truncate boolean default true
) returns millrace.source
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
declare
  earlier text;
begin
  if target is null then
    raise exception 'millrace.watch needs a table'
      using errcode = '22004', hint = 'For example: select millrace.watch(''public.orders'').';
  end if;
  perform millrace.assert_watchable(target);
  perform millrace.lock_table(target, 'share row exclusive');
  perform millrace.prepare_source(target);
  perform millrace.install_triggers(target, coalesce(capture_truncate, true));
  select string_agg(quote_ident(t.tgname), ', ') into earlier from pg_trigger t
  where t.tgrelid = target and not t.tgisinternal and t.tgtype & 67 = 1 and t.tgname < '!millrace_row';
  if earlier is not null then
    raise warning 'trigger % of % fires before capture: what it changes is told before the change that it answers', earlier, target
      using hint = 'Give it a name that sorts after !millrace_row.';
  end if;
  return millrace.register_source(target, topic, key_columns, include, exclude, before_values, capture_truncate);
end $$;
comment on function millrace.watch(regclass, text, text[], text[], text[], boolean, boolean) is
  'Makes every committed change of a table an event. For the table''s owner; again with other arguments to change them. '
  'topic: a name (default: the table''s) or a template over columns such as orders.{region}. key_columns: default the '
  'primary key. include: the only columns in images (key and topic columns always are); exclude: columns that stay out. '
  'before_values: whether UPDATE and DELETE carry the old row. capture_truncate: whether TRUNCATE is an event. Waits for '
  'writers of the table for at most 1 s.';

-- Called twice: with the triggers in place, which proves the owner, and when they are gone.
create function millrace.release_source(target oid) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
declare
  released boolean;
begin
  if exists (select from millrace.source s where s.relid = target)
      and exists (select from pg_class c where c.oid = target) then
    perform millrace.assert_owned(target);
  end if;
  delete from millrace.source s where s.relid = target;
  released := found;
  if to_regproc('millrace.capture_' || target) is not null
      and not exists (select from pg_trigger t where t.tgfoid = to_regproc('millrace.capture_' || target)) then
    execute format('drop function millrace.%I()', 'capture_' || target);
  end if;
  return released;
end $$;
comment on function millrace.release_source(oid) is 'Forgets a source. Part of millrace.unwatch.';

create function millrace.unwatch(target regclass) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
declare
  released boolean;
begin
  if exists (select from pg_class c where c.oid = target) then
    perform millrace.assert_watchable(target);
    if to_regproc('millrace.capture_' || target::oid) is null then
      return false;
    end if;
    perform millrace.lock_table(target, 'access exclusive');
    perform millrace.install_triggers(target, true);
    released := millrace.release_source(target);
    execute format('drop trigger "!millrace_row" on %s', target);
    execute format('drop trigger "!millrace_truncate" on %s', target);
    perform millrace.release_source(target);
    return released;
  end if;
  return millrace.release_source(target);
end $$;
comment on function millrace.unwatch(regclass) is
  'Ends the capture of a table, for its owner; also of one that is gone, by its oid. False when it was not watched. Events '
  'that are written stay. Waits for readers and writers of the table for at most 1 s.';

do $$
declare
  f regprocedure;
begin
  for f in
    select p.oid from pg_proc p
    where p.pronamespace = to_regnamespace('millrace') and p.proname in ('assert_watchable', 'lock_holders', 'lock_table',
      'install_triggers', 'prepare_source', 'assert_owned', 'image_columns', 'default_key', 'assert_columns', 'assert_key',
      'parse_topic', 'topics_meet', 'assert_alone', 'register_source', 'watch', 'release_source', 'unwatch')
  loop
    execute format('revoke all on function %s from public', f);
  end loop;
end $$;
