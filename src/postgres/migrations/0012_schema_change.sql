-- What DDL does to a table's rows without an event: a column that is added with a default, a type that is changed, a
-- partition that comes with its rows or goes with them. No trigger fires then. So each source's shape is kept, compared
-- from time to time with the table as it is, and the difference announced as a MESSAGE on the source's topic.
--
-- Only the catalog is read, never a row: Millrace's owner has no rights on the tables of others, and needs none.

create table millrace.source_shape (
  source_id int primary key,
  shape jsonb not null,
  noted_at timestamptz not null default clock_timestamp()
);
comment on table millrace.source_shape is
  'What each source looked like when that was last told of. Written when a table is watched, and by announce_schema_change.';
comment on column millrace.source_shape.source_id is 'The source.';
comment on column millrace.source_shape.shape is 'See millrace.shape_of.';
comment on column millrace.source_shape.noted_at is 'When it was last compared and found to be different, or noted first.';

-- Enums, composite types and domains that a column's values are made of: {"public.mood": ["sad", "ok"]}. Labels in the
-- order in which they were made, wherever they sort: one that is added leaves the beginning of the list as it was.
create function millrace.types_of(target oid, columns text[]) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
  with recursive part(type) as (
    select a.atttypid from pg_attribute a
    where a.attrelid = target and a.attname = any (columns) and a.attnum > 0 and not a.attisdropped and a.atttypid >= 16384
    union
    select inner_type.oid
    from part, lateral (
      select t.typelem as oid from pg_type t where t.oid = part.type and t.typcategory = 'A'
      union all select t.typbasetype from pg_type t where t.oid = part.type and t.typtype = 'd'
      union all select r.rngsubtype from pg_range r where r.rngtypid = part.type
      union all select a.atttypid from pg_type t join pg_attribute a on a.attrelid = t.typrelid
        where t.oid = part.type and t.typtype = 'c' and a.attnum > 0 and not a.attisdropped
    ) inner_type
    where inner_type.oid >= 16384
  )
  select coalesce(jsonb_object_agg(format_type(part.type, null), case t.typtype
      when 'e' then (select jsonb_agg(e.enumlabel order by e.oid) from pg_enum e where e.enumtypid = t.oid)
      when 'd' then to_jsonb(format_type(t.typbasetype, t.typtypmod))
      else (select to_jsonb(string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' order by a.attnum))
            from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped)
    end), '{}')
  from part join pg_type t on t.oid = part.type and t.typtype in ('e', 'd', 'c')
$$;
comment on function millrace.types_of(oid, text[]) is 'Definitions of the user-defined types behind columns. Part of shape_of.';

-- All partitions, at every level; those that are being detached concurrently are out already. since tells one that was
-- detached and attached again from one that stayed: whoever attaches writes this row anew.
create function millrace.partitions_of(target oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
  with recursive part(oid, parent, since) as (
    select i.inhrelid, i.inhparent, i.xmin::text from pg_inherits i
    where i.inhparent = target and to_jsonb(i) ->> 'inhdetachpending' is distinct from 'true'
    union all
    select i.inhrelid, i.inhparent, i.xmin::text from part join pg_inherits i on i.inhparent = part.oid
    where to_jsonb(i) ->> 'inhdetachpending' is distinct from 'true'
  )
  select coalesce(jsonb_agg(jsonb_build_object('oid', part.oid::bigint, 'table', format('%I.%I', n.nspname, c.relname),
      'bound', pg_get_expr(c.relpartbound, c.oid), 'since', part.since, 'persistence', c.relpersistence) order by part.oid), '[]')
  from part join pg_class c on c.oid = part.oid join pg_namespace n on n.oid = c.relnamespace
  where exists (select from pg_class p where p.oid = target and p.relkind = 'p')
$$;
comment on function millrace.partitions_of(oid) is 'A table''s partitions with their bounds. Part of shape_of.';

-- Columns as images show them, for what no image shows is nobody's business. The expression of a generated column without
-- the places in its text, which change when it is written anew.
create function millrace.columns_of(target oid, columns text[]) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
      'number', a.attnum, 'column', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
      'collation', case when a.attcollation <> t.typcollation then a.attcollation::regcollation::text end,
      'notNull', a.attnotnull,
      'expression', case when a.attgenerated <> '' then
        (select md5(regexp_replace(d.adbin::text, ':location -?[0-9]+', '', 'g')) from pg_attrdef d
         where d.adrelid = a.attrelid and d.adnum = a.attnum) end)) order by a.attnum), '[]')
  from pg_attribute a join pg_type t on t.oid = a.atttypid
  where a.attrelid = target and a.attnum > 0 and not a.attisdropped and a.attname = any (columns)
$$;
comment on function millrace.columns_of(oid, text[]) is 'A table''s columns, those that are named. Part of shape_of.';

create function millrace.shape_of(source millrace.source) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  has constant text[] := millrace.image_columns(source.relid);
  always constant text[] := source.key_columns || source.topic_columns;
  hidden_gone constant boolean := exists (
    select from unnest(source.excluded_columns) c
    where not exists (select from pg_attribute a where a.attrelid = source.relid and a.attname = c and not a.attisdropped));
  shown text[];
  shape jsonb;
begin
  shown := array(select c from unnest(has) c where case
    when hidden_gone then c = any (always)
    else c <> all (source.excluded_columns) and (source.included_columns is null or c = any (source.included_columns)) end);
  select jsonb_build_object(
      'relid', c.oid::bigint,
      'epoch', (select e.id from millrace.epoch e order by e.first_tick desc limit 1),
      'table', format('%I.%I', n.nspname, c.relname),
      'persistence', c.relpersistence,
      'columns', millrace.columns_of(c.oid, shown),
      'primaryKey', to_jsonb(coalesce(millrace.default_key(c.oid), '{}')),
      'types', millrace.types_of(c.oid, shown),
      'partitions', millrace.partitions_of(c.oid),
      'virtual', array(select a.attname from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = 'v' order by a.attnum),
      'degraded', to_jsonb(array_remove(array[
        case when not source.key_columns <@ has then 'a key column is gone' end,
        case when not source.topic_columns <@ has then 'a column of the topic is gone' end,
        case when hidden_gone then 'an excluded column is gone: only key and topic columns are shown' end], null)))
  into shape
  from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = source.relid;
  return coalesce(shape, jsonb_build_object('relid', source.relid::bigint, 'table', source.name, 'gone', true));
end $$;
comment on function millrace.shape_of(millrace.source) is
  'What a source looks like to whoever follows it: the columns that images show, their types, the partitions that rows are '
  'in, what is missing. Free of what a rewrite, vacuum or statistics change.';

-- Columns are the same when they have the same number, partitions when they have the same oid; of a table that a restore
-- made anew, when they have the same name.
create function millrace.column_changes(before jsonb, after jsonb, same_table boolean) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
  with pair as (
    select b.c as b, a.c as a from
      (select c, case when same_table then c ->> 'number' else c ->> 'column' end as id from jsonb_array_elements(before) c) b
      full join
      (select c, case when same_table then c ->> 'number' else c ->> 'column' end as id from jsonb_array_elements(after) c) a
      using (id)
  )
  select nullif(jsonb_strip_nulls(jsonb_build_object(
    'added', jsonb_agg(a - '{number,expression}'::text[] order by a ->> 'column') filter (where b is null),
    'dropped', jsonb_agg(b -> 'column' order by b ->> 'column') filter (where a is null),
    'renamed', jsonb_agg(jsonb_build_object('from', b -> 'column', 'to', a -> 'column') order by a ->> 'column')
      filter (where b ->> 'column' <> a ->> 'column'),
    'changed', jsonb_agg(jsonb_build_object('column', a -> 'column', 'from', b - '{number,column,expression}'::text[],
        'to', a - '{number,column,expression}'::text[], 'computed', a -> 'expression' is distinct from b -> 'expression')
        order by a ->> 'column')
      filter (where b - '{number,column,expression}'::text[] <> a - '{number,column,expression}'::text[]
        or same_table and a is not null and b is not null and a -> 'expression' is distinct from b -> 'expression'))), '{}')
  from pair
$$;
comment on function millrace.column_changes(jsonb, jsonb, boolean) is 'The difference between columns. Part of shape_change.';

create function millrace.partition_changes(before jsonb, after jsonb, same_table boolean, same_history boolean) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
  with pair as (
    select b.p as b, a.p as a from
      (select p, case when same_table then p ->> 'oid' else p ->> 'table' end as id from jsonb_array_elements(before) p) b
      full join
      (select p, case when same_table then p ->> 'oid' else p ->> 'table' end as id from jsonb_array_elements(after) p) a
      using (id)
  )
  select nullif(jsonb_strip_nulls(jsonb_build_object(
    'attached', jsonb_agg(jsonb_build_object('table', a -> 'table', 'bound', a -> 'bound',
        'empty', coalesce(pg_relation_size((a ->> 'oid')::oid) = 0, false)) order by a ->> 'table')
      filter (where b is null or same_history and a -> 'since' <> b -> 'since'),
    'detached', jsonb_agg(jsonb_build_object('table', b -> 'table', 'bound', b -> 'bound',
        'dropped', not exists (select from pg_class c where c.oid = (b ->> 'oid')::oid)) order by b ->> 'table')
      filter (where a is null))), '{}')
  from pair
$$;
comment on function millrace.partition_changes(jsonb, jsonb, boolean, boolean) is 'The difference between partitions. Part of shape_change.';

-- rowsChanged: whether rows may look otherwise now than the last event about them said, or may have come or gone without
-- one. A label at the end of an enum, a NOT NULL, a partition that is empty change no row.
create function millrace.shape_change(before jsonb, after jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  same_table constant boolean := before -> 'relid' = after -> 'relid';
  same_history constant boolean := same_table and before -> 'epoch' is not distinct from after -> 'epoch';
  columns constant jsonb := millrace.column_changes(before -> 'columns', after -> 'columns', same_table);
  partitions constant jsonb :=
    millrace.partition_changes(before -> 'partitions', after -> 'partitions', same_table, same_history);
  types jsonb;
  renamed_labels boolean;
  key_before jsonb := before -> 'primaryKey';
  change jsonb;
begin
  if before ? 'gone' or after ? 'gone' then
    return case when before ? 'gone' and after ? 'gone' then null
      else jsonb_build_object('table', after -> 'table', 'gone', after ? 'gone', 'rowsChanged', true) end;
  end if;
  select jsonb_agg(t.key order by t.key), coalesce(bool_or(jsonb_typeof(t.after) <> 'array' or not starts_with(
      rtrim(t.after::text, ']') || ', ', rtrim(t.before::text, ']') || ', ')), false)
  into types, renamed_labels
  from (select a.key, a.value as after, before -> 'types' -> a.key as before from jsonb_each(after -> 'types') a) t
  where t.before is not null and t.before <> t.after;
  select jsonb_agg(coalesce((select r -> 'to' from jsonb_array_elements(columns -> 'renamed') r where r ->> 'from' = k.name),
    to_jsonb(k.name)) order by k.place) into key_before
  from jsonb_array_elements_text(before -> 'primaryKey') with ordinality k(name, place);
  change := jsonb_strip_nulls(jsonb_build_object(
    'columns', columns,
    'partitions', partitions,
    'types', types,
    'primaryKey', case when coalesce(key_before, '[]') <> after -> 'primaryKey' then after -> 'primaryKey' end,
    'renamed', case when before -> 'table' <> after -> 'table' then
      jsonb_build_object('from', before -> 'table', 'to', after -> 'table') end,
    'unlogged', case when before -> 'persistence' <> after -> 'persistence' then after ->> 'persistence' = 'u' end,
    'degraded', case when before -> 'degraded' <> after -> 'degraded' then after -> 'degraded' end));
  if change = '{}' then
    return null;
  end if;
  return change || jsonb_build_object('table', after -> 'table', 'rowsChanged',
    coalesce(columns ?| '{added,dropped,renamed}', false)
    or coalesce(jsonb_path_exists(columns, '$.changed[*] ? (@.computed == true || @.from.type != @.to.type)'), false)
    or coalesce(jsonb_path_exists(partitions, '$.attached[*] ? (@.empty == false)'), false)
    or coalesce(partitions ? 'detached', false)
    or renamed_labels);
end $$;
comment on function millrace.shape_change(jsonb, jsonb) is 'What to tell of two shapes of a source; null when nothing.';

-- One row is locked, so that of several servers that look at once one tells. The others then find it told.
create function millrace.note_shape(source millrace.source) returns jsonb
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  known jsonb;
  found_now jsonb;
  change jsonb;
begin
  select n.shape into known from millrace.source_shape n where n.source_id = source.id for update;
  found_now := millrace.shape_of(source);
  if known is null then
    insert into millrace.source_shape (source_id, shape) values (source.id, found_now) on conflict do nothing;
    return null;
  end if;
  if known = found_now then
    return null;
  end if;
  change := millrace.shape_change(known, found_now);
  update millrace.source_shape set shape = found_now, noted_at = clock_timestamp() where source_id = source.id;
  if change is not null then
    insert into millrace.outbox (topic, operation, after, headers, source_id)
    values (source.topic, 'M', change::text::json, '{"millrace-schema": "changed"}', source.id);
  end if;
  return change;
end $$;
comment on function millrace.note_shape(millrace.source) is
  'Notes what a source looks like now and writes a MESSAGE of what has changed. Part of announce_schema_change and of watch.';

-- Watching again, or adopting a restored table, compares too: what changed since the last look would else never be told.
create function millrace.note_source() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if tg_op = 'DELETE' then
    delete from millrace.source_shape n where n.source_id = old.id;
  else
    perform millrace.note_shape(new);
  end if;
  return null;
end $$;
comment on function millrace.note_source() is 'Keeps millrace.source_shape beside millrace.source.';
create trigger note_source after insert or update or delete on millrace.source
  for each row execute function millrace.note_source();
alter table millrace.source enable always trigger note_source;

create function millrace.changed_sources() returns setof int
language sql stable security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
  select s.id from millrace.source s left join millrace.source_shape n on n.source_id = s.id
  where n.shape is distinct from millrace.shape_of(s) order by s.id
$$;
comment on function millrace.changed_sources() is 'Sources that do not look as noted: for millrace.announce_schema_change.';

-- Virtual generated columns (Postgres 18) are in no image: watching excludes those that there are. One that is added later
-- would be in images, as null; one that is dropped would count as an excluded column that is gone, and hide all others.
create function millrace.follow_virtual_columns(source millrace.source) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  known constant text[] := array(
    select jsonb_array_elements_text(n.shape -> 'virtual') from millrace.source_shape n where n.source_id = source.id);
  virtual constant text[] := array(select a.attname::text from pg_attribute a
    where a.attrelid = source.relid and a.attnum > 0 and not a.attisdropped and a.attgenerated = 'v');
  excluded text[];
begin
  excluded := array(
    select c from unnest(source.excluded_columns) c where c = any (virtual) or c <> all (known) union select unnest(virtual) order by 1);
  if source.included_columns is not null or source.capture = 'poll'
      or not exists (select from pg_class c where c.oid = source.relid)
      or excluded <@ source.excluded_columns and excluded @> source.excluded_columns then
    return;
  end if;
  update millrace.source s set excluded_columns = excluded where s.id = source.id;
end $$;
comment on function millrace.follow_virtual_columns(millrace.source) is
  'Excludes virtual columns that came since, and forgets those that went. Part of announce_schema_change.';

-- Whatever it is asked, it tells what the catalog says: nobody can make it tell anything else. Not in a copy of the
-- database whose tables are not adopted yet: they would look as if they were gone.
--
-- A trigger function whose table was altered is right and slow until it is written again: here. The lock keeps those who
-- watch, and write it too, apart; they take it first as well.
create function millrace.announce_schema_change(source_id int) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
declare
  s millrace.source;
  known jsonb;
  change jsonb;
begin
  perform millrace.assert_epoch();
  lock table millrace.source in row exclusive mode;
  select * into s from millrace.source o where o.id = announce_schema_change.source_id;
  if s.id is null then
    return null;
  end if;
  select n.shape into known from millrace.source_shape n where n.source_id = s.id;
  perform millrace.follow_virtual_columns(s);
  select * into s from millrace.source o where o.id = announce_schema_change.source_id;
  change := millrace.note_shape(s);
  if s.capture <> 'poll' and to_regproc('millrace.capture_' || s.relid) is not null
      and known <> (select n.shape from millrace.source_shape n where n.source_id = s.id) then
    perform millrace.write_capture(s);
  end if;
  return change;
end $$;
comment on function millrace.announce_schema_change(int) is
  'Compares a source with what was noted of it and writes a MESSAGE with header millrace-schema on its topic when it has '
  'changed; returns its payload, null for none. For servers, in READ COMMITTED.';

insert into millrace.permission (capability, function)
values ('server', 'changed_sources'), ('server', 'announce_schema_change');

revoke all on function millrace.types_of(oid, text[]), millrace.partitions_of(oid), millrace.columns_of(oid, text[]),
  millrace.shape_of(millrace.source), millrace.column_changes(jsonb, jsonb, boolean),
  millrace.partition_changes(jsonb, jsonb, boolean, boolean), millrace.shape_change(jsonb, jsonb),
  millrace.note_shape(millrace.source), millrace.note_source(), millrace.changed_sources(),
  millrace.follow_virtual_columns(millrace.source), millrace.announce_schema_change(int) from public;
