-- The schema: where events are written, the order they are settled in, and what they are captured from.
-- Runs inside one transaction, as the role that will own everything here.

-- A watched table. Triggers find it by relid, never by name or argument: those a stranger could write.
create table millrace.source (
  id int generated always as identity primary key,
  relid oid not null unique,
  -- As it was called when watched: for people, after the table is gone.
  name text not null,
  -- A topic, or a template over columns: orders.{region}
  topic text not null,
  -- Columns of the template in the order of their places; empty when the topic is a plain name.
  topic_columns text[] not null default '{}',
  -- Matches every topic that the template can yield; null when the topic is a plain name.
  topic_pattern text,
  key_columns text[] not null check (cardinality(key_columns) > 0),
  -- The only columns in images; null for all but the excluded ones. A list of what is in, as it was asked for, and not of
  -- what is out: a column that is added later must stay out.
  included_columns text[],
  -- Columns that stay out of images. Empty for none.
  excluded_columns text[] not null default '{}',
  before_values boolean not null default true,
  capture_truncate boolean not null default true,
  created_at timestamptz not null default clock_timestamp()
);
comment on table millrace.source is 'Watched tables and how their changes become events. Written by millrace.watch and millrace.unwatch.';
comment on column millrace.source.id is 'What outbox.source_id names.';
comment on column millrace.source.relid is 'The table''s oid: the only thing that it is known by.';
comment on column millrace.source.name is 'Schema and table as they were called when it was watched.';
comment on column millrace.source.topic is 'A topic, or a template over columns such as orders.{region}. Belongs to this source alone.';
comment on column millrace.source.topic_columns is 'Columns in the template, in the order of their places.';
comment on column millrace.source.topic_pattern is 'Regular expression for every topic that the template can yield.';
comment on column millrace.source.key_columns is 'Columns that make up the event''s key, in its order.';
comment on column millrace.source.included_columns is 'The only columns in images; null for all but excluded_columns.';
comment on column millrace.source.excluded_columns is 'Columns that stay out of images.';
comment on column millrace.source.before_values is 'Whether UPDATE and DELETE carry the row before the change.';
comment on column millrace.source.capture_truncate is 'Whether TRUNCATE becomes an event.';
comment on column millrace.source.created_at is 'When it was watched first.';

-- Defaults are evaluated in column order: the transaction has its xid before the seq is drawn. That is what floor_seq
-- (see millrace.settle) rests on: whoever drew a seq had an xid by then, a lower one than any that is assigned later.
create sequence millrace.outbox_seq as bigint cache 1;

create table millrace.outbox (
  xid xid8 not null default pg_current_xact_id(),
  seq bigint not null default nextval('millrace.outbox_seq'),
  topic text not null,
  key text,
  -- I U D T M. Without a CHECK: it would be prepared anew for each statement, a third of what an event costs its writer.
  -- Only this schema's functions write here, and each writes one of these.
  operation "char" not null,
  -- json and not jsonb: jsonb refuses \u0000 and 1e400000, and so would fail the writer's transaction.
  before json,
  after json,
  headers json,
  occurred_at timestamptz not null default clock_timestamp(),
  -- The watched table; null for an application's own event.
  source_id int,
  primary key (seq)
) partition by range (seq);
create index outbox_xid on millrace.outbox (xid);
comment on table millrace.outbox is 'Events, written in the transaction of the change they tell of. Inserted once, never updated, dropped by the partition.';
comment on column millrace.outbox.operation is 'I insert, U update, D delete, T truncate, M message';

create table millrace.outbox_1 partition of millrace.outbox for values from (1) to (10000001);
-- Always takes what no other partition does: writers never fail for want of one.
create table millrace.outbox_default partition of millrace.outbox default;

-- One row per history. A restore or a failover that forked it adds one; versions are dense within each.
create table millrace.epoch (
  id uuid primary key default gen_random_uuid(),
  parent uuid references millrace.epoch,
  -- Versions at or below it are shared with the parent.
  fork_version bigint,
  -- The first tick of this epoch.
  first_tick bigint not null,
  -- Which server wrote it: a copy of the database on another server, or on another timeline of it, is another history.
  system_identifier bigint not null,
  database_oid oid not null,
  timeline int not null,
  -- A dump that is restored makes the tables anew, with other oids, also where everything above is as it was.
  outbox_oid oid not null default 'millrace.outbox'::regclass,
  created_at timestamptz not null default clock_timestamp()
);
comment on table millrace.epoch is 'Histories of this feed, newest first_tick in force. A cursor names one.';

-- One settled batch: what snapshot sees and its predecessor's snapshot did not, ordered by seq.
-- Version of the i-th row, from 0: first_version + i.
create table millrace.tick (
  tick bigint primary key,
  snapshot pg_snapshot not null,
  first_version bigint not null,
  count bigint not null,
  min_seq bigint,
  max_seq bigint,
  -- Rows at or below it belong to an earlier epoch's xids and are never looked at again.
  base_seq bigint not null default 0,
  -- Every row at or below it is settled: later ticks need not look there.
  floor_seq bigint not null default 0,
  -- Becomes floor_seq once every transaction up to next_floor_xid is over: whoever drew one of these seqs is among them.
  next_floor_seq bigint not null default 0,
  next_floor_xid xid8 not null default '0',
  time timestamptz not null
);
-- An empty tick (a snapshot's) shares its first_version with the next one.
create unique index tick_version on millrace.tick (first_version, tick);
create index tick_time on millrace.tick (time, tick);
comment on table millrace.tick is 'The total order: one row per settled batch. The last row is never deleted.';

-- Locked by everything that ticks. It has no rows and no columns, so that autovacuum has no reason to lock it too.
create table millrace.tick_lock () with (autovacuum_enabled = false);
comment on table millrace.tick_lock is 'Whoever holds it in SHARE ROW EXCLUSIVE mode is the one who ticks.';

-- Publish requests of the last 24 h that carried an idempotency key, written in the transaction of their events.
create table millrace.publication (
  principal text not null,
  idempotency_key text not null,
  content_hash bytea not null,
  xid xid8 not null default pg_current_xact_id(),
  created_at timestamptz not null default clock_timestamp(),
  primary key (principal, idempotency_key)
);
create index publication_created_at on millrace.publication (created_at);

insert into millrace.epoch (first_tick, system_identifier, database_oid, timeline)
select 0, c.system_identifier, d.oid, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
from pg_control_system() c, pg_database d
where d.datname = current_database();

-- Tick 0: nothing is written yet, so everything that will be is after this snapshot.
insert into millrace.tick (tick, snapshot, first_version, count, time)
values (0, pg_current_snapshot(), 1, 0, clock_timestamp());
