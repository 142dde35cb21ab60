-- From a change of a row, or a call of emit, to a row of the outbox.
--
-- Every watched table has a trigger function of its own, capture_<oid>, written by register_source with the source's
-- settings in it as constants. Not one function that looks its source up: a writer in REPEATABLE READ or SERIALIZABLE
-- whose snapshot is older than the watch would not see the row of millrace.source, and its changes would be lost without
-- a word; functions are looked up in the catalog as it is now. It also saves the lookup on each row. And not trigger
-- arguments: whoever owns a table can write those.
--
-- What a writer may suffer: an error for a row over 64 MiB, or no disk. Anything else that is not as it was when the table
-- was watched (a key column renamed, an excluded one dropped) is written as well as it can be, with the header
-- millrace-drift.

-- What an image looks like must not depend on who writes: the settings are pinned here and, the same, in the functions that
-- register_source writes. A cast or an output function of the user's own runs with the rights of the caller.
create function millrace.row_image(image_of record, excluded text[], included text[] default null) returns json
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set bytea_output = 'hex'
set extra_float_digits = 1 set lc_monetary = 'C' set quote_all_identifiers = off set standard_conforming_strings = on as $$
declare
  whole json := row_to_json(image_of);
  columns text;
  kept text;
  missing int;
begin
  if included is null and cardinality(excluded) = 0 then
    return whole;
  end if;
  -- Members are cut out of the text, so that each keeps its bytes. The cutter reads escapes and refuses some that json
  -- may hold (u0000, half a surrogate pair): with any escape in sight the image is built from the columns, which is slower.
  if strpos(whole::text, chr(92) || 'u') = 0 then
    select string_agg(to_json(m.key)::text || ':' || m.value::text, ',')
             filter (where m.key <> all (excluded) and (included is null or m.key = any (included))),
           cardinality(excluded) - count(*) filter (where m.key = any (excluded))
    into kept, missing
    from json_each(whole) m;
    return case when missing = 0 then '{' || coalesce(kept, '') || '}' end;
  end if;
  select string_agg(format('($1).%I', a.attname), ', ' order by a.attnum)
           filter (where a.attname <> all (excluded) and (included is null or a.attname = any (included))),
         cardinality(excluded) - count(*) filter (where a.attname = any (excluded))
  into columns, missing
  from pg_attribute a
  where a.attrelid = (select t.typrelid from pg_type t where t.oid = pg_typeof(image_of))
    and a.attnum > 0 and not a.attisdropped;
  if missing > 0 then
    return null;
  end if;
  begin
    execute format('select row_to_json(r) from (select %s) r', columns) into whole using image_of;
    return whole;
  exception when undefined_column then
    -- The catalog as an old snapshot shows it is not the row's.
    return null;
  end;
end $$;
comment on function millrace.row_image(record, text[], text[]) is
  'A row as JSON, the way events and snapshots carry it: without the excluded columns, or with nothing but the included '
  'ones. Null when an excluded column is not there: it may have another name now, and would show.';

-- One column of a row, for images with escapes that the operators -> and ->> refuse. Null when there is no such column.
create function millrace.column_json(row_of record, column_name text) returns json
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  value json;
begin
  execute format('select coalesce(to_json(($1).%I), ''null'')', column_name) into value using row_of;
  return value;
exception when undefined_column then
  return null;
end $$;
comment on function millrace.column_json(record, text) is 'One column of a row as JSON. Part of capture.';

create function millrace.json_text(value json) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
begin
  return case left(value::text, 1) when '"' then value #>> '{}' when 'n' then null else value::text end;
end $$;
comment on function millrace.json_text(json) is 'A JSON value as plain text: a string without its quotes, null as null. Part of capture.';

create function millrace.topic_token(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
  bytes bytea;
begin
  if value is null then
    return '%null';
  elsif value = '' then
    return '%empty';
  elsif octet_length(value) > 255 then
    return '%long';
  elsif value collate "C" ~ '^[A-Za-z0-9_-]+$' then
    return value;
  end if;
  bytes := convert_to(value, 'UTF8');
  return (
    select string_agg(
      case when b > 127 then '%' || upper(to_hex(b)) when chr(b) ~ '[A-Za-z0-9_-]' collate "C" then chr(b)
           else '%' || lpad(upper(to_hex(b)), 2, '0') end, '' order by i)
    from generate_series(0, octet_length(bytes) - 1) i, get_byte(bytes, i) b);
end $$;
comment on function millrace.topic_token(text) is
  'A value as it stands in a topic: bytes of its UTF-8 outside A-Z a-z 0-9 _ - as %XX, and %null, %empty, %long (over 255 '
  'bytes) for what has no text of its own.';

create function millrace.transaction() returns text
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  select e.id || ':' || pg_current_xact_id() from millrace.epoch e order by e.first_tick desc limit 1
$$;
comment on function millrace.transaction() is
  'This transaction as epoch:xid8, for Subscribe''s after_transaction: a stream that opens with it has settled everything '
  'that this transaction wrote. Gives the transaction an id if it has none yet.';

create function millrace.emit(
  topic text, key text default null, payload json default null, headers json default null, operation text default 'MESSAGE'
) returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
#variable_conflict use_variable
declare
  source_name text;
begin
  if topic is null or octet_length(topic) > 255 or topic collate "C" !~ '^[A-Za-z0-9_%-]+([.][A-Za-z0-9_%-]+)*$' then
    raise exception 'topic % is not a dotted name of at most 255 bytes', coalesce(quote_literal(left(topic, 300)), 'null')
      using errcode = '22023', hint = 'Tokens of A-Z a-z 0-9 _ % - with dots between, for example orders.eu.';
  end if;
  if operation is null or operation not in ('MESSAGE', 'INSERT', 'UPDATE', 'DELETE') then
    raise exception 'operation % cannot be emitted', coalesce(quote_literal(operation), 'null')
      using errcode = '22023', hint = 'Use MESSAGE, INSERT, UPDATE or DELETE.';
  end if;
  if operation <> 'MESSAGE' and key is null then
    raise exception 'operation % needs a key', operation
      using errcode = '22023', hint = 'Give the key, or emit a MESSAGE.';
  end if;
  if octet_length(key) > 8192 then
    raise exception 'a key of % bytes is too long', octet_length(key)
      using errcode = '54000', hint = 'A key is at most 8192 bytes: hash what is longer.';
  end if;
  if octet_length(payload::text) > 67108864 then
    raise exception 'a payload of % bytes is too large', octet_length(payload::text)
      using errcode = '54000', hint = 'A payload is at most 64 MiB: store it elsewhere and emit where.';
  end if;
  if headers is not null and not millrace.are_headers(headers) then
    raise exception 'headers must be a JSON object of strings'
      using errcode = '22023', hint = 'At most 64 of them and 64 KiB together, for example {"source": "shop"}.';
  end if;
  select s.name into source_name from millrace.source s
  where s.topic = topic or topic collate "C" ~ s.topic_pattern limit 1;
  if source_name is not null then
    raise exception 'topic "%" belongs to the watched table %', topic, source_name
      using errcode = '42501', hint = 'Write to that table, or emit to a topic of your own.';
  end if;
  insert into millrace.outbox (topic, key, operation, before, after, headers)
  values (topic, key, left(operation, 1)::"char",
          case when operation = 'DELETE' then payload end, case when operation <> 'DELETE' then payload end, headers);
  return millrace.transaction();
end $$;
comment on function millrace.emit(text, text, json, json, text) is
  'Writes an event of the application''s own, in this transaction: it happens if and only if the transaction commits. '
  'Returns the transaction as epoch:xid8 (see millrace.transaction). Operation: MESSAGE, INSERT, UPDATE or DELETE, whose '
  'payload is the row before. Refused for topics of watched tables.';

create function millrace.are_headers(headers json) returns boolean
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  return json_typeof(headers) = 'object' and octet_length(headers::text) <= 65536
    and (select count(*) <= 64 and coalesce(bool_and(json_typeof(h.value) = 'string' and h.value #>> '{}' is not null), true)
         from json_each(headers) h);
exception when untranslatable_character or invalid_text_representation then
  return false;
end $$;
comment on function millrace.are_headers(json) is 'Whether this is a JSON object of strings that an event may carry as headers.';

-- Keys and topic values are read out of the image, by name and at run time: an expression over new.id would fail the
-- writer once the column has another name.
create function millrace.key_of(row_of record, image json, key_columns text[]) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  escapes constant boolean := strpos(image::text, chr(92) || 'u') > 0;
  single constant boolean := cardinality(key_columns) = 1;
  parts text[];
  part text;
  c text;
begin
  foreach c in array key_columns loop
    part := case
      when escapes and single then millrace.json_text(millrace.column_json(row_of, c))
      when escapes then nullif(millrace.column_json(row_of, c)::text, 'null')
      when single then image ->> c
      else nullif((image -> c)::text, 'null')
    end;
    if part is null then
      return null;
    end if;
    parts := parts || part;
  end loop;
  return case when single then part else '[' || array_to_string(parts, ',') || ']' end;
end $$;
comment on function millrace.key_of(record, json, text[]) is
  'The key of a row: the text of its only key column, or a JSON array of all of them. Null when one is missing.';

create function millrace.topic_of(row_of record, image json, template text, topic_columns text[]) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  escapes constant boolean := strpos(image::text, chr(92) || 'u') > 0;
  topic text := template;
  value json;
  plain text;
  c text;
begin
  foreach c in array topic_columns loop
    if escapes then
      value := millrace.column_json(row_of, c);
      plain := millrace.json_text(value);
    else
      value := image -> c;
      plain := image ->> c;
    end if;
    topic := replace(topic, '{' || c || '}', case when value is null then '%gone' else millrace.topic_token(plain) end);
  end loop;
  if octet_length(topic) > 255 then
    topic := template;
    foreach c in array topic_columns loop
      topic := replace(topic, '{' || c || '}', '%long');
    end loop;
  end if;
  return topic;
end $$;
comment on function millrace.topic_of(record, json, text, text[]) is
  'The topic of a row by its source''s template: see millrace.topic_token. %gone for a column that is not there any more.';

-- The part of a trigger function that finds image, key and topic of one side of a change: old or new.
create function millrace.capture_side(source millrace.source, side text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
  filtered constant boolean := source.included_columns is not null or cardinality(source.excluded_columns) > 0;
  code text;
begin
  code := case when filtered then format($code$
    %1$s_image := millrace.row_image(%1$s, %2$L, %3$L);
    if %1$s_image is null then
      %1$s_image := millrace.row_image(%1$s, '{}', %4$L);
      drift := 'an excluded column is gone: only key and topic columns are shown';
    end if;$code$, side, source.excluded_columns, source.included_columns, source.key_columns || source.topic_columns)
  else format($code$
    %1$s_image := row_to_json(%1$s);$code$, side) end;
  code := code || format($code$
    if octet_length(%1$s_image::text) > 67108864 then
      raise exception 'a row of %% is too large to capture: %% bytes of JSON', %2$L, octet_length(%1$s_image::text)
        using errcode = '54000', hint = 'At most 64 MiB: leave the large column out with millrace.watch(..., exclude => ...).';
    end if;$code$, side, source.name);
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
comment on function millrace.capture_side(millrace.source, text) is 'One side of a source''s trigger function. Part of capture.';

-- The text of one source's trigger function: plain PL/pgSQL, so that one can read with \sf what is captured and how.
create function millrace.capture_body(source millrace.source) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
  partitioned constant boolean := exists (select from pg_class c where c.oid = source.relid and c.relkind = 'p');
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
  if tg_relid <> %2$s%3$s then
    return null;
  end if;
  if tg_op = 'TRUNCATE' then
    insert into millrace.outbox (topic, operation, source_id) values (new_topic, 'T', %4$s);
    return null;
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
      ' and not exists (select from pg_partition_ancestors(tg_relid) a where a.relid = %s)', source.relid) else '' end,
    source.id, millrace.capture_side(source, 'old'), millrace.capture_side(source, 'new'),
    case when source.before_values then 'old_image' else 'null' end);
end $$;
comment on function millrace.capture_body(millrace.source) is 'The text of a source''s trigger function. Part of capture.';

revoke all on function millrace.row_image(record, text[], text[]), millrace.column_json(record, text),
  millrace.json_text(json), millrace.topic_token(text), millrace.transaction(),
  millrace.emit(text, text, json, json, text), millrace.are_headers(json), millrace.key_of(record, json, text[]),
  millrace.topic_of(record, json, text, text[]), millrace.capture_side(millrace.source, text), millrace.capture_body(millrace.source) from public;
