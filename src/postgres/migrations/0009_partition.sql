-- Room for events: partitions made before they are needed, and what is done once they were not.
--
-- Three locks on the outbox matter here. ATTACH PARTITION takes SHARE UPDATE EXCLUSIVE, which neither writers nor readers
-- notice; CREATE TABLE ... PARTITION OF would take ACCESS EXCLUSIVE. SHARE stops writers and nobody else. ACCESS EXCLUSIVE
-- stops everybody: taken for metadata only, and never waited for longer than lock_timeout, because all others queue behind
-- whoever waits.
--
-- Every function here is run by whoever keeps the outbox, one at a time: see upkeep_turn.

-- Not an advisory lock: anybody who may connect could take that, and nothing would ever be forgotten.
create table millrace.upkeep_lock () with (autovacuum_enabled = false);
comment on table millrace.upkeep_lock is 'Whoever holds it in SHARE ROW EXCLUSIVE mode is the one who keeps the outbox.';

create function millrace.upkeep_turn() returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'upkeep needs a transaction that is READ COMMITTED'
      using errcode = 'MR004', hint = 'begin isolation level read committed';
  end if;
  -- Of a copy that is not a history of its own yet nothing may be judged: its ticks and its xids do not belong together.
  perform millrace.assert_epoch();
  begin
    lock table millrace.upkeep_lock in share row exclusive mode nowait;
    return true;
  exception when lock_not_available then
    return false;
  end;
end $$;
comment on function millrace.upkeep_turn() is
  'Whether this transaction is the one that keeps the outbox: makes, turns and drops partitions, and forgets ticks. The '
  'lock lasts for the transaction, so that it works through a pooler.';

create function millrace.drawn() returns bigint
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  select case when is_called then last_value else last_value - 1 end from millrace.outbox_seq
$$;
comment on function millrace.drawn() is 'The last seq that was drawn; every later one is higher. 0 when none was.';

create function millrace.partitions()
returns table (relid oid, name text, lower_seq bigint, upper_seq bigint, is_default boolean)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select c.oid, c.relname::text, (b.range)[1]::bigint, (b.range)[2]::bigint, b.bound = 'DEFAULT'
  from pg_inherits i join pg_class c on c.oid = i.inhrelid,
    lateral (select pg_get_expr(c.relpartbound, c.oid) as bound) e,
    lateral (select e.bound, regexp_match(e.bound, 'FROM \(''?(\d+)''?\) TO \(''?(\d+)''?\)') as range) b
  where i.inhparent = 'millrace.outbox'::regclass
  order by 3
$$;
comment on function millrace.partitions() is
  'Partitions of the outbox: those that hold seq from lower_seq to before upper_seq, in their order, and the default one.';

create function millrace.lock_outbox(mode text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
begin
  execute format('lock table only millrace.outbox in %s mode', mode);
end $$;
comment on function millrace.lock_outbox(text) is 'Locks the outbox, and has others queue behind it for at most 200 ms.';

-- Autovacuum holds this lock for as long as it works on a partition, and gives way only to those who have waited for 1 s:
-- long before anybody asks for the outbox itself. Neither writers nor readers are stopped by it.
create function millrace.lock_partition(relid oid) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
begin
  execute format('lock table only %s in share update exclusive mode', relid::regclass);
end $$;
comment on function millrace.lock_partition(oid) is 'Keeps vacuum and DDL away from a partition.';

-- A table like the outbox, not attached yet. ATTACH finds the indexes that LIKE has made, and takes them for its own.
create function millrace.create_partition_table(name text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
set default_tablespace = '' set default_table_access_method = 'heap' set client_min_messages = warning as $$
declare
  tablespace text := (select ' tablespace ' || quote_ident(t.spcname) from pg_class c join pg_tablespace t on t.oid = c.reltablespace
                      where c.oid = 'millrace.outbox'::regclass);
  reader text;
begin
  execute format('create table millrace.%I (like millrace.outbox including all)%s', name, coalesce(tablespace, ''));
  -- As millrace.allow gives it to those who were allowed when the partition is there.
  for reader in
    select a.role from millrace.access a join pg_roles r on r.rolname = a.role where a.capability = 'server'
  loop
    execute format('grant select on millrace.%I to %I', name, reader);
  end loop;
end $$;
comment on function millrace.create_partition_table(text) is 'Makes a table that can become a partition of the outbox.';

create function millrace.create_partition(lower_seq bigint, upper_seq bigint) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set client_min_messages = warning as $$
begin
  perform millrace.create_partition_table('outbox_' || lower_seq);
  execute format('alter table millrace.outbox attach partition millrace.%I for values from (%s) to (%s)',
    'outbox_' || lower_seq, lower_seq, upper_seq);
end $$;
comment on function millrace.create_partition(bigint, bigint) is 'Makes one partition. Part of extend_outbox.';

create function millrace.default_partition(out relid oid, out used boolean)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  relid := (select p.relid from millrace.partitions() p where p.is_default);
  used := false;
  if relid is not null then
    execute format('select exists (select from %s)', relid::regclass) into used;
  end if;
end $$;
comment on function millrace.default_partition() is 'The default partition, and whether it holds anything.';

-- Makes partitions until enough lie ahead of the sequence. Returns how many, or null when it is another's turn.
--
-- A row that a writer is about to put into the default partition, while one is attached that takes its seq, makes the writer
-- fail: Postgres looks again at the default's bounds, and they have become narrower. So partitions are attached beside
-- writers only far ahead of any seq that a statement in progress can have drawn; and nearer than that with no statement in
-- progress, under ACCESS EXCLUSIVE.
--
-- Does nothing while the default partition holds rows: attaching would read them all under a lock. See turn_default.
create function millrace.extend_outbox(width bigint) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
declare
  at_hand constant int := 4;
  room constant bigint := 4194304;
  near constant bigint := 262144;
  step bigint := least(greatest(coalesce(width, 0), 1048576), 268435456);
  made int := 0;
  seq bigint;
  upto bigint;
  ahead int;
begin
  if not millrace.upkeep_turn() then
    return null;
  end if;
  loop
    seq := millrace.drawn();
    select coalesce(max(p.upper_seq), 1), count(*) filter (where p.lower_seq > seq + 1) into upto, ahead
    from millrace.partitions() p where not p.is_default;
    exit when ahead >= at_hand and upto - seq > room;
    if made = 0 then
      if upto - seq <= near then
        perform millrace.lock_outbox('access exclusive');
        seq := millrace.drawn();
      end if;
      exit when (select d.used from millrace.default_partition() d);
    end if;
    perform millrace.create_partition(upto, greatest(upto, seq + 1) + step);
    made := made + 1;
  end loop;
  return made;
end $$;
comment on function millrace.extend_outbox(bigint) is
  'Makes partitions ahead of the sequence, of this width (kept within 2^20 and 2^28). Returns how many.';

-- The default partition holds rows, because nobody was there to make others in time. In three transactions it becomes an
-- ordinary one, without anybody waiting for a scan:
--  1. fence: a CHECK (seq >= a and seq < b), not validated, where b is 2^40 events away. Brief, against its own writers.
--  2. validate: reads it, beside its writers.
--  3. turn: under ACCESS EXCLUSIVE, where the CHECK spares the scan, it is attached as [a, b) and a new default made.
-- Whoever dies in between leaves a CHECK that excludes nothing, and the next one goes on from there. The sequence moves to b
-- afterwards, as out of any partition that is full enough (see rotate_outbox), and never in the same transaction: setval
-- stays when its transaction does not, and the CHECK would then refuse what writers bring.
--
-- Returns what it did: 'fenced', 'validated', 'turned'; null when there is nothing to do, or it is another's turn.
create function millrace.turn_default() returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set lock_timeout = '200ms' set client_min_messages = warning as $$
declare
  far constant bigint := 1099511627776;
  d record;
  fence record;
  least_seq bigint;
  lower_seq bigint;
  upper_seq bigint;
  name text;
begin
  if not millrace.upkeep_turn() then
    return null;
  end if;
  select * into d from millrace.default_partition();
  if d.relid is null or not d.used then
    return null;
  end if;
  perform millrace.lock_partition(d.relid);
  select c.convalidated, regexp_match(pg_get_constraintdef(c.oid), '>= ''?(\d+)\D.*< ''?(\d+)') as range into fence
  from pg_constraint c where c.conrelid = d.relid and c.conname = 'outbox_fence';
  if not found then
    execute format('select min(seq) from %s', d.relid::regclass) into least_seq;
    select max(p.upper_seq) into lower_seq from millrace.partitions() p where p.upper_seq <= least_seq;
    select min(p.lower_seq) into upper_seq from millrace.partitions() p where p.lower_seq > least_seq;
    execute format('alter table %s add constraint outbox_fence check (seq >= %s and seq < %s) not valid', d.relid::regclass,
      coalesce(lower_seq, least_seq), coalesce(upper_seq, millrace.drawn() + far));
    return 'fenced';
  end if;
  if not fence.convalidated then
    execute format('alter table %s validate constraint outbox_fence', d.relid::regclass);
    return 'validated';
  end if;
  lower_seq := (fence.range)[1];
  upper_seq := (fence.range)[2];
  name := 'outbox_' || lower_seq;
  perform millrace.lock_outbox('access exclusive');
  execute format('alter table millrace.outbox detach partition %s', d.relid::regclass);
  execute format('alter table %s rename to %I', d.relid::regclass, name);
  execute format('alter table millrace.outbox attach partition millrace.%I for values from (%s) to (%s)', name, lower_seq, upper_seq);
  execute format('alter table millrace.%I drop constraint outbox_fence', name);
  perform millrace.create_partition_table('outbox_default');
  alter table millrace.outbox attach partition millrace.outbox_default default;
  return 'turned';
end $$;
comment on function millrace.turn_default() is
  'One step of making the default partition an ordinary one, when it holds events. Call it until it returns null.';

-- Moves the sequence forward, so that the next seq is target or beyond: a slow feed can then forget what lies before. True
-- once that is so. Setting it is at once, and needs that nobody draws meanwhile, or it might go backwards; so it is done
-- where the writers' lock can be had without waiting. Otherwise numbers are drawn and thrown away, at most a million at a
-- time (0.2 s), which is right beside any number of writers; only where that would take too long, it waits for the lock.
--
-- Nothing minds the hole: settle's floor argument asks only that whoever drew a seq had an xid when he did, and a batch
-- across the hole is read through its xids, as those of late commits are.
create function millrace.skip_to(target bigint) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  at_once constant bigint := 1000000;
begin
  begin
    lock table only millrace.outbox in share mode nowait;
    if millrace.drawn() < target - 1 then
      perform setval('millrace.outbox_seq', target, false);
    end if;
    return true;
  exception when lock_not_available then
    null;
  end;
  if target - millrace.drawn() > 16 * at_once then
    perform millrace.lock_outbox('share');
    if millrace.drawn() < target - 1 then
      perform setval('millrace.outbox_seq', target, false);
    end if;
    return true;
  end if;
  perform max(nextval('millrace.outbox_seq')) from generate_series(1, least(at_once, target - 1 - millrace.drawn()));
  return millrace.drawn() >= target - 1;
end $$;
comment on function millrace.skip_to(bigint) is 'Leaves out numbers of the sequence up to the target. Part of rotate_outbox.';

-- Whether every row of a partition belongs to this tick or an earlier one.
--
-- Snapshots of one space of transaction ids grow, so a row that this one sees belongs to a tick at or below it. A row that
-- it does not see was written by a transaction that it had not reached (its xmax and above) or had seen in progress (its
-- xip): a probe for each. At a seam (see millrace.write_seam) the ids begin anew, and are compared with nothing beyond it:
-- rows at or below base_seq were settled by the seam or before it; the next seam's own batch is told by seq, and later.
create function millrace.settled_by(part oid, t millrace.tick) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set jit = off set max_parallel_workers_per_gather = 0 as $$
declare
  seam millrace.tick;
  later boolean;
begin
  select n.* into seam from millrace.epoch e join millrace.tick n on n.tick = e.first_tick
  where e.first_tick > t.tick and not e.same_xids order by e.first_tick limit 1;
  if found then
    execute format('select exists (select from %1$s where seq > $1) or exists (select from %1$s where seq = any ($2))',
      part::regclass) into later using seam.seam_seq, seam.early_seqs;
    if later then
      return false;
    end if;
  end if;
  -- ORDER BY keeps it on the index over xid, whatever the planner thinks it knows; OFFSET 0 keeps the rest out of it.
  execute format($q$
    select exists (select from (select seq from %1$s where xid >= $1 order by xid offset 0) o where o.seq > $3)
      or exists (select from unnest($2) x, lateral (select seq from %1$s where xid = x order by xid offset 0) o where o.seq > $3)$q$,
    part::regclass)
  into later using pg_snapshot_xmax(t.snapshot), array(select pg_snapshot_xip(t.snapshot)), t.base_seq;
  return not later;
end $$;
comment on function millrace.settled_by(oid, millrace.tick) is 'Whether every row of a partition belongs to this tick or an earlier one.';

create function millrace.settling_tick(part oid, low bigint, high bigint) returns bigint
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  t millrace.tick;
begin
  while high - low > 1 loop
    select * into strict t from millrace.tick where tick = low + (high - low) / 2;
    if millrace.settled_by(part, t) then
      high := t.tick;
    else
      low := t.tick;
    end if;
  end loop;
  return high;
end $$;
comment on function millrace.settling_tick(oid, bigint, bigint) is
  'The first tick that settles all of a partition, where low does not and high does.';

insert into millrace.permission (capability, function)
select 'server', unnest('{drawn,partitions,extend_outbox,turn_default}'::name[]);

revoke all on function millrace.upkeep_turn(), millrace.drawn(), millrace.partitions(), millrace.lock_outbox(text),
  millrace.lock_partition(oid), millrace.create_partition_table(text), millrace.create_partition(bigint, bigint),
  millrace.default_partition(), millrace.extend_outbox(bigint), millrace.turn_default(), millrace.skip_to(bigint),
  millrace.settled_by(oid, millrace.tick), millrace.settling_tick(oid, bigint, bigint) from public;
