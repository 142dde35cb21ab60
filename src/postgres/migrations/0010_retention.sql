-- Retention: what is forgotten, when, and what keeps it.
--
-- Two steps that never depend on one another's luck. First ticks are deleted, oldest first: from then on their versions are
-- HISTORY_LOST, whether their rows still lie there or not. Then partitions are dropped, each only when it is proved, with
-- everybody locked out, that no row in it is needed by a tick that is kept. Nothing is deleted from the outbox row by row.
--
-- A batch is what its tick's snapshot sees and the one before did not; so of the ticks that are kept, the oldest is there
-- only to tell where the second one's batch begins, and its own versions are not readable.

create table millrace.retention (
  one boolean primary key default true check (one),
  keep_age interval default '7 days' check (keep_age >= interval '1 second'),
  keep_bytes bigint check (keep_bytes >= 1048576),
  hold_cap_age interval default '30 days' check (hold_cap_age >= interval '1 second'),
  hold_cap_bytes bigint check (hold_cap_bytes >= 1048576),
  first_tick bigint not null default 0,
  waits_for text,
  waits_since timestamptz
);
insert into millrace.retention default values;
comment on table millrace.retention is
  'One row: how long history is kept, for all servers alike. Whoever adds something that holds history back locks the row '
  'first, FOR SHARE: what is forgotten meanwhile would otherwise not have been asked for.';
comment on column millrace.retention.keep_age is 'Events are kept for this long after they settled, at least; null for ever.';
comment on column millrace.retention.keep_bytes is 'Oldest history goes while the outbox, indexes included, is larger; null for no limit.';
comment on column millrace.retention.hold_cap_age is 'What is older goes although something holds it back; null for no cap.';
comment on column millrace.retention.hold_cap_bytes is 'Held history goes nevertheless while the outbox is larger; null for no cap.';
comment on column millrace.retention.first_tick is 'There is no tick below it.';
comment on column millrace.retention.waits_for is 'Why what is due could not be done when it was last tried; null when it could.';
comment on column millrace.retention.waits_since is 'Since when.';

create table millrace.hold (
  name text primary key check (name <> '' and octet_length(name) <= 255),
  version bigint not null check (version >= 0),
  epoch uuid not null references millrace.epoch,
  expires_at timestamptz not null,
  created_by name not null default session_user,
  created_at timestamptz not null default clock_timestamp()
);
comment on table millrace.hold is 'Named claims on history: the events after version are kept until expires_at.';

create function millrace.held_back() returns table (kind text, name text, version bigint, expires_at timestamptz)
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  select 'hold', h.name, h.version, h.expires_at from millrace.hold h where h.expires_at > clock_timestamp()
$$;
comment on function millrace.held_back() is
  'Who holds history back: each needs the events after its version. The one place that retention asks.';

create function millrace.oldest_tick() returns millrace.tick
language sql volatile set search_path = pg_catalog, pg_temp as $$
  -- From first_tick on, and not from the index''s left end: what was deleted there may not have been vacuumed yet.
  select t from millrace.tick t where t.tick >= (select r.first_tick from millrace.retention r) order by t.tick limit 1
$$;
comment on function millrace.oldest_tick() is 'The oldest tick that is kept: the versions after it are readable.';

create function millrace.hold(name text, version bigint default null, expires_in interval default '1 day') returns millrace.hold
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  oldest millrace.tick;
  newest millrace.tick;
  held millrace.hold;
begin
  if hold.name is null or hold.name = '' or octet_length(hold.name) > 255 or expires_in is null or expires_in <= interval '0' then
    raise exception 'a hold needs a name of at most 255 bytes and a time to last'
      using errcode = '22023', hint = 'For example: select millrace.hold(''backfill'', expires_in => ''2 days'').';
  end if;
  perform millrace.assert_epoch();
  perform from millrace.retention for share;
  oldest := millrace.oldest_tick();
  select * into newest from millrace.tick order by tick desc limit 1;
  version := coalesce(hold.version, oldest.first_version + oldest.count - 1);
  if hold.version < oldest.first_version + oldest.count - 1 then
    raise exception 'version % is no longer kept: the oldest is %', hold.version + 1, oldest.first_version + oldest.count
      using errcode = '22023', hint = 'Hold what is there: leave the version out.';
  elsif hold.version > newest.first_version + newest.count - 1 then
    raise exception 'version % has not been settled: the last one is %', hold.version, newest.first_version + newest.count - 1
      using errcode = '22023', hint = 'Hold from the last version at most.';
  end if;
  insert into millrace.hold as h (name, version, epoch, expires_at)
  select hold.name, hold.version, e.id, clock_timestamp() + expires_in
  from millrace.epoch e order by e.first_tick desc limit 1
  on conflict (name) do update set version = excluded.version, epoch = excluded.epoch, expires_at = excluded.expires_at,
    created_by = excluded.created_by, created_at = excluded.created_at
  returning h.* into held;
  return held;
end $$;
comment on function millrace.hold(text, bigint, interval) is
  'Keeps the events after a version (default: all that are kept now) from being forgotten, for as long as expires_in says, '
  'up to the cap (see millrace.retain). Again with the same name to renew it or to move it on.';

create function millrace.release(name text) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  delete from millrace.hold h where h.name = release.name;
  return found;
end $$;
comment on function millrace.release(text) is 'Ends a hold. False when there was none of that name.';

create function millrace.retain(keep_age interval, keep_bytes bigint, hold_cap_age interval, hold_cap_bytes bigint)
returns millrace.retention
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  kept millrace.retention;
begin
  update millrace.retention r set keep_age = retain.keep_age, keep_bytes = retain.keep_bytes,
    hold_cap_age = retain.hold_cap_age, hold_cap_bytes = retain.hold_cap_bytes
  returning r.* into kept;
  return kept;
exception when check_violation then
  raise exception 'ages are of at least a second, sizes of at least 1 MiB' using errcode = '22023',
    hint = 'Or null, for no limit.';
end $$;
comment on function millrace.retain(interval, bigint, interval, bigint) is
  'Sets what is kept: events are forgotten once they are older than keep_age, or while the outbox is larger than keep_bytes, '
  'unless something holds them back, up to the caps. Null is no limit. For the owner.';

-- For partitions that the sequence has left: the tick that must become the oldest one for them to go. Only those that the
-- limits concern are searched, for that asks each some 25 times.
create function millrace.partition_cuts(aged bigint, all_of_them boolean)
returns table (relid oid, name text, lower_seq bigint, upper_seq bigint, bytes bigint, cut bigint)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  oldest constant millrace.tick := millrace.oldest_tick();
  newest millrace.tick;
  latest millrace.tick;
begin
  select * into newest from millrace.tick order by tick desc limit 1;
  if pg_snapshot_xmax(pg_current_snapshot()) < pg_snapshot_xmax(newest.snapshot) then
    raise exception 'transaction ids went back: tick % saw xid %', newest.tick, pg_snapshot_xmax(newest.snapshot)
      using errcode = 'MR003', hint = 'Start a new epoch here before anybody reads this feed.';
  end if;
  select * into latest from millrace.tick t where t.tick = case when all_of_them then newest.tick else aged end;
  for relid, name, lower_seq, upper_seq in
    select p.relid, p.name, p.lower_seq, p.upper_seq from millrace.partitions() p
    where not p.is_default and p.upper_seq - 1 <= millrace.drawn() order by p.lower_seq
  loop
    cut := null;
    if millrace.settled_by(relid, oldest) then
      cut := oldest.tick;
    elsif latest.tick > oldest.tick and millrace.settled_by(relid, latest) then
      cut := millrace.settling_tick(relid, oldest.tick, latest.tick);
    end if;
    if cut is not null then
      bytes := pg_total_relation_size(relid);
      return next;
    end if;
  end loop;
end $$;
comment on function millrace.partition_cuts(bigint, boolean) is 'Partitions that might go, and what would be forgotten. Part of prunable.';

create function millrace.prunable()
returns table (name text, lower_seq bigint, upper_seq bigint, bytes bigint, cut bigint, last_version bigint,
  settled_at timestamptz, reason text, held_by text, due boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
#variable_conflict use_column
declare
  oldest millrace.tick;
  s millrace.retention;
  h record;
  c record;
  total bigint;
  aged bigint;
  since constant timestamptz := clock_timestamp();
begin
  perform millrace.assert_epoch();
  -- Not while another forgets and drops what this looks at.
  lock table millrace.upkeep_lock in share row exclusive mode;
  oldest := millrace.oldest_tick();
  select * into strict s from millrace.retention;
  select * into h from millrace.held_back() b order by b.version, b.name limit 1;
  select sum(pg_total_relation_size(p.relid)) into total from millrace.partitions() p;
  select t.tick into aged from millrace.tick t where t.time <= since - s.keep_age order by t.time desc, t.tick desc limit 1;
  -- By what they cost, not by their place: a late commit may tie the oldest rows to a young tick.
  for c in
    select p.*, t.first_version + t.count - 1 as last_version, t.time
    from millrace.partition_cuts(aged, s.keep_bytes < total) p join millrace.tick t on t.tick = p.cut
    order by p.cut, p.lower_seq
  loop
    name := c.name;
    lower_seq := c.lower_seq;
    upper_seq := c.upper_seq;
    bytes := c.bytes;
    cut := c.cut;
    last_version := c.last_version;
    settled_at := c.time;
    held_by := case when c.last_version > h.version then h.kind || ' ' || h.name end;
    due := true;
    reason := case
      when c.cut = oldest.tick then 'forgotten'
      when c.time <= since - s.keep_age then 'age'
      when total > s.keep_bytes then 'bytes'
    end;
    if reason = 'forgotten' then
      held_by := null;
    elsif held_by is not null then
      due := coalesce(c.time <= since - greatest(s.hold_cap_age, s.keep_age), false) and s.hold_cap_age is not null
        or coalesce(total > greatest(s.hold_cap_bytes, s.keep_bytes), false) and s.hold_cap_bytes is not null;
    end if;
    continue when reason is null;
    if due then
      total := total - c.bytes;
    end if;
    return next;
  end loop;
end $$;
comment on function millrace.prunable() is
  'Partitions that are past a limit (reason: age or bytes; forgotten when nothing in them is readable any more), what is '
  'forgotten with them, and whether they are due, or held back; due although held_by: past the cap.';

-- Deletes ticks, oldest first and at most so many, as far as the partitions that are due allow it. Returns how many; call it
-- until there are none. The row of millrace.retention is locked: see there.
create function millrace.forget(most int) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $$
declare
  oldest millrace.tick;
  cut bigint;
  upto bigint;
begin
  if not millrace.upkeep_turn() then
    return 0;
  end if;
  oldest := millrace.oldest_tick();
  -- Without a trace as long as there is nothing to do: a row that is locked has the transaction take an id.
  if not exists (select from millrace.prunable() p where p.due and p.cut > oldest.tick)
    and not exists (select from millrace.hold h where h.expires_at <= clock_timestamp())
  then
    return 0;
  end if;
  perform from millrace.retention for update;
  delete from millrace.hold h where h.expires_at <= clock_timestamp();
  select max(p.cut) into cut from millrace.prunable() p where p.due;
  if cut is null or cut <= oldest.tick or most < 1 then
    return 0;
  end if;
  upto := least(cut, oldest.tick + most);
  -- The tick that becomes the oldest one must be there, whatever went before: with no tick at all there is no order.
  if not exists (select from millrace.tick t where t.tick = upto) then
    raise exception 'tick % is missing', upto using errcode = 'MR005',
      hint = 'Something changed millrace.tick from outside: restore it.';
  end if;
  delete from millrace.tick t where t.tick < upto and t.tick >= oldest.tick;
  update millrace.retention set first_tick = upto;
  return upto - oldest.tick;
end $$;
comment on function millrace.forget(int) is 'Forgets versions that are due: deletes at most so many ticks, and returns how many.';

-- Drops one partition, if no row in it is needed by a tick that is kept: all rows belong to the oldest tick, which is not
-- readable itself, or to earlier ones.
--
-- It is proved under ACCESS EXCLUSIVE, in a statement that begins once the lock is there. By then nobody has a row in flight:
-- whoever wrote to the outbox holds a lock on it until he has ended, prepared or not. So a transaction with an early seq that
-- committed while this one waited is seen, and keeps its partition. Before anybody is made to wait the same is asked without
-- the lock, which also has dead index entries marked: under the lock it takes a few probes. Where the last tick's floor had
-- passed the partition before that, no row can come (see millrace.settle), and the first answer stands.
--
-- Readers lock the outbox before they take the snapshot in which they look for ticks: so nobody has in hand a tick that was
-- deleted, and misses its rows.
--
-- Who reads the partition by its own name holds no lock on the outbox, and DROP would wait for him with everybody locked out:
-- hence a limit here as well.
create function millrace.drop_partition(lower_seq bigint) returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set lock_timeout = '200ms' set client_min_messages = warning as $$
declare
  p record;
  closed boolean;
begin
  if not millrace.upkeep_turn() then
    return 'busy';
  end if;
  select * into p from millrace.partitions() f where f.lower_seq = drop_partition.lower_seq and not f.is_default;
  if not found then
    return 'gone';
  end if;
  select p.upper_seq - 1 <= greatest(t.base_seq, t.floor_seq) into closed from millrace.tick t order by t.tick desc limit 1;
  if p.upper_seq - 1 > millrace.drawn() or not millrace.settled_by(p.relid, millrace.oldest_tick()) then
    return 'needed';
  end if;
  perform millrace.lock_partition(p.relid);
  perform millrace.lock_outbox('access exclusive');
  perform millrace.assert_epoch();
  if not closed and not millrace.settled_by(p.relid, millrace.oldest_tick()) then
    return 'needed';
  end if;
  execute format('drop table %s', p.relid::regclass);
  return 'dropped';
end $$;
comment on function millrace.drop_partition(bigint) is
  'Drops the partition that begins there if nothing in it is readable any more. Says what became of it: dropped, needed, '
  'gone, or busy when another is at it.';

-- Moves the sequence out of a partition that spans too much: what is in one partition goes together. An eighth of what is
-- kept, so that at most so much more than asked for lies there. Null when there is nothing to do, or it is another's turn;
-- else whether it is done.
create function millrace.rotate_outbox() returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  -- Wider than any that is made ahead: what was the default partition.
  widest constant bigint := 1073741824;
  share constant int := 8;
  s millrace.retention;
  p record;
  first record;
  target bigint;
  low millrace.tick;
  high millrace.tick;
  t millrace.tick;
begin
  if not millrace.upkeep_turn() then
    return null;
  end if;
  select * into p from millrace.partitions() f
  where not f.is_default and f.lower_seq <= millrace.drawn() + 1 and f.upper_seq > millrace.drawn() + 1;
  select min(f.lower_seq) into target from millrace.partitions() f where f.lower_seq >= p.upper_seq;
  if p.relid is null or target is null then
    return null;
  end if;
  if p.upper_seq - p.lower_seq > widest then
    return millrace.skip_to(target);
  end if;
  select * into strict s from millrace.retention;
  if pg_total_relation_size(p.relid) > s.keep_bytes / share then
    return millrace.skip_to(target);
  end if;
  if s.keep_age is null then
    return null;
  end if;
  execute format('select xid, seq from %s order by seq limit 1', p.relid::regclass) into first;
  select * into high from millrace.tick order by tick desc limit 1;
  if first.seq is null then
    return null;
  elsif first.seq > high.base_seq then
    low := millrace.oldest_tick();
    if not pg_visible_in_snapshot(first.xid, high.snapshot) then
      return null;
    end if;
    -- The tick that settled the partition's first row. Ticks of earlier epochs lie below all of this one's.
    while high.tick - low.tick > 1 loop
      select * into strict t from millrace.tick where tick = low.tick + (high.tick - low.tick) / 2;
      if t.base_seq = high.base_seq and pg_visible_in_snapshot(first.xid, t.snapshot) then
        high := t;
      else
        low := t;
      end if;
    end loop;
  end if;
  if high.time <= clock_timestamp() - s.keep_age / share then
    return millrace.skip_to(target);
  end if;
  return null;
end $$;
comment on function millrace.rotate_outbox() is 'Has events go to the next partition once one spans an eighth of what is kept.';

-- How wide the next partitions should be: a sixteenth of what is kept, by the rate of late.
create function millrace.partition_width() returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  share constant int := 16;
  s millrace.retention;
  oldest constant millrace.tick := millrace.oldest_tick();
  newest millrace.tick;
  early millrace.tick;
  seconds double precision;
  total bigint;
  by_age double precision;
  by_bytes double precision;
begin
  select * into strict s from millrace.retention;
  select * into newest from millrace.tick order by tick desc limit 1;
  if s.keep_age is not null then
    select * into early from millrace.tick t where t.time <= clock_timestamp() - s.keep_age / share
    order by t.time desc, t.tick desc limit 1;
    if early.tick is null then
      early := oldest;
    end if;
    seconds := greatest(extract(epoch from clock_timestamp() - early.time), 60);
    by_age := (newest.first_version + newest.count - early.first_version - early.count)
      * extract(epoch from s.keep_age / share)::double precision / seconds;
  end if;
  if s.keep_bytes is not null then
    select sum(pg_total_relation_size(p.relid)) into total from millrace.partitions() p;
    by_bytes := s.keep_bytes::double precision / share
      / greatest(total::double precision / greatest(newest.first_version + newest.count - oldest.first_version, 1), 200);
  end if;
  return least(greatest(coalesce(least(by_age, by_bytes), 16777216), 1048576), 268435456);
end $$;
comment on function millrace.partition_width() is 'Events per partition, so that some sixteen hold what is kept.';

create function millrace.note_upkeep(waits_for text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
begin
  update millrace.retention r
  set waits_for = left(note_upkeep.waits_for, 1000),
    waits_since = case when note_upkeep.waits_for is not null then coalesce(r.waits_since, clock_timestamp()) end
  where r.waits_for is distinct from left(note_upkeep.waits_for, 1000);
end $$;
comment on function millrace.note_upkeep(text) is 'Keeps, for everybody to see, what upkeep waits for. Part of the server.';

-- Deleted at one end and added to at the other: without this, a fifth of a large table is dead before anybody looks.
alter table millrace.tick set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000);

insert into millrace.permission (capability, function)
select 'server', unnest('{held_back,oldest_tick,hold,release,prunable,forget,drop_partition,rotate_outbox,partition_width,'
  'note_upkeep}'::name[]);

revoke all on function millrace.held_back(), millrace.oldest_tick(), millrace.hold(text, bigint, interval),
  millrace.release(text), millrace.retain(interval, bigint, interval, bigint), millrace.partition_cuts(bigint, boolean),
  millrace.prunable(), millrace.forget(int), millrace.drop_partition(bigint), millrace.rotate_outbox(),
  millrace.partition_width(), millrace.note_upkeep(text) from public;
