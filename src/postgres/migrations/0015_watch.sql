-- Watching: capture in the order of the changes where other people's triggers would break it, keys of tables without a
-- primary key, TRUNCATE of partitions, and what was set stays set.

create or replace function millrace.assert_watchable(target regclass) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  t pg_class;
  kind text;
  root text;
  partition regclass;
begin
  select c.* into t from pg_class c where c.oid = target;
  if not found then
    raise exception 'there is no table with oid %', target::oid
      using errcode = '42P01', hint = 'Name a table that exists.';
  end if;
  select format('%I.%I', n.nspname, c.relname) into root
  from pg_trigger g, pg_partition_ancestors(target) a join pg_class c on c.oid = a.relid
    join pg_namespace n on n.oid = c.relnamespace
  where g.tgrelid = target and g.tgname = '!millrace_row' and g.tgparentid <> 0
    and g.tgfoid = to_regproc('millrace.capture_' || a.relid::oid);
  select p.relid into partition
  from pg_partition_tree(target) p join pg_trigger g on g.tgrelid = p.relid
  where p.relid <> target and g.tgname = '!millrace_row' and g.tgparentid = 0
    and g.tgfoid = to_regproc('millrace.capture_' || p.relid::oid)
  order by p.level, p.relid limit 1;
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
    when root is not null then 'a partition of a watched table'
    when exists (select from pg_partition_tree(t.oid) p join pg_class c on c.oid = p.relid
                 where c.relkind = 'f' or c.relpersistence <> 'p')
      then 'a table with a foreign or unlogged partition'
    when partition is not null then 'a table with a partition that is watched'
  end;
  if kind is not null then
    raise exception '% is %: it cannot be watched', target, kind
      using errcode = '42809', hint = case
        when root is not null then format('Its changes are told already, as those of %s: subscribe to the topic of that.', root)
        when partition is not null and kind like '% that is watched'
          then format('Unwatch %s first: its changes are then told as those of %s.', partition, target)
        else 'Watch an ordinary or partitioned table: changes are seen where rows are written and logged.'
      end;
  end if;
  if not pg_has_role(t.relowner, 'USAGE') then
    raise exception 'role "%" does not own %', current_user, target
      using errcode = '42501', hint = format('Watch it as its owner, %I, or as a superuser.', pg_get_userbyid(t.relowner));
  end if;
  select c.* into t from pg_partition_tree(target) p join pg_class c on c.oid = p.relid
  where not pg_has_role(c.relowner, 'USAGE') order by p.level, c.relname limit 1;
  if found then
    raise exception 'role "%" does not own %, a partition of %', current_user, t.oid::regclass, target
      using errcode = '42501', hint = format('Watch it as a role that owns all of its partitions, or run "alter table %s owner to %I".',
        t.oid::regclass, (select pg_get_userbyid(c.relowner) from pg_class c where c.oid = target));
  end if;
end $$;

-- A primary key, or what REPLICA IDENTITY USING INDEX names: unique, at once, for every row, and never null.
create or replace function millrace.default_key(target regclass) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
  select array_agg(a.attname::text order by k.place)
  from (select * from pg_index i where i.indrelid = target and (i.indisprimary or i.indisreplident)
        order by i.indisprimary desc limit 1) i,
    unnest(i.indkey::int2[]) with ordinality k(attnum, place), pg_attribute a
  where k.place <= i.indnkeyatts and a.attrelid = target and a.attnum = k.attnum
$$;
comment on function millrace.default_key(regclass) is
  'The primary key''s columns, else those of the index that is the replica identity; null when there is neither.';

create function millrace.key_candidates(target regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select string_agg(format('key_columns => %L', i.columns::text), ' or ' order by cardinality(i.columns), i.columns)
  from (select array_agg(a.attname::text order by k.place) as columns, bool_and(coalesce(a.attnotnull, false)) as never_null
        from pg_index x cross join unnest(x.indkey::int2[]) with ordinality k(attnum, place)
          left join pg_attribute a on a.attrelid = target and a.attnum = k.attnum and a.attnum > 0
        where x.indrelid = target and x.indisunique and x.indimmediate and x.indisvalid and x.indpred is null
          and k.place <= x.indnkeyatts
        group by x.indexrelid) i
  where i.never_null
$$;
comment on function millrace.key_candidates(regclass) is 'Unique columns that are never null, as arguments of watch. Part of assert_key.';

create or replace function millrace.assert_key(target regclass, key_columns text[]) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  nullable text;
begin
  if coalesce(cardinality(key_columns), 0) = 0 then
    raise exception '% has no primary key', target
      using errcode = '22023', hint = coalesce(
        'Unique and never null are: millrace.watch(..., ' || millrace.key_candidates(target) || ').',
        'Name columns that tell its rows apart: millrace.watch(..., key_columns => ''{a,b}''). REPLICA IDENTITY FULL is no '
        'key: two rows that are the same in all columns could not be told apart.');
  end if;
  perform millrace.assert_columns(target, 'the key', key_columns);
  select string_agg(quote_ident(a.attname), ', ') into nullable from pg_attribute a
  where a.attrelid = target and a.attname = any (key_columns) and not a.attnotnull;
  if nullable is not null then
    raise exception 'key column % of % may be null', nullable, target
      using errcode = '22004', hint = 'Make it NOT NULL, or name other key columns: a row without a key cannot be followed.';
  end if;
end $$;

drop function millrace.watch(regclass, text, text[], text[], text[], boolean, boolean);
drop function millrace.register_source(regclass, text, text[], text[], text[], boolean, boolean);
drop function millrace.install_triggers(regclass, boolean);

-- Leaves the triggers in place, ENABLE ALWAYS, and touched by this transaction. TRUNCATE of a partition fires no trigger of
-- its parent's, so each partition has one of its own.
create function millrace.install_triggers(target regclass, capture_truncate boolean, in_order boolean) returns void
language plpgsql set search_path = pg_catalog, pg_temp set client_min_messages = warning as $$
declare
  wanted record;
  present pg_trigger;
  leaf record;
begin
  for wanted in
    select t.relid::regclass as relation, w.*
    from (select target::oid as relid, 0 as level union select p.relid, p.level from pg_partition_tree(target) p) t,
      (values ('!millrace_row', 29, 'insert or update or delete', 'row', true),
              ('!millrace_truncate', 32, 'truncate', 'statement', capture_truncate)) w(name, type, events, each, present)
    where t.level = 0 or w.each = 'statement'
    order by t.level, t.relid, w.type
  loop
    select t.* into present from pg_trigger t where t.tgrelid = wanted.relation and t.tgname = wanted.name;
    if present.oid is not null and (not wanted.present
        or present.tgtype <> wanted.type or present.tgfoid <> to_regproc('millrace.capture_' || target::oid)
        or present.tgqual is not null or present.tgnargs <> 0 or present.tgattr <> ''
        or present.tginitdeferred <> (in_order and wanted.each = 'row')) then
      perform millrace.lock_table(target, 'access exclusive');
      execute format('drop trigger %I on %s', wanted.name, wanted.relation);
      present := null;
    end if;
    continue when not wanted.present;
    if present.oid is null then
      execute format('create %s trigger %I after %s on %s %s for each %s execute function millrace.%I()',
        case when in_order and wanted.each = 'row' then 'constraint' else '' end, wanted.name, wanted.events, wanted.relation,
        case when in_order and wanted.each = 'row' then 'deferrable initially deferred' else '' end, wanted.each,
        'capture_' || target::oid);
    end if;
    if wanted.relation = target or present.tgenabled is distinct from 'A' then
      execute format('alter table %s disable trigger %I', wanted.relation, wanted.name);
      execute format('alter table %s enable always trigger %I', wanted.relation, wanted.name);
    end if;
  end loop;
  -- Whether that reaches the partitions depends on the version.
  for leaf in
    select p.relid::regclass as relation
    from pg_partition_tree(target) p join pg_trigger t on t.tgrelid = p.relid and t.tgname = '!millrace_row'
    where p.relid <> target and t.tgenabled <> 'A'
  loop
    execute format('alter table %s enable always trigger "!millrace_row"', leaf.relation);
  end loop;
end $$;
comment on function millrace.install_triggers(regclass, boolean, boolean) is 'Puts the capture triggers on a table. Part of millrace.watch.';

-- What was set when the table was watched before and still makes sense stays, unless it is given anew.
create function millrace.register_source(
  target regclass, topic text, key_columns text[], include text[], exclude text[], before_values boolean,
  capture_truncate boolean, capture text, reset boolean
) returns millrace.source
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
#variable_conflict use_column
declare
  asked record;
  earlier millrace.source;
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
  if not coalesce(register_source.reset, false) then
    select * into earlier from millrace.source s where s.relid = target;
  end if;
  if include is null and earlier.included_columns is not null then
    include := array(select c from unnest(earlier.included_columns) c where c = any (millrace.image_columns(target)));
  end if;
  exclude := coalesce(exclude, array(select c from unnest(earlier.excluded_columns) c where c <> all (millrace.virtual_columns(target))));
  wanted.relid := target;
  wanted.name := asked.name;
  wanted.capture := coalesce(register_source.capture, nullif(earlier.capture, 'poll'), 'trigger');
  wanted.topic := coalesce(register_source.topic, earlier.topic, millrace.topic_token(asked.relname));
  wanted.key_columns := coalesce(register_source.key_columns,
    case when earlier.key_columns <@ millrace.image_columns(target) then earlier.key_columns end, millrace.default_key(target));
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
    wanted.excluded_columns := array(select c from unnest(exclude) c union select c from unnest(millrace.virtual_columns(target)) c);
  end if;
  insert into millrace.source as s (relid, name, topic, topic_columns, topic_pattern, key_columns, included_columns,
      excluded_columns, before_values, capture_truncate, capture)
  values (wanted.relid, wanted.name, wanted.topic, wanted.topic_columns, wanted.topic_pattern, wanted.key_columns,
      wanted.included_columns, wanted.excluded_columns, coalesce(register_source.before_values, earlier.before_values, true),
      coalesce(register_source.capture_truncate, earlier.capture_truncate, true), wanted.capture)
  on conflict (relid) do update set name = excluded.name, topic = excluded.topic, topic_columns = excluded.topic_columns,
    topic_pattern = excluded.topic_pattern, key_columns = excluded.key_columns, included_columns = excluded.included_columns,
    excluded_columns = excluded.excluded_columns, before_values = excluded.before_values,
    capture_truncate = excluded.capture_truncate, capture = excluded.capture
  returning s.* into wanted;
  perform millrace.write_capture(wanted);
  return wanted;
end $$;
comment on function millrace.register_source(regclass, text, text[], text[], text[], boolean, boolean, text, boolean) is
  'Makes a table with its owner''s capture triggers a source. Part of millrace.watch.';

-- Functions are judged by their text, without strings and comments: what neither writes to rows that are there nor calls
-- anything cannot change a row that was changed before. Nothing follows from it but a warning.
create function millrace.may_change_rows(function oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
  select l.lanname not in ('plpgsql', 'sql') or p.prosrc = ''
    or regexp_replace(p.prosrc, '''[^'']*''|--[^\n]*|/[*].*?[*]/', ' ', 'g')
       ~* '\m(update|delete\s+from|merge|execute|perform|call|select)\M'
  from pg_proc p join pg_language l on l.oid = p.prolang where p.oid = function
$$;
comment on function millrace.may_change_rows(oid) is 'Whether a trigger function looks as if it might change rows. Part of millrace.watch.';

-- A deferred trigger puts right what AFTER triggers do, whose statements run when the whole statement has changed its rows.
-- It cannot for statements that run in between, of BEFORE triggers: when they end, their changes are queued first. Postgres
-- runs those of foreign keys as part of the statement: their order is right anyway.
create function millrace.warn_of_triggers(target regclass, in_order boolean) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  before_names text;
  after_names text;
  names text;
begin
  select string_agg(distinct format('%I.%I', n.nspname, c.relname), ', ') into names
  from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_namespace n on n.oid = c.relnamespace
  where i.inhparent = target and not c.relispartition;
  if names is not null then
    raise warning 'rows of tables that inherit from % are not captured with its own: %', target, names
      using hint = 'Watch those too, each with a topic of its own.';
  end if;
  select string_agg(distinct quote_ident(t.tgname), ', ') filter (where t.tgtype & 2 = 2),
         string_agg(distinct quote_ident(t.tgname), ', ') filter (where t.tgtype & 2 = 0)
  into before_names, after_names
  from pg_trigger t
  where (t.tgrelid = target or t.tgrelid in (select p.relid from pg_partition_tree(target) p))
    and not t.tgisinternal and t.tgtype & 1 = 1 and t.tgname <> '!millrace_row' and millrace.may_change_rows(t.tgfoid);
  if before_names is not null then
    raise warning 'trigger % may change rows of % that the statement has changed already: then the older change of a row is told last',
      before_names, target using hint = 'If it does, make it an AFTER trigger, and watch(..., capture => ''strict'').';
  end if;
  if in_order then
    raise warning 'changes of % become events at commit, one by one: until then each takes memory, and TRUNCATE and ALTER TABLE '
      'of it fail in a transaction that has changed it', target using hint = 'SET CONSTRAINTS ALL IMMEDIATE ends that, and the order with it.';
    return;
  end if;
  if after_names is not null then
    raise warning 'trigger % may change rows of % while a statement is changing them: then the older change of a row is told last',
      after_names, target using hint = 'If it does, watch(..., capture => ''strict'') keeps the order, at a price.';
  end if;
  select string_agg(quote_ident(t.tgname), ', ') into names from pg_trigger t
  where t.tgrelid = target and not t.tgisinternal and t.tgtype & 67 = 1 and t.tgname < '!millrace_row';
  if names is not null then
    raise warning 'trigger % of % fires before capture: what it changes is told before the change that it answers', names, target
      using hint = 'Give it a name that sorts after !millrace_row, or watch(..., capture => ''strict'').';
  end if;
end $$;
comment on function millrace.warn_of_triggers(regclass, boolean) is 'Warns of what may break the order of events. Part of millrace.watch.';

create function millrace.watch(
  target regclass, topic text default null, key_columns text[] default null, include text[] default null,
  exclude text[] default null, before_values boolean default null, capture_truncate boolean default null,
  capture text default null, reset boolean default false
) returns millrace.source
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
#variable_conflict use_variable
declare
  earlier millrace.source;
  watched millrace.source;
  in_order boolean;
begin
  if target is null then
    raise exception 'millrace.watch needs a table'
      using errcode = '22004', hint = 'For example: select millrace.watch(''public.orders'').';
  end if;
  if capture not in ('trigger', 'strict') then
    raise exception 'there is no capture %', quote_literal(capture)
      using errcode = '22023', hint = 'Capture is trigger, or strict: in the order of the changes whatever other triggers do.';
  end if;
  perform millrace.assert_watchable(target);
  perform millrace.lock_table(target, 'share row exclusive');
  perform millrace.prepare_source(target);
  if not coalesce(reset, false) then
    select s.* into earlier from millrace.source s where s.relid = target;
  end if;
  in_order := coalesce(capture, earlier.capture, 'trigger') = 'strict';
  perform millrace.install_triggers(target, coalesce(capture_truncate, earlier.capture_truncate, true), in_order);
  perform millrace.warn_of_triggers(target, in_order);
  watched := millrace.register_source(target, topic, key_columns, include, exclude, before_values, capture_truncate, capture, reset);
  if exists (
    select from pg_index i where i.indrelid = target and i.indisunique and not i.indimmediate
      and (select array_agg(a.attname::text order by a.attname) from pg_attribute a
           where a.attrelid = target and a.attnum = any (i.indkey::int2[]))
        = (select array_agg(c order by c) from unnest(watched.key_columns) c))
  then
    raise warning 'the key of % is deferrable: of keys that meet within a statement, as in a swap, one row''s INSERT may be told '
      'before another''s DELETE of that key', target using hint = 'Compare a DELETE''s old row with the row that you have.';
  end if;
  return watched;
end $$;
comment on function millrace.watch(regclass, text, text[], text[], text[], boolean, boolean, text, boolean) is
  'Makes every committed change of a table an event. For the table''s owner; again to change how, where what is not given '
  'stays as it was, or, with reset, becomes the default. topic: a name (default: the table''s) or a template over columns '
  'such as orders.{region}. key_columns: default the primary key, or the replica identity''s index. include: the only '
  'columns in images (key and topic columns always are); exclude: columns that stay out. before_values: whether UPDATE and '
  'DELETE carry the old row. capture_truncate: whether TRUNCATE is an event. capture: trigger (default), or strict: events '
  'are written at commit, in the order of the changes whatever other triggers do. Waits for writers of the table for at '
  'most 1 s.';

create or replace function millrace.unwatch(target regclass) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
declare
  released boolean;
  partition_trigger record;
begin
  if exists (select from pg_class c where c.oid = target) then
    perform millrace.assert_watchable(target);
    if to_regproc('millrace.capture_' || target::oid) is null then
      return false;
    end if;
    perform millrace.lock_table(target, 'access exclusive');
    perform millrace.install_triggers(target, true, exists (
      select from pg_trigger t where t.tgrelid = target and t.tgname = '!millrace_row' and t.tginitdeferred));
    released := millrace.release_source(target);
    execute format('drop trigger "!millrace_row" on %s', target);
    -- Those of partitions too, and of such as were detached since.
    for partition_trigger in
      select t.tgrelid::regclass as relation from pg_trigger t join pg_class c on c.oid = t.tgrelid
      where t.tgfoid = to_regproc('millrace.capture_' || target::oid) and t.tgname = '!millrace_truncate'
        and pg_has_role(c.relowner, 'USAGE')
    loop
      execute format('drop trigger "!millrace_truncate" on %s', partition_trigger.relation);
    end loop;
    perform millrace.release_source(target);
    return released;
  end if;
  return millrace.release_source(target);
end $$;

insert into millrace.permission (capability, function) values ('watcher', 'warn_of_triggers'), ('watcher', 'may_change_rows');

revoke all on function millrace.key_candidates(regclass), millrace.install_triggers(regclass, boolean, boolean),
  millrace.register_source(regclass, text, text[], text[], text[], boolean, boolean, text, boolean),
  millrace.may_change_rows(oid), millrace.warn_of_triggers(regclass, boolean),
  millrace.watch(regclass, text, text[], text[], text[], boolean, boolean, text, boolean) from public;
