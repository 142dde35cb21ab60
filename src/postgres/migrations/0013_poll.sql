-- Polling: sources whose tables may have no triggers. A column that rises with every change (a number, a time of change)
-- says where to look; the transaction that wrote a row version says whether it was told. docs/decisions/0005-polling.md has
-- the argument and its limits. What is found goes to the outbox, and everything behind that is the same.
--
-- A row version is told once: when it is visible, its xid is at or above the horizon, and it is not among those remembered.
--  * The horizon is the xmin of a snapshot that was taken before the last complete look began: whatever is below it had ended,
--    so that look saw it. Whatever that look could not see was written by a transaction at or above it; so were those of its
--    rows that carry a subtransaction's id, which no snapshot shows (ids of subtransactions are above their parent's).
--  * What was told at or above the next horizon is remembered until the horizon has passed it.
-- So no clock decides what is new. The column only bounds how much is looked at: from the mark of `overlap` ago, and of before
-- the oldest transaction began that is still writing.

create table millrace.poll (
  source_id int primary key references millrace.source on delete cascade,
  column_name text not null,
  column_type text not null check (column_type in ('bigint', 'timestamp with time zone', 'timestamp without time zone')),
  deleted_column text,
  every interval not null check (every between interval '100 milliseconds' and interval '1 day'),
  overlap interval not null check (overlap between interval '0' and interval '1 day'),
  watcher name not null,
  epoch uuid not null,
  horizon bigint not null,
  horizon_at timestamptz not null default clock_timestamp(),
  round_horizon bigint,
  round_at timestamptz,
  round_low text,
  round_value text,
  round_keys text[],
  newest text,
  next_at timestamptz not null default clock_timestamp(),
  polled_at timestamptz not null default clock_timestamp(),
  failures int not null default 0,
  failing_since timestamptz,
  failure text
);
comment on table millrace.poll is 'Polled sources: how they are looked at and how far the last looks came. Locked by the server that polls.';
comment on column millrace.poll.source_id is 'The source.';
comment on column millrace.poll.column_name is 'The column that rises with every change.';
comment on column millrace.poll.column_type is 'What it is compared as.';
comment on column millrace.poll.deleted_column is 'True, or not null, in rows that are deleted softly; null for none.';
comment on column millrace.poll.every is 'Time between looks. Longer by itself where one takes more than a fifth of it.';
comment on column millrace.poll.overlap is 'How far before the newest value each look begins, as time that has passed since.';
comment on column millrace.poll.watcher is 'Who asked for it: he, the table''s owner and Millrace''s may change or end it.';
comment on column millrace.poll.epoch is 'The epoch whose transaction ids horizon and memory are of.';
comment on column millrace.poll.horizon is 'Row versions of transactions below it were looked at.';
comment on column millrace.poll.round_horizon is 'Becomes the horizon when the look that is under way has come to the end; null when none is.';
comment on column millrace.poll.horizon_at is 'When the last complete look began.';
comment on column millrace.poll.round_at is 'When the look that is under way began.';
comment on column millrace.poll.round_low is 'Where that look began: a value of the column, null for all rows.';
comment on column millrace.poll.round_value is 'The column of the last row that it told; null at its beginning.';
comment on column millrace.poll.round_keys is 'The key of that row, as texts.';
comment on column millrace.poll.newest is 'The highest value that was told, but none of the future; null when nothing was.';
comment on column millrace.poll.next_at is 'When to look next.';
comment on column millrace.poll.polled_at is 'When a look came to the end last.';
comment on column millrace.poll.failures is 'Looks that failed since one succeeded.';
comment on column millrace.poll.failing_since is 'When the first of them failed.';
comment on column millrace.poll.failure is 'Why the last one failed.';

create table millrace.poll_mark (
  source_id int not null references millrace.poll on delete cascade,
  at timestamptz not null,
  next_xid bigint not null,
  value text,
  primary key (source_id, at)
);
comment on table millrace.poll_mark is 'Newest values of polled columns, now and then: where later looks begin.';
comment on column millrace.poll_mark.source_id is 'The source.';
comment on column millrace.poll_mark.at is 'When this was the newest value.';
comment on column millrace.poll_mark.next_xid is 'No transaction had an id at or above it then.';
comment on column millrace.poll_mark.value is 'The value; null when nothing is known of it.';

create table millrace.poll_told (
  source_id int not null references millrace.poll on delete cascade,
  xid bigint not null,
  key_hash bigint not null,
  primary key (source_id, xid, key_hash)
);
comment on table millrace.poll_told is 'Row versions at or above the horizon that were told.';
comment on column millrace.poll_told.source_id is 'The source.';
comment on column millrace.poll_told.xid is 'Who wrote the version: of one key there is only one.';
comment on column millrace.poll_told.key_hash is 'Hash of the key columns'' texts.';

-- Each refusal protects from rows that would be missed, or from code of others that would run as the server: a view runs its
-- functions as whoever reads it.
create function millrace.assert_pollable(target regclass) returns void
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
    when t.relkind = 'v' then 'a view, whose functions would run as the server'
    when t.relkind = 'm' then 'a materialized view, which is written anew by each refresh'
    when t.relkind = 'f' then 'a foreign table, whose rows do not say which transaction wrote them'
    when t.relkind not in ('r', 'p') then 'not a table'
    when t.relpersistence = 't' then 'a temporary table'
    when t.relpersistence = 'u' then 'an unlogged table, which is empty after a crash'
    when (select a.amname from pg_am a where a.oid = t.relam) <> 'heap' then 'not stored as a heap'
    when exists (select from pg_partition_tree(t.oid) p join pg_class c on c.oid = p.relid
                 where c.relkind = 'f' or c.relpersistence <> 'p')
      then 'a table with a foreign or unlogged partition'
  end;
  if kind is not null then
    raise exception '% is %: it cannot be polled', target, kind
      using errcode = '42809', hint = 'Poll the ordinary or partitioned tables behind it.';
  end if;
end $$;
comment on function millrace.assert_pollable(regclass) is 'Raises, with what to do, for a table that cannot be polled.';

-- What a column is compared as: columns of few types, whose operators are Postgres' own.
create function millrace.poll_type(target regclass, column_name text, purpose text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  found_type regtype;
begin
  with recursive base(oid) as (
    select a.atttypid from pg_attribute a
    where a.attrelid = target and a.attname = column_name and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'
    union all
    select t.typbasetype from base join pg_type t on t.oid = base.oid where t.typtype = 'd'
  )
  select b.oid into found_type from base b join pg_type t on t.oid = b.oid where t.typtype <> 'd';
  if found_type is null then
    raise exception '% has no column % for %', target, coalesce(quote_ident(column_name), 'null'), purpose
      using errcode = '42703', hint = 'Name one that rows have, generated ones only if they are stored.';
  end if;
  if purpose = 'polling' and found_type in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) then
    return 'bigint';
  elsif found_type in ('timestamptz'::regtype, 'timestamp'::regtype)
      or purpose = 'deletion' and found_type in ('bool'::regtype, 'date'::regtype) then
    return found_type::text;
  end if;
  raise exception 'column % of % is of type %, which is not for %', quote_ident(column_name), target, found_type, purpose
    using errcode = '42804', hint = case purpose
      when 'polling' then 'It must be a smallint, integer, bigint, timestamptz or timestamp that rises with every change.'
      else 'It must be a boolean, or a timestamptz, timestamp or date that is null in rows that are there.' end;
end $$;
comment on function millrace.poll_type(regclass, text, text) is 'Type of the column that is polled, or says what is deleted. Raises for others.';

-- Row versions that a look might have to tell, as a query. Compares nothing but numbers, times and texts: operators,
-- casts and domains of a key's own type may be anybody's code. Keys are texts, in the order of their bytes.
--
-- An xmin has 32 bits: the nearest xid is meant that is not above xid_limit. A row that is older than 2^32 transactions may
-- so be taken for a new one, never the other way round.
create function millrace.poll_candidates(
  target regclass, column_name text, column_type text, deleted_column text, key_columns text[], low text, xid_limit bigint
) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
  keys constant text := (select string_agg(format('format(''%%s'', t.%I)', k), ', ' order by n) from unnest(key_columns) with ordinality u(k, n));
begin
  return format('select case when t.xmin::text::bigint < 3 then 0 else %1$s - ((%1$s - t.xmin::text::bigint) & 4294967295) end as xid, '
      't.%2$I as value, array[%3$s] as keys, %4$s as gone, t as whole from %5$s%6$s t where %7$s',
    xid_limit, column_name, keys,
    case when deleted_column is null then 'false'
      when millrace.poll_type(target, deleted_column, 'deletion') = 'boolean' then format('t.%I is true', deleted_column)
      else format('t.%I is not null', deleted_column) end,
    (select case c.relkind when 'p' then '' else 'only ' end from pg_class c where c.oid = target), target,
    case when low is null then format('t.%I is not null', column_name)
      else format('t.%I >= %L::%s', column_name, low, column_type) end);
end $$;
comment on function millrace.poll_candidates(regclass, text, text, text, text[], text, bigint) is 'The query behind each look at a polled table.';

-- The later of two values, but no later than now: a row of the year 2999 must not hide what comes before that. Without a
-- zone now is anywhere on earth.
create function millrace.poll_later(column_type text, a text, b text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO, YMD' as $$
begin
  return case column_type
    when 'bigint' then greatest(a::bigint, b::bigint)::text
    when 'timestamp with time zone' then least(greatest(a::timestamptz, b::timestamptz), clock_timestamp())::text
    else least(greatest(a::timestamp, b::timestamp), clock_timestamp() at time zone 'UTC' + interval '14 hours')::text end;
end $$;
comment on function millrace.poll_later(text, text, text) is 'The later of two values of a polled column. Part of polling.';

-- Where a look begins, given when and with which horizon the one before began: that one missed only what committed later. So
-- at the newest mark that was made when whoever commits later had not drawn his value: he was not writing yet, which his xid
-- says, and began to write less than overlap after he drew it. Back by an hour at most, for each look reads all that again.
create function millrace.poll_start(source int, overlap interval, horizon bigint, horizon_at timestamptz) returns millrace.poll_mark
language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce((
      select m from millrace.poll_mark m
      where m.source_id = source and m.at <= horizon_at - overlap
        and (m.next_xid <= horizon or m.at <= horizon_at - greatest(interval '1 hour', overlap))
      order by m.at desc limit 1),
    (select m from millrace.poll_mark m where m.source_id = source order by m.at limit 1))
$$;
comment on function millrace.poll_start(int, interval, bigint, timestamptz) is 'The mark that a look begins at. Part of polling.';

-- Locks the source's state for this transaction and begins a look unless one is under way. Null when it is not due or
-- another server is at it.
create function millrace.poll_claim(source int, expected_epoch uuid) returns millrace.poll
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  p millrace.poll;
begin
  perform millrace.assert_epoch(expected_epoch);
  select * into p from millrace.poll c
  where c.source_id = source and c.next_at <= clock_timestamp()
    and exists (select from millrace.source s where s.id = source and s.capture = 'poll') for update skip locked;
  if not found then
    return null;
  end if;
  if p.epoch <> expected_epoch then
    -- A restored dump has other transaction ids. What the column says stays true: from the last mark on all is told, some
    -- of it again.
    if exists (select from millrace.epoch e where not e.same_xids
               and e.first_tick > (select f.first_tick from millrace.epoch f where f.id = p.epoch)) then
      p.horizon := 0;
      delete from millrace.poll_told m where m.source_id = source;
      update millrace.poll_mark m set next_xid = 0 where m.source_id = source;
      p.round_horizon := null;
    end if;
    p.epoch := expected_epoch;
  end if;
  if p.round_horizon is null then
    p.round_at := clock_timestamp();
    p.round_horizon := pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
    p.round_low := (millrace.poll_start(source, p.overlap, p.horizon, p.horizon_at)).value;
    p.round_value := null;
    p.round_keys := null;
    update millrace.poll c set epoch = p.epoch, horizon = p.horizon, round_horizon = p.round_horizon,
      round_at = p.round_at, round_low = p.round_low, round_value = null, round_keys = null where c.source_id = source;
  end if;
  return p;
end $$;
comment on function millrace.poll_claim(int, uuid) is 'Takes a polled source for the rest of the transaction. Part of poll_batch.';

-- Writes what was found and how far that goes. `more`: the look is not at its end.
create function millrace.poll_write(
  source int, topics text[], keys text[], images json[], gone boolean[], xids bigint[], hashes bigint[],
  last_value text, last_keys text[], more boolean
) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  p millrace.poll;
  drawn constant bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
begin
  select c.* into strict p from millrace.poll c join millrace.source s on s.id = c.source_id and s.capture = 'poll'
  where c.source_id = source for update of c;
  -- Or a server could tell of a table that triggers watch.
  if exists (
    select from millrace.source s, unnest(topics) t(topic)
    where s.id = source and t.topic <> s.topic and (t.topic collate "C" ~ s.topic_pattern) is not true)
  then
    raise exception 'a polled table is told of on its own topic only'
      using errcode = '42501', hint = 'Call millrace.poll_batch.';
  end if;
  insert into millrace.outbox (topic, key, operation, after, source_id)
  select u.topic, u.key, case when u.gone then 'D' else 'U' end::"char", case when not u.gone then u.image end, source
  from unnest(topics, keys, images, gone) with ordinality u(topic, key, image, gone, n) order by u.n;
  insert into millrace.poll_told (source_id, xid, key_hash)
  select distinct source, u.xid, u.hash from unnest(xids, hashes) u(xid, hash) where u.xid >= p.round_horizon
  on conflict do nothing;
  last_value := coalesce(last_value, p.round_value);
  if last_value is not null then
    p.newest := millrace.poll_later(p.column_type, p.newest, last_value);
  end if;
  if more then
    update millrace.poll c set round_value = last_value, round_keys = last_keys, newest = p.newest,
      next_at = clock_timestamp(), failures = 0, failing_since = null, failure = null where c.source_id = source;
    return;
  end if;
  -- All that was seen is older than this moment: what is drawn later is above the mark.
  if not exists (select from millrace.poll_mark m where m.source_id = source and m.at > clock_timestamp() - p.overlap / 8) then
    insert into millrace.poll_mark (source_id, at, next_xid, value) values (source, clock_timestamp(), drawn, p.newest);
    delete from millrace.poll_mark m
    where m.source_id = source and m.at < (millrace.poll_start(source, p.overlap, p.round_horizon, p.round_at)).at;
  end if;
  delete from millrace.poll_told m where m.source_id = source and m.xid < p.round_horizon;
  update millrace.poll c set horizon = p.round_horizon, horizon_at = p.round_at, round_horizon = null, round_at = null, round_low = null, round_value = null,
    round_keys = null, newest = p.newest, polled_at = clock_timestamp(), failures = 0, failing_since = null, failure = null,
    next_at = clock_timestamp() + greatest(p.every, 4 * (clock_timestamp() - transaction_timestamp()))
  where c.source_id = source;
end $$;
comment on function millrace.poll_write(int, text[], text[], json[], boolean[], bigint[], bigint[], text, text[], boolean) is
  'Writes the events of one batch and how far the look has come. Part of poll_batch.';

create function millrace.poll_failed(source int, reason text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
begin
  update millrace.poll p set failures = p.failures + 1, failing_since = coalesce(p.failing_since, clock_timestamp()),
    failure = left(reason, 1000),
    next_at = clock_timestamp() + greatest(p.every, least(p.every * 2 ^ least(p.failures, 12), interval '1 minute'))
  where p.source_id = source;
end $$;
comment on function millrace.poll_failed(int, text) is 'Notes why a look failed; the next one is later and later, at most by a minute. Part of the server.';

create function millrace.is_unique(target oid, columns text[]) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
  select exists (
    select from pg_index i
    where i.indrelid = target and i.indisunique and i.indimmediate and i.indisvalid and i.indpred is null and i.indexprs is null
      and not exists (
        select from unnest(i.indkey::int2[]) with ordinality k(attnum, place)
        where k.place <= i.indnkeyatts and not exists (
          select from pg_attribute a where a.attrelid = target and a.attnum = k.attnum and a.attname = any (columns))))
$$;
comment on function millrace.is_unique(oid, text[]) is 'Whether no two rows are the same in these columns. Part of polling.';

-- One batch of one source, for a server: reads with the rights of whoever calls it, so that code of others (there should be
-- none) never runs as Millrace's owner, and writes through poll_write. Alone in a transaction that is READ COMMITTED: each
-- statement must see more than the horizon's snapshot did. `told` is null when it was not due, or not free.
create function millrace.poll_batch(
  source int, expected_epoch uuid, max_rows int default 5000, max_bytes bigint default 8388608, out told int, out more boolean
) language plpgsql volatile set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set bytea_output = 'hex'
set extra_float_digits = 1 set lc_monetary = 'C' set quote_all_identifiers = off set standard_conforming_strings = on
set row_security = off set jit = off set max_parallel_workers_per_gather = 0 as $$
declare
  s millrace.source;
  p millrace.poll;
  r record;
  topics text[] := '{}';
  keys text[] := '{}';
  images json[] := '{}';
  gone boolean[] := '{}';
  xids bigint[] := '{}';
  hashes bigint[] := '{}';
  bytes bigint := 0;
  escape constant text := chr(92) || 'u';
  expression record;
  last_value text;
  last_keys text[];
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'poll_batch() needs a transaction that is READ COMMITTED'
      using errcode = 'MR004', hint = 'begin isolation level read committed';
  end if;
  p := millrace.poll_claim(source, expected_epoch);
  if p.source_id is null then
    return;
  end if;
  told := 0;
  more := false;
  select * into strict s from millrace.source c where c.id = source;
  -- What the name means is settled by the lock: nobody can put a view in the table's place while it is held.
  perform millrace.lock_polled(s.relid);
  perform millrace.assert_pollable(s.relid);
  perform millrace.assert_columns(s.relid, 'events', s.key_columns || s.topic_columns || s.excluded_columns);
  if millrace.poll_type(s.relid, p.column_name, 'polling') <> p.column_type then
    raise exception 'column % of % has another type now', p.column_name, s.name
      using errcode = '42804', hint = 'Watch it again.';
  end if;
  select e.image, e.guard into expression from millrace.image_expression(s, '(v.whole)') e;
  for r in execute format(
    'select v.xid, format(''%%s'', v.value) as value, v.keys, hashtextextended(v.keys::text, 0) as hash, v.gone, v.whole, '
      'case when %s then %s else millrace.row_image(v.whole, %L::text[], %L::text[]) end as image from (select v.* from (%s) v where v.xid >= %s '
      'and not exists (select from millrace.poll_told m where m.source_id = %s and m.xid = v.xid '
      'and m.key_hash = hashtextextended(v.keys::text, 0)) %s '
      'order by v.value, v.keys collate "C" %s) v',
    coalesce(expression.guard, 'true'), expression.image, s.excluded_columns, s.included_columns,
    millrace.poll_candidates(s.relid, p.column_name, p.column_type, p.deleted_column, s.key_columns,
      coalesce(p.round_value, p.round_low), pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1048576),
    p.horizon, source,
    case when p.round_value is not null then
      format('and (v.value, v.keys collate "C") > (%L::%s, %L::text[])', p.round_value, p.column_type, p.round_keys) end,
    -- LIMIT sorts no more than that many; rows that nothing tells apart must come together, or some would be passed over.
    case when millrace.is_unique(s.relid, s.key_columns) then format('limit %s', max_rows)
      else format('fetch first %s rows with ties', max_rows) end)
  loop
    -- Not between rows that nothing tells apart: the next batch begins after them.
    more := (bytes >= max_bytes or told >= max_rows) and (r.value, r.keys) is distinct from (last_value, last_keys);
    exit when more;
    if r.image is null or octet_length(r.image::text) > 67108864 then
      raise exception 'a row of % is too large to capture: % bytes of JSON', s.name, octet_length(r.image::text)
        using errcode = '54000', hint = 'At most 64 MiB: leave the large column out of events.';
    end if;
    told := told + 1;
    topics := topics || case when s.topic_columns = '{}' then s.topic
      else millrace.topic_of(r.whole, r.image, s.topic, s.topic_columns) end;
    keys := keys || case when cardinality(s.key_columns) = 1 and strpos(r.image::text, escape) = 0 then r.image ->> s.key_columns[1]
      else millrace.key_of(r.whole, r.image, s.key_columns) end;
    images := images || r.image;
    gone := gone || r.gone;
    xids := xids || r.xid;
    hashes := hashes || r.hash;
    bytes := bytes + octet_length(r.image::text);
    last_value := r.value;
    last_keys := r.keys;
  end loop;
  more := more or told >= max_rows;
  perform millrace.poll_write(source, topics, keys, images, gone, xids, hashes, last_value, last_keys, more);
end $$;
comment on function millrace.poll_batch(int, uuid, int, bigint) is
  'Tells, of one polled source, what has become visible since it was told last: at most so many rows, and no more once so '
  'many bytes are passed. `more`: call it again. What a server calls from time to time.';

-- Once a name leads to the table after it was locked by that name, it does so for as long as the lock is held.
create function millrace.lock_polled(target regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
declare
  called constant text := target::text;
begin
  if not exists (select from pg_class c where c.oid = target) then
    raise exception 'there is no table with oid %', target::oid using errcode = '42P01', hint = 'Unwatch it.';
  end if;
  execute format('lock table %s in access share mode', called);
  if to_regclass(called) is distinct from target then
    raise exception '% was renamed meanwhile', called using errcode = '55000', hint = 'Try again.';
  end if;
exception when lock_not_available then
  raise exception 'could not lock % within 1 s: % in the way', called, millrace.lock_holders(target, '{AccessExclusiveLock}')
    using errcode = '55P03', hint = 'Wait for that transaction or end it, then try again.';
end $$;
comment on function millrace.lock_polled(regclass) is 'Locks a table against DDL, which takes SELECT. Part of polling.';

insert into millrace.permission (capability, function)
select 'server', unnest('{poll_batch,poll_claim,poll_write,poll_failed,poll_candidates,poll_type,assert_pollable,'
  'is_unique,lock_polled,lock_holders,assert_columns,image_columns}'::name[]);

revoke all on function millrace.assert_pollable(regclass), millrace.poll_type(regclass, text, text),
  millrace.poll_candidates(regclass, text, text, text, text[], text, bigint), millrace.poll_later(text, text, text),
  millrace.poll_start(int, interval, bigint, timestamptz), millrace.poll_claim(int, uuid),
  millrace.poll_write(int, text[], text[], json[], boolean[], bigint[], bigint[], text, text[], boolean),
  millrace.poll_failed(int, text), millrace.poll_batch(int, uuid, int, bigint), millrace.lock_polled(regclass), millrace.is_unique(oid, text[]) from public;
