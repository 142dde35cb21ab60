-- The tick: what decides the order of events, once and for good, without ever asking a writer to wait.
--
-- A tick is a row that holds a snapshot. Batch k is what snapshot k sees and snapshot k-1 did not, ordered by seq; the
-- version of an event is its batch's first version plus its rank. Snapshots of one server only grow: what a snapshot sees,
-- each later one sees. So every committed event is in exactly one batch, what has not committed is in none, and no late
-- commit, however early its seq and its xid, can appear at or below a version that is already given.

-- Raises unless this is the server, and the stretch of its life, that the epoch in force was written by: a restored copy
-- has the old ticks and new xids, and would lose rows in silence. Poolers swap servers between transactions, so every tick
-- and every read asks again; it costs 10 us.
create function millrace.assert_epoch(expected uuid default null) returns uuid
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  e millrace.epoch;
begin
  -- First: a standby cannot say its WAL position, and its snapshots are not the primary's.
  if pg_is_in_recovery() then
    raise exception 'this server is in recovery' using errcode = 'MR002',
      hint = 'Point Millrace at the primary.';
  end if;
  select * into e from millrace.epoch order by first_tick desc limit 1;
  if expected is not null and e.id <> expected then
    raise exception 'the epoch in force is %, not %', e.id, expected using errcode = 'MR001',
      hint = 'Restart Millrace, so that it serves the new epoch.';
  end if;
  -- The timeline comes from the WAL position: the control file's is stale for minutes after a promotion.
  if e.system_identifier <> (select c.system_identifier from pg_control_system() c)
    or e.database_oid <> (select d.oid from pg_database d where d.datname = current_database())
    or e.timeline <> ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
    or e.outbox_oid <> 'millrace.outbox'::regclass
  then
    raise exception 'this database is a copy: epoch % was written by another server, on another timeline, or before a dump was restored', e.id
      using errcode = 'MR003', hint = 'Start a new epoch here before anybody reads this feed.';
  end if;
  return e.id;
end
$$;
revoke all on function millrace.assert_epoch(uuid) from public;

-- The xids that one snapshot sees and an earlier one did not, as open intervals; some of them may never have existed.
--
-- They are what the earlier one had not reached (its xmax and above) and what it had seen in progress (its xip), less what
-- is still in progress. Leaving that out matters: a transaction in progress may own half a million rows, all invisible,
-- and reading them again in every tick costs 45 ms. So new xids come as the gaps between those still in progress, and old
-- ones singly, when they have ended.
--
-- Without a SET clause, so that the planner inlines it; its callers pin the search path.
create function millrace.new_xids(earlier pg_snapshot, later pg_snapshot) returns table (low xid8, high xid8)
language sql stable
as $$
  select x, lead(x) over (order by x)
  from (
    select (pg_snapshot_xmax(earlier)::text::bigint - 1)::text::xid8 as x
    union all select i from pg_snapshot_xip(later) i where i >= pg_snapshot_xmax(earlier)
    union all select pg_snapshot_xmax(later)
  ) bound
  union all
  select (i::text::bigint - 1)::text::xid8, (i::text::bigint + 1)::text::xid8
  from pg_snapshot_xip(earlier) i
  where pg_visible_in_snapshot(i, later)
$$;
revoke all on function millrace.new_xids(pg_snapshot, pg_snapshot) from public;

-- Inserts the next tick row: the one statement that everything rests on. Called by tick() and snapshot_tick(), which hold
-- tick_lock; by nobody else.
--
-- Which rows are new: those of the xids that the last snapshot did not see and this one does. A row's xid is its top-level
-- transaction's, and heap visibility leaves only the committed ones, so savepoints, rollbacks and prepared transactions
-- need no care.
--
-- floor_seq prunes partitions: a cached plan's Append drops at run time those that lie below it. It must hold that no row
-- at or below it will ever be new. last_value = L is read before this tick's transaction has an xid; its xid T is assigned
-- later. Whoever drew a seq <= L had an xid when it drew (a column default before the seq's), so that xid is < T. When the
-- snapshot of a tick has xmin > T, all of those had ended in it, so the tick has settled those that committed: from the
-- next tick on L is a floor. (The snapshot's own xmax will not do for T: it is one above the last *ended* xid, and a
-- transaction beyond it may be in progress with a seq in hand.) A candidate stays until it ripens, or it never would under
-- transactions that always overlap. A tick that finds nothing writes nothing, except when that moves the floor far: or a
-- long transaction's end, followed by silence, would leave many partitions to be probed for ever.
--
-- The planner is told what not to try: generic plans know nothing about xid, and the wrong index costs seconds.
create function millrace.settle(always boolean, out settled millrace.tick)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off set enable_indexscan = on
set enable_partition_pruning = on set jit = off set max_parallel_workers_per_gather = 0
as $$
declare
  p millrace.tick;
  floor bigint;
  ripe_step constant bigint := 1000000;
  drawn bigint;
begin
  select * into strict p from millrace.tick order by tick desc limit 1;
  floor := greatest(p.base_seq, p.floor_seq);
  -- Before the xid is assigned, and before the snapshot of the insert is taken.
  select case when is_called then last_value else last_value - 1 end into drawn from millrace.outbox_seq;

  insert into millrace.tick as t (tick, snapshot, first_version, count, min_seq, max_seq, base_seq,
    floor_seq, next_floor_seq, next_floor_xid, time)
  select p.tick + 1, pg_current_snapshot(), p.first_version + p.count, new.count, new.min_seq, new.max_seq, p.base_seq,
    case when ripe.now then p.next_floor_seq else p.floor_seq end,
    case when ripe.now then drawn else p.next_floor_seq end,
    case when ripe.now then pg_current_xact_id() else p.next_floor_xid end,
    greatest(p.time, clock_timestamp())
  from (
      select count(*) as count, min(seq) as min_seq, max(seq) as max_seq
      -- OFFSET 0 keeps it a probe per range: as a plain join the planner may read the whole table into memory instead.
      from millrace.new_xids(p.snapshot, pg_current_snapshot()) x,
        lateral (select seq from millrace.outbox where xid > x.low and xid < x.high and seq > floor offset 0) o
    ) new,
    (select pg_snapshot_xmin(pg_current_snapshot()) > p.next_floor_xid as now) ripe
  where always or new.count > 0 or (ripe.now and p.next_floor_seq - p.floor_seq >= ripe_step)
  returning t.* into settled;

  if settled.tick is null then
    -- xids that go backwards: an older copy of the data under newer ticks.
    if pg_snapshot_xmax(pg_current_snapshot()) < pg_snapshot_xmax(p.snapshot) then
      raise exception 'transaction ids went back: tick % saw xid %', p.tick, pg_snapshot_xmax(p.snapshot)
        using errcode = 'MR003', hint = 'Start a new epoch here before anybody reads this feed.';
    end if;
    settled := p;
    return;
  end if;
  if pg_snapshot_xmax(settled.snapshot) < pg_snapshot_xmax(p.snapshot) then
    raise exception 'transaction ids went back: tick % saw xid %', p.tick, pg_snapshot_xmax(p.snapshot)
      using errcode = 'MR003', hint = 'Start a new epoch here before anybody reads this feed.';
  end if;
  -- A full queue fails the commit: better that the others find out by polling.
  if settled.count > 0 and pg_notification_queue_usage() < 0.5 then
    perform pg_notify('millrace_tick', settled.tick::text);
  end if;
end
$$;
revoke all on function millrace.settle(boolean) from public;

-- Settles what has committed since the last tick. Returns the last tick there is, a new one or not.
--
-- It must be alone in its transaction, and the whole transaction must be one message to the server (see
-- statements/tick.ts): a client that freezes between two messages would hold the lock, and with it everybody's feed. The
-- checks below refuse what would break the order rather than the speed:
--  - READ COMMITTED, because statements after the lock must take new snapshots. One taken before the lock may be older
--    than the last tick's.
--  - no xid yet, because floor_seq's argument needs the xid to be younger than the sequence's value.
--  - synchronous_commit, because a version that was handed out must survive a crash; then so do the writers' commits
--    below it, whatever their own setting, for their WAL comes earlier. A SET clause here would be undone before COMMIT.
create function millrace.tick(expected_epoch uuid default null, out tick bigint, out head bigint)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  t millrace.tick;
begin
  if current_setting('transaction_isolation') <> 'read committed'
    or current_setting('synchronous_commit') <> 'on'
    or pg_current_xact_id_if_assigned() is not null
  then
    raise exception 'tick() must be alone in a transaction that is READ COMMITTED with synchronous_commit on'
      using errcode = 'MR004',
      hint = 'begin isolation level read committed; set local synchronous_commit = on; select * from millrace.tick(); commit';
  end if;
  lock table millrace.tick_lock in share row exclusive mode;
  perform millrace.assert_epoch(expected_epoch);
  t := millrace.settle(false);
  tick := t.tick;
  head := t.first_version + t.count - 1;
end
$$;
revoke all on function millrace.tick(uuid) from public;

-- The tick at exactly the snapshot of the calling REPEATABLE READ transaction, written even when it is empty: a table
-- copied in that snapshot is the table as of this tick's last version.
--
-- The caller's first statement must be LOCK TABLE millrace.tick_lock IN SHARE ROW EXCLUSIVE MODE, which takes no snapshot;
-- the transaction's snapshot is then younger than the last tick. Should a caller get that wrong, another tick may have
-- come in between: this one then collides with its number, and fails.
create function millrace.snapshot_tick(expected_epoch uuid default null) returns millrace.tick
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') <> 'repeatable read'
    or current_setting('synchronous_commit') <> 'on'
    or pg_current_xact_id_if_assigned() is not null
  then
    raise exception 'snapshot_tick() must be the first write of a transaction that is REPEATABLE READ with synchronous_commit on'
      using errcode = 'MR004',
      hint = 'begin isolation level repeatable read; set local synchronous_commit = on; lock table millrace.tick_lock in share row exclusive mode; select * from millrace.snapshot_tick()';
  end if;
  lock table millrace.tick_lock in share row exclusive mode;
  perform millrace.assert_epoch(expected_epoch);
  return millrace.settle(true);
end
$$;
revoke all on function millrace.snapshot_tick(uuid) from public;

-- The events after a tick boundary, in order, as the tail wants them: few, at once, by cached plans. At most max_rows, and
-- no more once max_bytes have been passed; the last tick may be cut. Nothing when after_version is the head or beyond, or
-- is no boundary, or its successor is no longer kept: the page reader (src/postgres/page.ts) tells which.
-- tick_row, on the first event of each tick: tick:first_version:count:microseconds:snapshot.
create function millrace.tail(expected_epoch uuid, after_version bigint, max_rows int, max_bytes bigint)
returns table (tick_row text, seq bigint, xid xid8, topic text, key text, operation "char",
  before json, after json, headers json, occurred_at bigint)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off set enable_indexscan = on
set enable_partition_pruning = on set jit = off set max_parallel_workers_per_gather = 0
as $$
#variable_conflict use_column
declare
  t record;
  batch refcursor;
  wanted bigint := after_version + 1;
  rows_left int := max_rows;
  bytes_left bigint := max_bytes;
  missing bigint;
  micros timestamptz;
begin
  perform from millrace.epoch e where e.id <> expected_epoch
    and e.first_tick > (select f.first_tick from millrace.epoch f where f.id = expected_epoch);
  if found then
    raise exception 'epoch % is over', expected_epoch using errcode = 'MR001',
      hint = 'Restart Millrace, so that it serves the new epoch.';
  end if;
  for t in
    select b.tick, b.first_version, b.count, b.snapshot, a.snapshot as previous, b.min_seq, b.max_seq,
      concat_ws(':', b.tick, b.first_version, b.count, (extract(epoch from b.time) * 1000000)::bigint, b.snapshot) as text
    from millrace.tick b join millrace.tick a on a.tick = b.tick - 1
    where b.first_version > after_version and b.count > 0
    order by b.first_version, b.tick limit 200
  loop
    exit when t.first_version <> wanted;
    wanted := wanted + t.count;
    tick_row := t.text;
    missing := t.count;
    -- Dense: nearly every row of the range is the batch's. Otherwise a transaction committed late, and its rows lie among
    -- a great many others: by xid, exactly as the tick found them.
    if t.max_seq - t.min_seq < 4 * t.count then
      open batch for
        select o.seq, o.xid, o.topic, o.key, o.operation, o.before, o.after, o.headers, o.occurred_at
        from millrace.outbox o
        where o.seq between t.min_seq and t.max_seq
          and pg_visible_in_snapshot(o.xid, t.snapshot) and not pg_visible_in_snapshot(o.xid, t.previous)
        order by o.seq limit rows_left;
    else
      open batch for
        select o.seq, o.xid, o.topic, o.key, o.operation, o.before, o.after, o.headers, o.occurred_at
        from millrace.new_xids(t.previous, t.snapshot) x,
          lateral (select * from millrace.outbox o where o.xid > x.low and o.xid < x.high
            and o.seq between t.min_seq and t.max_seq offset 0) o
        order by o.seq limit rows_left;
    end if;
    loop
      fetch batch into seq, xid, topic, key, operation, before, after, headers, micros;
      exit when not found;
      occurred_at := (extract(epoch from micros) * 1000000)::bigint;
      return next;
      tick_row := null;
      rows_left := rows_left - 1;
      missing := missing - 1;
      bytes_left := bytes_left - coalesce(octet_length(before::text), 0) - coalesce(octet_length(after::text), 0)
        - coalesce(octet_length(headers::text), 0);
      exit when bytes_left <= 0;
    end loop;
    close batch;
    exit when rows_left <= 0 or bytes_left <= 0;
    if missing <> 0 then
      raise exception 'tick % settled % events and has % now', t.tick, t.count, t.count - missing using errcode = 'MR005',
        hint = 'Something changed millrace.outbox from outside: restore it.';
    end if;
  end loop;
end
$$;
revoke all on function millrace.tail(uuid, bigint, int, bigint) from public;

-- "Somebody sleeps" is an advisory lock: the waiter holds it exclusively, on a session of its own. The outbox's oid is its
-- key, so that it collides with no other user of advisory locks.
--
-- Wakes the waiter, only when one sleeps: NOTIFY in every transaction costs writers more than half of their throughput,
-- because all commits that notify queue for one lock. While Millrace is awake, the shared lock is there for the taking and
-- nothing happens. A hint: when two sleep, or the sleeper has just died, it goes astray, and polling finds the event.
--
-- Each condition is asked only if it must be. Never where NOTIFY would fail the writer: PREPARE TRANSACTION refuses it
-- (whoever allows prepared transactions gets polling), and a full queue fails the commit.
--
-- It runs in every statement that writes, as the writer and without a SET clause: definer's rights and a pinned search path
-- cost more than all it does. It needs neither, for every name in it is qualified.
create function millrace.wake_waiter() returns trigger
language plpgsql volatile
as $$
begin
  if pg_catalog.current_setting('max_prepared_transactions') operator(pg_catalog.=) '0'
    and not pg_catalog.pg_try_advisory_xact_lock_shared(tg_relid::pg_catalog.int4, 1)
    and pg_catalog.pg_notification_queue_usage() operator(pg_catalog.<) 0.5::pg_catalog.float8
  then
    perform pg_catalog.pg_notify('millrace_wake', '');
  end if;
  return null;
end
$$;
revoke all on function millrace.wake_waiter() from public;

create trigger wake_waiter after insert on millrace.outbox
  for each statement execute function millrace.wake_waiter();
alter table millrace.outbox enable always trigger wake_waiter;
