-- Epochs: what happens when the database turns out to be another one than the feed was written by. See
-- docs/decisions/0003-epochs.md.
--
-- Two kinds of copy. In one, transaction ids mean what they meant: a promoted standby, recovery to a point in time, CREATE
-- DATABASE ... TEMPLATE, the files of an older day, pg_upgrade. There the ticks' snapshots stay good, and a new epoch is one
-- row. In the other, a dump that was restored, every row has the transaction id that it had elsewhere, while new ones count
-- on from anywhere. There the feed needs a seam: a tick whose batch is told by seq and not by snapshots.

alter table millrace.epoch
  add column reason text not null default 'created'
    check (reason in ('created', 'restored', 'promoted', 'copied', 'upgraded', 'rolled_back')),
  add column same_xids boolean not null default true,
  add column unsettled bigint,
  add column begun_by name;
comment on column millrace.epoch.id is 'What cursors name.';
comment on column millrace.epoch.parent is 'The epoch that was in force before; null for the first.';
comment on column millrace.epoch.fork_version is 'The last version that the parent and this epoch share.';
comment on column millrace.epoch.first_tick is 'The first tick of this epoch; the epoch with the newest is in force.';
comment on column millrace.epoch.system_identifier is 'Of the cluster, from its control file.';
comment on column millrace.epoch.database_oid is 'Of the database.';
comment on column millrace.epoch.timeline is 'Of the write-ahead log when the epoch began.';
comment on column millrace.epoch.outbox_oid is 'Of the table millrace.outbox: a restored dump makes it anew.';
comment on column millrace.epoch.created_at is 'When it began, by the database''s clock.';
comment on column millrace.epoch.reason is
  'created by the first migration; restored from a dump; promoted from a standby or recovered to a point in time; copied by '
  'CREATE DATABASE ... TEMPLATE; upgraded by pg_upgrade; rolled_back to older files of the same server.';
comment on column millrace.epoch.same_xids is
  'Whether transaction ids mean what they meant in the parent. False after a dump was restored: the first tick is a seam.';
comment on column millrace.epoch.unsettled is
  'Committed events that no tick had settled when the dump was restored, and that the seam settled. Null when same_xids.';
comment on column millrace.epoch.begun_by is 'The role that was logged in. Null for the first.';

alter table millrace.tick
  add column seam_seq bigint,
  add column early_seqs bigint[];
comment on column millrace.tick.seam_seq is
  'Of the first tick after a dump was restored: its batch is every row above this seq and up to max_seq, and those of '
  'early_seqs, whatever their xids. Null for all other ticks.';
comment on column millrace.tick.early_seqs is 'Of a seam: rows at or below seam_seq that no earlier tick had settled.';

alter table millrace.publication add column epoch uuid;
comment on column millrace.publication.epoch is 'The epoch that xid belongs to; null for the first.';

-- All of a copy's identity may be the same by chance: of clusters that began as copies of one directory, the system identifier
-- and, when the same was done in both, every oid. So one row tells by whom it was written: a file keeps that, frozen or not, and
-- a dump writes the row anew.
create table millrace.origin (
  one boolean primary key default true check (one),
  xid bigint not null
);
comment on table millrace.origin is
  'One row, which tells the tables in which it was written from those into which it was restored. Never rewrite this table.';
comment on column millrace.origin.one is 'There is one row.';
comment on column millrace.origin.xid is 'The lower 32 bits of the id of the transaction that wrote this row.';

create function millrace.sign_origin() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  delete from millrace.origin;
  insert into millrace.origin (xid) values (0);
  -- Of a subtransaction, if that is where this runs.
  update millrace.origin o set xid = o.xmin::text::bigint;
end $$;
comment on function millrace.sign_origin() is 'Makes these tables the ones that the feed is written in. Part of begin_epoch.';
select millrace.sign_origin();

create function millrace.is_origin() returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
  select exists (select from millrace.origin o where o.xid = o.xmin::text::bigint)
$$;
comment on function millrace.is_origin() is 'Whether these tables are the ones that the feed was written in, and no dump was restored into them.';

create function millrace.identity(out system_identifier bigint, out database_oid oid, out timeline int, out outbox_oid oid)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  -- The timeline comes from the WAL position: the control file's is stale for minutes after a promotion.
  select c.system_identifier, d.oid, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int,
    'millrace.outbox'::regclass::oid
  from pg_control_system() c, pg_database d where d.datname = current_database()
$$;
comment on function millrace.identity() is 'What tells this database from its copies. Not on a standby.';

create function millrace.epoch_in_force() returns millrace.epoch
language sql stable set search_path = pg_catalog, pg_temp as $$
  select e from millrace.epoch e order by e.first_tick desc limit 1
$$;
comment on function millrace.epoch_in_force() is 'The newest epoch.';

create or replace function millrace.assert_epoch(expected uuid default null) returns uuid
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  e millrace.epoch;
  here record;
begin
  -- First: a standby cannot say its WAL position, and its snapshots are not the primary's.
  if pg_is_in_recovery() then
    raise exception 'this server is in recovery' using errcode = 'MR002',
      hint = 'Point Millrace at the primary.';
  end if;
  select * into e from millrace.epoch order by first_tick desc limit 1;
  if expected is not null and e.id <> expected then
    raise exception 'the epoch in force is %, not %', e.id, expected using errcode = 'MR001',
      hint = 'Open the feed again, so that it serves the new epoch.';
  end if;
  -- As millrace.identity() says, without the call: this is asked 500 times a second.
  if e.system_identifier <> (select c.system_identifier from pg_control_system() c)
    or e.database_oid <> (select d.oid from pg_database d where d.datname = current_database())
    or e.timeline <> ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
    or e.outbox_oid <> 'millrace.outbox'::regclass
    or not exists (select from millrace.origin o where o.xid = o.xmin::text::bigint)
  then
    select * into here from millrace.identity();
    raise exception 'this database is a copy: epoch % was written by another server, on another timeline, or before a dump was restored', e.id
      using errcode = 'MR003',
        detail = format('It was written by server %s, timeline %s, database %s, table %s; here are %s, %s, %s, %s.',
          e.system_identifier, e.timeline, e.database_oid, e.outbox_oid,
          here.system_identifier, here.timeline, here.database_oid, here.outbox_oid),
        hint = 'A Millrace server begins a new epoch by itself unless it was told not to; by hand: select millrace.begin_epoch(). '
          '`millrace doctor` explains.';
  end if;
  return e.id;
end
$$;

-- Whether the ticks of the epoch in force were written in the present space of transaction ids. Each tick's row proves it:
-- the transaction that wrote it has an id that its own snapshot had not reached, and that the next tick's snapshot sees. The
-- rows of a dump have the id of whoever restored them. "No" is always safe: a seam then does what would not have been needed.
--
-- A row's xmin has 32 bits. What the snapshot had not reached, and is nearest to it, is meant. The first tick is left out:
-- the migration that wrote it had its id before the snapshot.
create function millrace.has_same_xids(e millrace.epoch) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  here record;
  since bigint;
  fits boolean;
  last_batch millrace.tick;
begin
  select * into here from millrace.identity();
  select coalesce(max(s.first_tick), 0) into since from millrace.epoch s where not s.same_xids;
  if here.outbox_oid <> e.outbox_oid or not millrace.is_origin() then
    return false;
  end if;
  with recent as (
    select t.tick, t.snapshot, lead(t.snapshot) over w as next_snapshot, b.base + ((x.xmin32 - b.base) % m.m + m.m) % m.m as xid
    from (select r.*, r.xmin::text::bigint as xmin32 from millrace.tick r where r.tick >= since order by r.tick desc limit 64) t,
      lateral (select pg_snapshot_xmax(t.snapshot)::text::bigint as base) b, lateral (select t.xmin32) x,
      (values (4294967296)) m(m)
    window w as (order by t.tick)
  )
  select pg_snapshot_xmax(pg_current_snapshot()) >= max(pg_snapshot_xmax(r.snapshot)) and coalesce(bool_and(
      -- An epoch that needed no seam begins with its predecessor's snapshot.
      r.next_snapshot::text = r.snapshot::text
      or pg_visible_in_snapshot(r.xid::text::xid8, coalesce(r.next_snapshot, pg_current_snapshot()))
    ) filter (where r.tick > 0), true)
  into fits from recent r;
  if not fits or here.system_identifier = e.system_identifier then
    return fits;
  end if;
  -- Another cluster where the table has the same oid: after pg_upgrade, but a dump may be that lucky too. Then the events of
  -- the last batch must also be rows of the transactions that they name (as far as those had no subtransactions).
  select t.* into last_batch from millrace.tick t
  where t.tick > since and t.count > 0 and t.seam_seq is null order by t.tick desc limit 1;
  return found and exists (
    select from millrace.outbox o
    where o.seq between last_batch.min_seq and last_batch.max_seq
      and o.xid >= pg_snapshot_xmin((select p.snapshot from millrace.tick p where p.tick = last_batch.tick - 1))
      and pg_visible_in_snapshot(o.xid, last_batch.snapshot)
      and o.xmin::text::bigint = o.xid::text::bigint % 4294967296);
end $$;
comment on function millrace.has_same_xids(millrace.epoch) is 'Whether the ticks'' snapshots still mean something here. Part of begin_epoch.';

-- What a server says that it read and this database does not have: proof that its files are older than what was delivered.
-- Null when it proves nothing; else the last version that both have. Without common_tick, ticks up to the lost one's number
-- and time are taken for common: what was written after the roll-back is later than all that was read before it.
create function millrace.version_before_loss(
  lost_tick bigint, lost_first_version bigint, lost_count bigint, lost_micros bigint, common_tick bigint
) returns bigint
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  lost_time constant timestamptz := timestamptz '1970-01-01 00:00:00+00' + lost_micros * interval '1 microsecond';
  version bigint;
begin
  perform from millrace.tick t
  where t.tick = lost_tick and t.first_version = lost_first_version and t.count = lost_count
    and (extract(epoch from t.time) * 1000000)::bigint = lost_micros;
  if found or lost_tick is null or lost_tick < (select min(t.tick) from millrace.tick t) then
    return null;
  end if;
  select t.first_version + t.count - 1 into version from millrace.tick t
  where t.tick < lost_tick and t.first_version + t.count <= lost_first_version
    and (common_tick is null and t.time <= lost_time or t.tick = common_tick)
  order by t.tick desc limit 1;
  return coalesce(version, 0);
end $$;
comment on function millrace.version_before_loss(bigint, bigint, bigint, bigint, bigint) is
  'The last version before a tick that was read here and is gone. Part of begin_epoch.';

-- Writes the tick that stands between two spaces of transaction ids.
--
-- All rows that are visible under the lock, and that no tick had settled, are its batch; base_seq puts them and everything
-- before them out of the sight of later ticks. They are told by seq alone. Above m, which no tick had reached, every row is
-- one of them, whether it came with the dump or was written here since. At or below m are those of transactions that
-- committed late: what the last tick's snapshot does not see. (Written here since, they would have drawn higher ones: a
-- dump holds the sequence's value. It is set forward where it does not.)
--
-- With the lock on the outbox, nobody has a row in it that is not committed, or a seq in hand: the lock is taken before a
-- seq is drawn. What is written from now on has a seq above base_seq, and an id that the seam's snapshot does not see: that
-- is taken under the lock, and before this transaction has an id itself.
create function millrace.write_seam() returns millrace.tick
language plpgsql volatile set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off set enable_indexscan = on
set jit = off set max_parallel_workers_per_gather = 0 as $$
declare
  p millrace.tick;
  seam millrace.tick;
  here pg_snapshot;
  late record;
  drawn bigint;
begin
  select * into strict p from millrace.tick order by tick desc limit 1;
  -- Before the lock, for this may take a second: ticks are locked already.
  select greatest(max(t.max_seq), max(t.base_seq)) into seam.seam_seq from millrace.tick t;
  perform millrace.lock_table('millrace.outbox', 'share row exclusive');
  select pg_current_snapshot() into here;
  if pg_current_xact_id_if_assigned() is not null then
    raise exception 'a seam must be the first write of its transaction' using errcode = 'MR004',
      hint = 'Call millrace.begin_epoch() in a transaction of its own.';
  end if;
  select array_agg(z.seq order by z.seq) into seam.early_seqs from (
    select o.seq from millrace.outbox o
    where o.xid >= pg_snapshot_xmax(p.snapshot) and o.seq > greatest(p.base_seq, p.floor_seq) and o.seq <= seam.seam_seq
    union all
    select o.seq from millrace.outbox o
    where o.xid = any (array(select pg_snapshot_xip(p.snapshot))) and o.seq > greatest(p.base_seq, p.floor_seq)
      and o.seq <= seam.seam_seq) z;
  select count(*) as count, min(o.seq) as min_seq, max(o.seq) as max_seq into late
  from millrace.outbox o where o.seq > seam.seam_seq;

  select case when is_called then last_value else last_value - 1 end into drawn from millrace.outbox_seq;
  if drawn < greatest(late.max_seq, seam.seam_seq) then
    perform setval('millrace.outbox_seq', greatest(late.max_seq, seam.seam_seq));
  end if;
  insert into millrace.tick as t (tick, snapshot, first_version, count, min_seq, max_seq, base_seq, time, seam_seq, early_seqs)
  values (p.tick + 1, here, p.first_version + p.count, late.count + coalesce(cardinality(seam.early_seqs), 0),
    coalesce(seam.early_seqs[1], late.min_seq), coalesce(late.max_seq, seam.early_seqs[cardinality(seam.early_seqs)]),
    nextval('millrace.outbox_seq'), greatest(p.time, clock_timestamp()), seam.seam_seq, seam.early_seqs)
  returning t.* into seam;
  return seam;
end $$;
comment on function millrace.write_seam() is 'Settles what a restored dump holds beyond its last tick. Part of begin_epoch.';

-- Begins an epoch if one is due. Under the lock that every tick takes: of two servers that find the same copy, one does it,
-- and the other finds it done.
--
-- Where transaction ids mean what they meant, nothing else is needed. Take the last tick that is here. The transaction that
-- wrote it has an id T at or above its snapshot's xmax, and it is here because the log up to its commit was replayed, or the
-- files were copied after it. So the next id here is above T: none below the snapshot's xmax is given twice. What that
-- snapshot says is over had ended before T did, and its end comes before T's in the log: it is here, with the same outcome.
-- What it says is in progress ends here as a later tick finds it: committed before the fork, or never. The new epoch's first
-- tick is empty and has its predecessor's snapshot, so that the next one goes on from there.
create function millrace.begin_epoch(
  expected_epoch uuid default null, lost_tick bigint default null, lost_first_version bigint default null,
  lost_count bigint default null, lost_micros bigint default null, common_tick bigint default null
) returns millrace.epoch
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  e millrace.epoch;
  p millrace.tick;
  fork bigint;
  seam millrace.tick;
  here record;
  same boolean;
  cause text;
begin
  if pg_is_in_recovery() then
    raise exception 'this server is in recovery' using errcode = 'MR002', hint = 'Point Millrace at the primary.';
  end if;
  if current_setting('transaction_isolation') <> 'read committed' or pg_current_xact_id_if_assigned() is not null then
    raise exception 'begin_epoch() must be alone in a transaction that is READ COMMITTED' using errcode = 'MR004',
      hint = 'begin isolation level read committed; select * from millrace.begin_epoch(); commit';
  end if;
  -- Not as a SET clause, which is undone before COMMIT: versions of this epoch must survive a crash.
  perform set_config('synchronous_commit', 'on', true);
  perform millrace.lock_table('millrace.tick_lock', 'share row exclusive');
  select * into strict e from millrace.epoch order by first_tick desc limit 1;
  if e.id <> expected_epoch then
    return e;
  end if;
  select * into strict p from millrace.tick order by tick desc limit 1;
  select * into here from millrace.identity();
  same := millrace.has_same_xids(e);
  cause := case
    when pg_snapshot_xmax(pg_current_snapshot()) < pg_snapshot_xmax(p.snapshot) or here.outbox_oid <> e.outbox_oid
      or not millrace.is_origin() then 'restored'
    when here.system_identifier <> e.system_identifier then case when same then 'upgraded' else 'restored' end
    when here.timeline <> e.timeline then 'promoted'
    when here.database_oid <> e.database_oid then 'copied'
  end;
  fork := p.first_version + p.count - 1;
  if cause is null and expected_epoch is not null then
    fork := millrace.version_before_loss(lost_tick, lost_first_version, lost_count, lost_micros, common_tick);
    cause := case when fork is not null then 'rolled_back' end;
  end if;
  if cause is null then
    return e;
  end if;
  if same then
    insert into millrace.tick as t (tick, snapshot, first_version, count, base_seq, floor_seq, next_floor_seq, next_floor_xid, time)
    values (p.tick + 1, p.snapshot, p.first_version + p.count, 0, p.base_seq, p.floor_seq, p.next_floor_seq, p.next_floor_xid,
      greatest(p.time, clock_timestamp()))
    returning t.* into seam;
  else
    seam := millrace.write_seam();
  end if;
  insert into millrace.epoch as n (parent, fork_version, first_tick, system_identifier, database_oid, timeline, outbox_oid,
    reason, same_xids, unsettled, begun_by)
  values (e.id, fork, seam.tick, here.system_identifier, here.database_oid, here.timeline,
    here.outbox_oid, cause, same, case when not same then seam.count end, session_user)
  returning n.* into e;
  if not same then
    perform millrace.sign_origin();
    perform millrace.adopt_sources();
  end if;
  return e;
end $$;
comment on function millrace.begin_epoch(uuid, bigint, bigint, bigint, bigint, bigint) is
  'Begins a new epoch when this database is not the one that the epoch in force was written by, and returns the one in force. '
  'Does nothing when nothing has changed. A server that has read a tick of expected_epoch which is not here any more names '
  'it, and the newest one before it that is, and so proves that the database was rolled back. Waits for writers for at most '
  '1 s, and fails with the pids in the way: then try again.';

alter table millrace.source add column owner name;
comment on column millrace.source.owner is
  'Who owned the table when it was watched: in a restored dump, a table of somebody else''s is not taken for it.';
update millrace.source s set owner = r.rolname
from pg_class c join pg_roles r on r.oid = c.relowner, millrace.identity() i, millrace.epoch_in_force() e
where c.oid = s.relid and i.system_identifier = e.system_identifier and i.outbox_oid = e.outbox_oid;

create function millrace.record_owner() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  -- Not over what a restored dump brings along: there its oid may be another table's.
  if tg_op = 'UPDATE' or new.owner is null then
    new.owner := coalesce((select r.rolname from pg_class c join pg_roles r on r.oid = c.relowner where c.oid = new.relid), new.owner);
  end if;
  return new;
end $$;
comment on function millrace.record_owner() is 'Keeps source.owner.';
create trigger record_owner before insert or update on millrace.source for each row execute function millrace.record_owner();

-- As in 0003, and the batch of a seam.
create or replace function millrace.tail(expected_epoch uuid, after_version bigint, max_rows int, max_bytes bigint)
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
      hint = 'Open the feed again, so that it serves the new epoch.';
  end if;
  for t in
    select b.tick, b.first_version, b.count, b.snapshot, a.snapshot as previous, b.min_seq, b.max_seq,
      b.seam_seq, b.early_seqs,
      concat_ws(':', b.tick, b.first_version, b.count, (extract(epoch from b.time) * 1000000)::bigint, b.snapshot) as text
    from millrace.tick b join millrace.tick a on a.tick = b.tick - 1
    where b.first_version > after_version and b.count > 0
    order by b.first_version, b.tick limit 200
  loop
    exit when t.first_version <> wanted;
    wanted := wanted + t.count;
    tick_row := t.text;
    missing := t.count;
    -- A seam's batch is told by seq: see millrace.write_seam. Of the others: dense, nearly every row of the range is the
    -- batch's; otherwise a transaction committed late, and its rows lie among a great many others: by xid, exactly as the
    -- tick found them.
    if t.seam_seq is not null then
      open batch for
        select * from (
          (select o.seq, o.xid, o.topic, o.key, o.operation, o.before, o.after, o.headers, o.occurred_at
           from unnest(t.early_seqs) early, lateral (select * from millrace.outbox o where o.seq = early offset 0) o
           order by o.seq limit rows_left)
          union all
          (select o.seq, o.xid, o.topic, o.key, o.operation, o.before, o.after, o.headers, o.occurred_at
           from millrace.outbox o where o.seq > t.seam_seq and o.seq <= t.max_seq order by o.seq limit rows_left)) s
        order by s.seq limit rows_left;
    elsif t.max_seq - t.min_seq < 4 * t.count then
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

insert into millrace.permission (capability, function)
values ('server', 'begin_epoch'), ('server', 'identity');

revoke all on function millrace.sign_origin(), millrace.is_origin(), millrace.identity(), millrace.epoch_in_force(), millrace.has_same_xids(millrace.epoch),
  millrace.version_before_loss(bigint, bigint, bigint, bigint, bigint), millrace.write_seam(),
  millrace.begin_epoch(uuid, bigint, bigint, bigint, bigint, bigint),
  millrace.record_owner() from public;
