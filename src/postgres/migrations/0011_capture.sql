-- How a source is captured, and images that run nobody's code.
--
-- row_to_json calls a cast to json that the owner of a type may have made, or may make later: with the rights of whoever
-- builds the image, and where it may change the session's settings for what runs after it. So no image is built by such a
-- cast. Values of types that Postgres comes with, and of domains over them, are left to row_to_json, which looks for no cast
-- there; those of enums, ranges and other types of a user's own go by their output function, which only superusers write, as
-- format('%s') calls it; rows within rows are taken apart. A cast is believed where only superusers can have made it: for a
-- type of a superuser's, with a function in C (hstore, PostGIS).
--
-- Which of that a column needs is found when the source is watched, and written into its trigger function together with a
-- guard: that the row has just those columns, of just those types. ALTER TABLE makes the guard false, for it asks the row
-- itself and the catalog as it is now, whatever snapshot the writer has; the row is then read by millrace.row_image, slowly,
-- until the function is written again: by the transaction itself that has altered the table, when it goes on to change rows,
-- or by a server that looks. The guard and the block around it cost about 1 us for 10 columns.

alter table millrace.source add column capture text not null default 'trigger'
  check (capture in ('trigger', 'strict', 'poll'));
comment on column millrace.source.capture is
  'trigger: an event at each change; strict: the same, written at commit in the order of the changes; poll: found by a '
  'poller, without triggers.';

-- 16384 is the first oid that is not Postgres' own, and 114 is json.
create function millrace.value_expression(of_type oid, v text, depth int default 0, out value text, out guard text)
language plpgsql stable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
  t pg_type;
  element constant text := 'millrace_' || depth;
  inner_value text;
  inner_guard text;
  alias text;
  fields text;
begin
  guard := format('pg_catalog.pg_typeof(%s) = %L::pg_catalog.regtype', v, of_type);
  value := v;
  select * into t from pg_type where oid = of_type;
  while t.typtype = 'd' loop
    select * into t from pg_type where oid = t.typbasetype;
  end loop;
  if t.oid < 16384 then
    return;
  end if;
  if t.typcategory = 'A' and t.typelem <> 0 and t.typlen = -1 then
    select e.value into inner_value
    from millrace.value_expression(t.typelem, format('(%s)[%s.place]', v, element), depth + 1) e;
    if inner_value = format('(%s)[%s.place]', v, element) then
      return;
    end if;
    value := format('pg_catalog.to_json(case when %1$s is not null then pg_catalog.format(''%%s'', %1$s)::pg_catalog.text[] end)', v);
    if (select e.typtype = 'c' from pg_type e where e.oid = t.typelem) then
      select e.guard into inner_guard from millrace.value_expression(t.typelem, format('(%s)[1]', v), depth + 1) e;
      guard := guard || ' and ' || inner_guard;
      value := format('case when pg_catalog.array_ndims(%1$s) > 1 then %2$s when %1$s is not null then pg_catalog.to_json(array('
        'select %3$s from pg_catalog.generate_subscripts(%1$s, 1) %4$s(place) order by place)) end',
        v, value, inner_value, element);
    elsif (select e.typdelim <> ',' from pg_type e where e.oid = t.typelem) then
      value := format('case when %1$s is not null then pg_catalog.format(''%%s'', %1$s) end', v);
    end if;
  elsif t.typtype = 'c' then
    alias := element || 'r';
    while exists (select from pg_attribute a where a.attrelid = t.typrelid and a.attname = alias) loop
      alias := alias || '_';
    end loop;
    select string_agg(format('%s as %I', e.value, a.attname), ', ' order by a.attnum),
           string_agg(' and ' || e.guard, '' order by a.attnum)
    into fields, inner_guard
    from pg_attribute a, millrace.value_expression(a.atttypid, format('(%s).%I', v, a.attname), depth + 1) e
    where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped;
    value := format('case when pg_catalog.format(''%%s'', %1$s) <> '''' then (select %2$s from (select %3$s) %2$s) end',
      v, alias, fields);
    guard := guard || coalesce(inner_guard, '') || ' and ' || millrace.same_columns(t.typrelid);
  elsif t.typtype <> 'b' or not exists (
      select from pg_cast c join pg_proc p on p.oid = c.castfunc join pg_language l on l.oid = p.prolang
      join pg_roles r on r.oid = t.typowner
      where c.castsource = t.oid and c.casttarget = 114 and l.lanname in ('c', 'internal') and r.rolsuper) then
    value := format('case when %1$s is not null then pg_catalog.format(''%%s'', %1$s) end', v);
  end if;
end $$;
comment on function millrace.value_expression(oid, text, int) is
  'An expression for a value of a type as JSON shows it, which runs no cast of a user''s (the value itself where row_to_json '
  'would not either), and a condition under which it is that. Part of capture.';

-- By the catalog as it is now, also where the transaction''s snapshot is older. Before 14 the function raises for a column
-- that is not there.
create function millrace.same_columns(relid oid) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  count constant int := (select c.relnatts from pg_class c where c.oid = relid);
begin
  if current_setting('server_version_num')::int >= 140000 then
    return format('pg_catalog.pg_describe_object(1259, %s, %s) is null', relid, count + 1);
  end if;
  return format('(select c.relnatts = %s from pg_catalog.pg_class c where c.oid = %s)', count, relid);
end $$;
comment on function millrace.same_columns(oid) is 'A condition: no column was added since. Part of capture.';

-- whole: the row itself may be handed to row_to_json, where all of it is kept and safe.
create function millrace.row_expression(
  names text[], types oid[], kept text[], row_name text, whole boolean, out image text, out guard text, out plain boolean
) language plpgsql stable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
  fields text;
  alias text := 'millrace_row';
begin
  while alias = any (names) loop
    alias := alias || '_';
  end loop;
  select string_agg(format('%s as %I', e.value, c.name), ', ' order by c.place) filter (where c.name = any (kept)),
         string_agg(e.guard, ' and ' order by c.place),
         bool_and(e.value = c.field)
  into fields, guard, plain
  from (select n.name, n.type, n.place, format('%s.%I', row_name, n.name) as field
        from unnest(names, types) with ordinality n(name, type, place)) c,
    millrace.value_expression(c.type, c.field) e;
  plain := coalesce(plain, true) and names <@ kept;
  image := case
    when plain and whole then format('pg_catalog.row_to_json(%s)', row_name)
    else format('pg_catalog.row_to_json((select %1$s from (select %2$s) %1$s))', alias, fields) end;
end $$;
comment on function millrace.row_expression(text[], oid[], text[], text, boolean) is
  'An expression for the image of a row with these columns, and the condition under which it is. Part of capture.';

-- What a source's images show of these columns; null when an excluded one is gone: it may have another name now.
create function millrace.kept_columns(names text[], excluded text[], included text[], virtual text[]) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select case when excluded <@ names then array(select n from unnest(names) n
    where n <> all (excluded) and n <> all (virtual) and (included is null or n = any (included))) end
$$;
comment on function millrace.kept_columns(text[], text[], text[], text[]) is 'The columns that an image shows. Part of capture.';

create function millrace.virtual_columns(relid oid) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce(array_agg(a.attname::text), '{}') from pg_attribute a
  where a.attrelid = relid and a.attnum > 0 and not a.attisdropped and a.attgenerated = 'v'
$$;
comment on function millrace.virtual_columns(oid) is
  'Generated columns that are computed when they are read (Postgres 18): a trigger does not see them, so they are in no image.';

create function millrace.image_expression(s millrace.source, row_name text, out image text, out guard text)
language plpgsql stable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
  names text[];
  types oid[];
  kept text[];
begin
  select coalesce(array_agg(a.attname::text order by a.attnum), '{}'), coalesce(array_agg(a.atttypid order by a.attnum), '{}')
  into names, types
  from pg_attribute a where a.attrelid = s.relid and a.attnum > 0 and not a.attisdropped;
  kept := millrace.kept_columns(names, s.excluded_columns, s.included_columns, millrace.virtual_columns(s.relid));
  if kept is null or cardinality(names) = 0 then
    -- Drifted already, or the table is gone.
    guard := 'false';
    image := 'null::pg_catalog.json';
    return;
  end if;
  -- The columns of a partition may be in another order than its parent's, in which its images are.
  select e.image, e.guard || ' and ' || millrace.same_columns(s.relid) into image, guard
  from millrace.row_expression(names, types, kept, row_name,
    not exists (select from pg_class c where c.oid = s.relid and c.relkind = 'p')) e;
end $$;
comment on function millrace.image_expression(millrace.source, text) is
  'For a row of a source''s table, by the name of row_name: an SQL expression of its image and the condition under which it '
  'is that; millrace.row_image is right whatever the condition says. Part of capture and of snapshots.';

-- The settings are pinned here and, the same, in the functions that write_capture writes.
create or replace function millrace.row_image(image_of record, excluded text[], included text[] default null) returns json
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set bytea_output = 'hex'
set extra_float_digits = 1 set lc_monetary = 'C' set quote_all_identifiers = off set standard_conforming_strings = on as $$
declare
  relid constant oid := (select t.typrelid from pg_type t where t.oid = pg_typeof(image_of));
  virtual constant text[] := millrace.virtual_columns(relid);
  names text[];
  types oid[];
  kept text[];
  simple boolean;
  expression record;
  image json;
begin
  select array_agg(a.attname::text order by a.attnum),
         bool_and(a.attname <> all (virtual) and (a.atttypid < 16384 or t.typtype = 'd' and t.typbasetype < 16384))
  into names, simple
  from pg_attribute a join pg_type t on t.oid = a.atttypid where a.attrelid = relid and a.attnum > 0 and not a.attisdropped;
  -- Nobody can change the types of a row's columns while there is a statement about it; but the catalog is seen as it is
  -- only in READ COMMITTED.
  if simple and included is null and cardinality(excluded) = 0 and current_setting('transaction_isolation') = 'read committed' then
    return row_to_json(image_of);
  end if;
  names := millrace.columns_now(relid, names);
  kept := millrace.kept_columns(names, excluded, included, virtual);
  if kept is null then
    return null;
  end if;
  -- Only what is shown is looked at: a key is told also where another column's type is not what the snapshot says.
  execute (select format('select array[%s]::oid[]', string_agg(format('pg_typeof(($1).%I)', n.name), ', ' order by n.place))
    from unnest(kept) with ordinality n(name, place)) into types using image_of;
  select e.image, e.guard into expression from millrace.row_expression(kept, types, kept, '($1)', false) e;
  execute format('select case when %s then %s end', coalesce(expression.guard, 'true'), expression.image) into image using image_of;
  return image;
exception when syntax_error_or_access_rule_violation then
  -- The catalog as an old snapshot shows it is not the row's.
  return null;
end $$;
comment on function millrace.row_image(record, text[], text[]) is
  'A row of a table as JSON, the way events and snapshots carry it: without the excluded columns, or with nothing but the '
  'included ones. Null when an excluded column is not there: it may have another name now, and would show.';

-- Where the snapshot may be older than the table is, the columns are asked
-- one by one of a function that sees the catalog as it is.
create function millrace.columns_now(relid oid, seen text[]) returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  names text[] := '{}';
  name text;
begin
  if current_setting('transaction_isolation') = 'read committed' or current_setting('server_version_num')::int < 140000 then
    return seen;
  end if;
  for n in 1..1600 loop
    select o.object_names[3] into name from pg_identify_object_as_address(1259, relid, n) o;
    exit when name is null;
    if name <> format('........pg.dropped.%s........', n) then
      names := names || name;
    end if;
  end loop;
  return names;
end $$;
comment on function millrace.columns_now(oid, text[]) is 'The columns of a row''s table as they are now. Part of row_image.';

create or replace function millrace.column_json(row_of record, column_name text) returns json
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  image constant text := millrace.row_image(row_of, '{}', array[column_name]);
  member constant text := '{' || to_json(column_name) || ':';
begin
  return case when starts_with(image, member) then substr(image, length(member) + 1, length(image) - length(member) - 1)::json end;
end $$;

-- The part of a trigger function that finds key and topic of one side of a change, old or new, and its image where the quick
-- way did not.
create or replace function millrace.capture_side(source millrace.source, side text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
  code text;
begin
  code := format($code$
    if %1$s_image is null then
      %1$s_image := millrace.row_image(%1$s, %2$L, %3$L);
    end if;
    if %1$s_image is null then
      %1$s_image := coalesce(millrace.row_image(%1$s, '{}', %4$L), '{}');
      drift := %6$L;
    end if;
    if octet_length(%1$s_image::text) > 67108864 then
      raise exception 'a row of %% is too large to capture: %% bytes of JSON', %5$L, octet_length(%1$s_image::text)
        using errcode = '54000', hint = 'At most 64 MiB: leave the large column out with millrace.watch(..., exclude => ...).';
    end if;$code$, side, source.excluded_columns, source.included_columns, source.key_columns || source.topic_columns, source.name,
    case when cardinality(source.excluded_columns) = 0 then 'its columns are not what they were' else 'an excluded column is gone' end
    || ': only key and topic columns are shown');
  code := code || case when cardinality(source.key_columns) = 1 then format($code$
    if strpos(%1$s_image::text, escape) = 0 then
      %1$s_key := %1$s_image ->> %2$L;
    else
      %1$s_key := millrace.key_of(%1$s, %1$s_image, %3$L);
    end if;$code$, side, source.key_columns[1], source.key_columns)
  else format($code$
    %1$s_key := millrace.key_of(%1$s, %1$s_image, %2$L);$code$, side, source.key_columns) end;
  code := code || format($code$
    if %1$s_key is null then
      drift := 'a key column is gone or null';
    end if;$code$, side);
  if cardinality(source.topic_columns) > 0 then
    code := code || format($code$
    %1$s_topic := millrace.topic_of(%1$s, %1$s_image, %2$L, %3$L);
    if strpos(%1$s_topic, '%%gone') > 0 then
      drift := 'a column of the topic is gone';
    end if;$code$, side, source.topic, source.topic_columns);
  end if;
  return code;
end $$;

create or replace function millrace.capture_body(source millrace.source) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
  partitioned constant boolean := exists (select from pg_class c where c.oid = source.relid and c.relkind = 'p');
  old_side constant record := millrace.image_expression(source, 'old');
  new_side constant record := millrace.image_expression(source, 'new');
begin
  return format($code$
declare
  escape constant text := chr(92) || 'u';
  old_image json;
  new_image json;
  old_key text;
  new_key text;
  old_topic text := %1$L;
  new_topic text := %1$L;
  drift text;
  headers json;
begin
  -- Of a table that somebody else put this trigger on, nothing is told.
  if tg_relid <> %2$s then
    if %3$snot millrace.is_restored(tg_relid, %4$s) then
      return null;
    end if;
  end if;
  if tg_op = 'TRUNCATE' then
    perform millrace.tell_truncate(%4$s, new_topic, tg_relid);
    return null;
  end if;
  begin
    if tg_op = 'DELETE' then
      if %8$s then
        old_image := %9$s;
      end if;
    elsif %10$s then
      new_image := %11$s;
      if tg_op = 'UPDATE' then
        old_image := %9$s;
      end if;
    end if;
  exception when syntax_error_or_access_rule_violation then
    -- The columns are not what they were.
    old_image := null;
    new_image := null;
  end;
  if old_image is null and new_image is null then
    perform millrace.follow_columns(%4$s, tg_relid);
  end if;
  if tg_op <> 'INSERT' then%5$s
  end if;
  if tg_op <> 'DELETE' then%6$s
  end if;
  if drift is not null then
    headers := json_build_object('millrace-drift', drift);
  end if;
  if tg_op = 'UPDATE' and old_topic = new_topic and old_key is not distinct from new_key then
    insert into millrace.outbox (topic, key, operation, before, after, headers, source_id)
    values (new_topic, new_key, 'U', %7$s, new_image, headers, %4$s);
    return null;
  end if;
  if tg_op <> 'INSERT' then
    insert into millrace.outbox (topic, key, operation, before, headers, source_id)
    values (old_topic, old_key, 'D', %7$s, headers, %4$s);
  end if;
  if tg_op <> 'DELETE' then
    insert into millrace.outbox (topic, key, operation, after, headers, source_id)
    values (new_topic, new_key, 'I', new_image, headers, %4$s);
  end if;
  return null;
end $code$,
    source.topic, source.relid,
    case when partitioned then format(
      'not exists (select from pg_partition_ancestors(tg_relid) a where a.relid = %s) and ', source.relid) else '' end,
    source.id, millrace.capture_side(source, 'old'), millrace.capture_side(source, 'new'),
    case when source.before_values then 'old_image' else 'null' end,
    old_side.guard, old_side.image, new_side.guard, new_side.image);
end $$;

-- A partition's trigger tells of a TRUNCATE that the whole table's does not: not as TRUNCATE, which would mean all rows,
-- and not row by row, for this schema's owner may not read them. Who keeps a copy learns that rows went, and whose.
--
-- TRUNCATE of the whole table fires its trigger and those of the partitions. The last thing written about this source in
-- this transaction says which it is: if that was this TRUNCATE or an outer partition's, then nothing was there to remove.
create function millrace.tell_truncate(source_id int, topic text, truncated oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  ancestors text[];
  last record;
begin
  if not exists (select from pg_trigger t where t.tgrelid = truncated and t.tgname = '!millrace_row' and t.tgparentid <> 0) then
    insert into millrace.outbox (topic, operation, source_id) values (tell_truncate.topic, 'T', tell_truncate.source_id);
    return;
  end if;
  -- OFFSET 0 keeps it on the index over xid: for the last one the planner would read the outbox backwards, all of it when this
  -- transaction has written nothing yet.
  select o.operation, o.after into last
  from (select * from millrace.outbox where xid = pg_current_xact_id() offset 0) o
  where o.source_id = tell_truncate.source_id order by o.seq desc limit 1;
  -- From the partition to the root of them all, which may be above the watched table.
  ancestors := array(select format('%I.%I', n.nspname, c.relname)
    from pg_partition_ancestors(truncated) with ordinality a(relid, place) join pg_class c on c.oid = a.relid
    join pg_namespace n on n.oid = c.relnamespace order by a.place);
  if last.operation = 'T' or last.operation = 'M' and last.after #>> '{partitions,truncated,0,table}' = any (ancestors) then
    return;
  end if;
  insert into millrace.outbox (topic, operation, after, headers, source_id)
  select tell_truncate.topic, 'M', json_build_object(
      'table', (select s.name from millrace.source s where s.id = tell_truncate.source_id),
      'partitions', json_build_object('truncated', json_build_array(json_build_object(
        'table', ancestors[1], 'bound', pg_get_expr(c.relpartbound, c.oid)))),
      'rowsChanged', true), '{"millrace-schema": "changed"}', tell_truncate.source_id
  from pg_class c where c.oid = truncated;
end $$;
comment on function millrace.tell_truncate(int, text, oid) is 'Tells of a TRUNCATE: of a watched table or of one of its partitions. Part of capture.';

create function millrace.write_capture(s millrace.source) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  execute format($code$create or replace function millrace.%I() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set bytea_output = 'hex'
    set extra_float_digits = 1 set lc_monetary = 'C' set quote_all_identifiers = off set standard_conforming_strings = on
    as %L$code$, 'capture_' || s.relid, millrace.capture_body(s));
  execute format('comment on function millrace.%I() is %L', 'capture_' || s.relid,
    'Captures ' || s.name || '. Written by millrace.watch.');
end $$;
comment on function millrace.write_capture(millrace.source) is
  'Writes the trigger function of a source, from its row and the catalog alone. Part of millrace.watch.';

-- ALTER TABLE and an UPDATE of all rows are often one transaction. It has the table to itself, and so nobody waits for the
-- row of pg_proc that this changes; any other transaction leaves that alone. If it rolls back, so does this.
create function millrace.follow_columns(source_id int, relid oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '100ms' as $$
declare
  s millrace.source;
begin
  perform from pg_locks l where l.locktype = 'relation' and l.pid = pg_backend_pid() and l.relation = relid
    and l.mode = 'AccessExclusiveLock' and l.granted;
  if not found then
    return;
  end if;
  select * into s from millrace.source o where o.id = source_id;
  if exists (select from pg_proc p where p.oid = to_regproc('millrace.capture_' || s.relid) and p.prosrc <> millrace.capture_body(s)) then
    perform millrace.write_capture(s);
  end if;
exception when lock_not_available or internal_error then
  -- A server is at it, or was a moment ago.
  return;
end $$;
comment on function millrace.follow_columns(int, oid) is 'Writes a trigger function again where its table was altered. Part of capture.';

insert into millrace.permission (capability, function) select 'server',
  unnest('{image_expression,row_expression,value_expression,same_columns,kept_columns,virtual_columns,columns_now}'::name[]);

revoke all on function millrace.write_capture(millrace.source), millrace.value_expression(oid, text, int),
  millrace.same_columns(oid), millrace.row_expression(text[], oid[], text[], text, boolean),
  millrace.kept_columns(text[], text[], text[], text[]), millrace.virtual_columns(oid), millrace.image_expression(millrace.source, text),
  millrace.columns_now(oid, text[]), millrace.follow_columns(int, oid), millrace.tell_truncate(int, text, oid) from public;

-- Trigger functions of sources that were watched before this.
do $$
declare
  s millrace.source;
begin
  for s in select * from millrace.source o where to_regproc('millrace.capture_' || o.relid) is not null loop
    perform millrace.write_capture(s);
  end loop;
end $$;
