-- Durable subscriptions: positions that outlive whoever reads, and hold history back.
--
-- A row is rewritten with every acknowledgement. So nothing that changes then has an index, and half of each page is left
-- free: such an update touches that page alone. What never changes comes first, for the log holds what differs from the end
-- of the old row's beginning on.

create table millrace.subscription (
  id text collate "C" primary key check (id ~ '^[A-Za-z0-9_.:/-]{1,255}$'),
  definition text not null,
  is_group boolean not null,
  topics text[] not null,
  owner text not null,
  labels jsonb not null check (jsonb_typeof(labels) = 'object'),
  expire_after interval check (expire_after > interval '0'),
  created_at timestamptz not null default clock_timestamp(),
  paused boolean not null default false,
  lost_at timestamptz,
  epoch uuid not null references millrace.epoch,
  generation bigint not null default 0,
  moved_generation bigint not null default 0,
  holder_replica text,
  holder_url text,
  held_until timestamptz,
  version bigint not null check (version >= 0),
  place bigint not null,
  cursor text not null,
  delivered json,
  progress text,
  last_used_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50);
create index subscription_owner on millrace.subscription (owner, id);
create index subscription_labels on millrace.subscription using gin (labels jsonb_path_ops);
comment on table millrace.subscription is
  'Durable subscriptions: the events after version are kept for each, up to the cap of millrace.retain. Written by the '
  'functions of this schema alone, which servers call.';
comment on column millrace.subscription.id is 'Its name; ordered by code point.';
comment on column millrace.subscription.definition is 'What it delivers and how, as the servers write it.';
comment on column millrace.subscription.is_group is 'Whether members share it.';
comment on column millrace.subscription.topics is 'Topic patterns of its selectors; empty when it takes every topic.';
comment on column millrace.subscription.owner is 'Free text of whoever created it; empty for nobody.';
comment on column millrace.subscription.labels is 'Names and values of whoever created it.';
comment on column millrace.subscription.expire_after is 'It is deleted when nobody has used it for so long; null for never.';
comment on column millrace.subscription.created_at is 'When it was created.';
comment on column millrace.subscription.paused is 'It delivers nothing until it is resumed, and holds history back all the same.';
comment on column millrace.subscription.lost_at is
  'When it was found that history which it had not acknowledged is gone; null otherwise. What it is to be told of is decided '
  'anew each time: see millrace.subscription_record.';
comment on column millrace.subscription.epoch is 'The epoch that version belongs to.';
comment on column millrace.subscription.generation is
  'Of the last claim: what somebody with another one says is not taken. 0 before the first. Never given twice.';
comment on column millrace.subscription.moved_generation is 'The generation that it was given when it was last moved; 0 for never.';
comment on column millrace.subscription.holder_replica is 'Of a group: the replica that deals its events out.';
comment on column millrace.subscription.holder_url is 'Where other replicas reach that one.';
comment on column millrace.subscription.held_until is 'When that claim ends unless it is renewed.';
comment on column millrace.subscription.version is 'Everything up to here is acknowledged.';
comment on column millrace.subscription.place is 'Orders positions of one version: how many rows of a snapshot came, and a number above all of those where it is in none.';
comment on column millrace.subscription.cursor is 'The same as clients know it.';
comment on column millrace.subscription.delivered is 'How often what lies after version was delivered: [[up to this version, so often], ...].';
comment on column millrace.subscription.progress is 'Of a group: what is acknowledged, tried and parked beyond version, as the servers write it.';
comment on column millrace.subscription.last_used_at is 'When it was last claimed, moved or acknowledged, or somebody waited for its events; within some seconds.';

-- From a sequence, and not the row's own plus one: a name that is deleted and created again does not repeat them.
create sequence millrace.subscription_generation as bigint;
comment on sequence millrace.subscription_generation is 'Generations of claims, for all subscriptions.';

create table millrace.dead_letter (
  subscription text collate "C" not null references millrace.subscription on delete cascade,
  version bigint not null,
  topic text not null,
  key text,
  operation text not null,
  before json,
  after json,
  headers json,
  transaction text not null,
  occurred_at timestamptz not null,
  transition text,
  attempts int not null,
  reason text not null,
  dead_at timestamptz not null default clock_timestamp(),
  primary key (subscription, version)
);
comment on table millrace.dead_letter is 'Events that groups gave up. All of each is here: history may forget it.';
comment on column millrace.dead_letter.subscription is 'The group''s subscription.';
comment on column millrace.dead_letter.version is 'Of the event.';
comment on column millrace.dead_letter.topic is 'Of the event.';
comment on column millrace.dead_letter.key is 'Of the event; null for a message without one.';
comment on column millrace.dead_letter.operation is 'INSERT, UPDATE, DELETE, TRUNCATE, SNAPSHOT or MESSAGE.';
comment on column millrace.dead_letter.before is 'Of the event, as it was delivered.';
comment on column millrace.dead_letter.after is 'Of the event, as it was delivered.';
comment on column millrace.dead_letter.headers is 'Of the event; null for none.';
comment on column millrace.dead_letter.transaction is 'The id of the transaction that wrote it.';
comment on column millrace.dead_letter.occurred_at is 'When it was written.';
comment on column millrace.dead_letter.transition is 'ENTERED or LEFT when a filter on rows made it one; null otherwise.';
comment on column millrace.dead_letter.attempts is 'How often it was delivered; 0 when it was parked behind another of its key.';
comment on column millrace.dead_letter.reason is 'Why it was given up.';
comment on column millrace.dead_letter.dead_at is 'When.';

create function millrace.lineage() returns table (epoch uuid, shared bigint, age int)
language sql stable rows 4 security definer set search_path = pg_catalog, pg_temp as $$
  with recursive ancestor(id, parent, fork_version, shared, age) as (
    select e.id, e.parent, e.fork_version, 9223372036854775807, 0 from millrace.epoch_in_force() e
    union all
    select p.id, p.parent, p.fork_version, least(a.shared, a.fork_version), a.age + 1
    from ancestor a join millrace.epoch p on p.id = a.parent
  )
  select a.id, a.shared, a.age from ancestor a
$$;
comment on function millrace.lineage() is
  'The epoch in force (age 0) and all that it descends from, each with the last version that means in it what it means now.';

-- A view, so that whoever reads and whoever decides agree on what is LOST: by what is there at this moment.
create view millrace.subscription_record as
select s.*,
  case when least(s.version, l.shared) >= k.before_oldest and l.shared is not null then
    case when s.paused then 'PAUSED' else 'ACTIVE' end
  else 'LOST' end as state,
  case when l.shared is not null then least(s.version, l.shared) end as version_in_force,
  k.before_oldest + 1 as oldest_version,
  s.last_used_at + s.expire_after as expires_at,
  (select count(*) from millrace.dead_letter d where d.subscription = s.id) as dead_letters
from millrace.subscription s
  left join millrace.lineage() l on l.epoch = s.epoch
  cross join (select o.first_version + o.count - 1 as before_oldest from millrace.oldest_tick() o) k;
comment on view millrace.subscription_record is
  'Subscriptions and what they are at this moment. LOST: of the events after version_in_force, some are gone.';

-- Claims of subscriptions as well. One that is LOST claims nothing any more: what it wanted is not there.
create or replace function millrace.held_back() returns table (kind text, name text, version bigint, expires_at timestamptz)
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  select 'hold', h.name, h.version, h.expires_at from millrace.hold h where h.expires_at > clock_timestamp()
  union all
  select 'subscription', r.id, r.version_in_force, r.expires_at from millrace.subscription_record r where r.state <> 'LOST'
$$;

create function millrace.tell_subscription(id text) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
  -- A full queue fails the commit: better that the others find out by asking.
  select pg_notify('millrace_subscription', tell_subscription.id) where pg_notification_queue_usage() < 0.5
$$;
comment on function millrace.tell_subscription(text) is 'Tells all servers that something became of a subscription. Part of the functions that see to it.';

create function millrace.is_kept(epoch uuid, version bigint) returns boolean
language sql volatile set search_path = pg_catalog, pg_temp as $$
  select least(is_kept.version, l.shared) >= o.first_version + o.count - 1
  from millrace.lineage() l, millrace.oldest_tick() o where l.epoch = is_kept.epoch
$$;
comment on function millrace.is_kept(uuid, bigint) is
  'Whether all events after a position are there; null for an epoch that the one in force does not descend from. Lasts only '
  'while millrace.retention is locked.';

create function millrace.create_subscription(
  expected_epoch uuid, id text, definition text, is_group boolean, topics text[], owner text, labels jsonb,
  expire_after interval, epoch uuid, version bigint, place bigint, cursor text
) returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  there millrace.subscription;
  kept boolean;
begin
  perform millrace.assert_epoch(expected_epoch);
  perform from millrace.retention for share;
  loop
    select * into there from millrace.subscription s where s.id = create_subscription.id;
    if found then
      return case when (there.definition, there.is_group, there.owner, there.labels)
          = (create_subscription.definition, create_subscription.is_group, create_subscription.owner, create_subscription.labels)
          and there.expire_after is not distinct from create_subscription.expire_after
        then 'existed' else 'differs' end;
    end if;
    kept := millrace.is_kept(create_subscription.epoch, create_subscription.version);
    if kept is not true then
      return case when kept is null then 'unrelated' else 'forgotten' end;
    end if;
    insert into millrace.subscription as s (id, definition, is_group, topics, owner, labels, expire_after, epoch, version,
      place, cursor)
    values (create_subscription.id, create_subscription.definition, create_subscription.is_group, create_subscription.topics,
      create_subscription.owner, create_subscription.labels, create_subscription.expire_after, create_subscription.epoch,
      create_subscription.version, create_subscription.place, create_subscription.cursor)
    on conflict (id) do nothing;
    if found then
      return 'created';
    end if;
  end loop;
end $$;
comment on function millrace.create_subscription(uuid, text, text, boolean, text[], text, jsonb, interval, uuid, bigint, bigint, text) is
  'Creates a subscription. created, existed (the same one), differs, forgotten (its position is not kept any more), or '
  'unrelated (a position of another history).';

create function millrace.delete_subscription(expected_epoch uuid, id text) returns setof millrace.subscription_record
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  perform millrace.assert_epoch(expected_epoch);
  perform from millrace.subscription s where s.id = delete_subscription.id for update;
  return query select * from millrace.subscription_record r where r.id = delete_subscription.id;
  delete from millrace.subscription s where s.id = delete_subscription.id;
  perform millrace.tell_subscription(delete_subscription.id);
end $$;
comment on function millrace.delete_subscription(uuid, text) is 'Deletes a subscription with its dead letters. Answers what it was.';

create function millrace.pause_subscription(expected_epoch uuid, id text, paused boolean) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  perform millrace.assert_epoch(expected_epoch);
  update millrace.subscription s set paused = pause_subscription.paused, last_used_at = clock_timestamp()
  where s.id = pause_subscription.id;
  perform millrace.tell_subscription(pause_subscription.id);
end $$;
comment on function millrace.pause_subscription(uuid, text, boolean) is 'Pauses a subscription, or resumes it.';

create function millrace.seek_subscription(expected_epoch uuid, id text, epoch uuid, version bigint, place bigint, cursor text)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  kept boolean;
  raised bigint;
begin
  perform millrace.assert_epoch(expected_epoch);
  perform from millrace.retention for share;
  perform from millrace.subscription s where s.id = seek_subscription.id for no key update;
  if not found then
    return 'gone';
  end if;
  kept := millrace.is_kept(seek_subscription.epoch, seek_subscription.version);
  if kept is not true then
    return case when kept is null then 'unrelated' else 'forgotten' end;
  end if;
  raised := nextval('millrace.subscription_generation');
  update millrace.subscription s set epoch = seek_subscription.epoch, version = seek_subscription.version,
    place = seek_subscription.place, cursor = seek_subscription.cursor, generation = raised, moved_generation = raised, delivered = null, progress = null,
    lost_at = null, last_used_at = clock_timestamp()
  where s.id = seek_subscription.id;
  perform millrace.tell_subscription(seek_subscription.id);
  return 'moved';
end $$;
comment on function millrace.seek_subscription(uuid, text, uuid, bigint, bigint, text) is
  'Moves a subscription, and fences whoever has it. moved, gone, forgotten or unrelated: see millrace.create_subscription.';

-- Many at once, as after a restart: each commit that notifies waits for the one before.
create function millrace.claim_subscriptions(expected_epoch uuid, ids text[], replicas text[], urls text[], leases interval[])
returns table (id text, outcome text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  now_is constant timestamptz := clock_timestamp();
begin
  perform millrace.assert_epoch(expected_epoch);
  perform from millrace.subscription s where s.id = any (ids) order by s.id for no key update;
  for id, outcome in
    with asked as (
      select * from unnest(ids, replicas, urls, leases) as a(i, replica, url, lease)
    ), judged as materialized (
      select a.*, case
          when r.id is null then 'gone'
          when r.state <> 'ACTIVE' then lower(r.state)
          when r.held_until > now_is and r.holder_replica <> a.replica
            -- Two processes cannot be at one address: the one that was there is dead.
            and (r.holder_url = a.url) is not true then 'held'
          else 'claimed'
        end as outcome
      from asked a left join millrace.subscription_record r on r.id = a.i
    ), claimed as (
      update millrace.subscription s set generation = nextval('millrace.subscription_generation'),
        holder_replica = case when s.is_group then j.replica end, holder_url = case when s.is_group then j.url end,
        held_until = case when s.is_group then now_is + j.lease end, last_used_at = now_is
      from judged j where s.id = j.i and j.outcome = 'claimed'
    )
    select j.i, j.outcome from judged j
  loop
    if outcome = 'claimed' then
      perform millrace.tell_subscription(id);
    end if;
    return next;
  end loop;
end $$;
comment on function millrace.claim_subscriptions(uuid, text[], text[], text[], interval[]) is
  'Takes subscriptions up, each under a new generation: claimed, held (a group, by another replica), paused, lost or gone. Each '
  'id at most once.';

-- What any number of subscriptions have come to, in as many statements as for one.
--
-- Rows are locked in the order of their ids, by this function and by every other that locks several: two servers that say
-- something about the same ones wait for one another, and never in a circle. What is decided is decided under those locks, by
-- statements that begin after they are there; hence READ COMMITTED. Who comes with the generation of an older claim changes
-- nothing, and neither does who would move a position back: positions of two epochs are compared by what they mean in the
-- epoch in force, and one that means nothing there (it is above the fork) never takes the place of one that does.
--
-- Each id comes at most once in advances: {i: id, g: generation or 0, e, v, w, c: the position, d: delivered, p: progress}; what
-- is missing stays. settled: {i, g, v}. letters: {i, g, v, t: topic, k: key, o: operation, b: before, a: after, h: headers, x:
-- transaction, m: microseconds, n: transition, y: attempts, r: reason}, with JSON in the form of text: as nested JSON, an
-- escaped U+0000 in it would be refused.
create function millrace.advance_subscriptions(expected_epoch uuid, advances json, settled json, letters json)
returns table (id text, outcome text, generation bigint, epoch uuid, version bigint, cursor text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  -- An acknowledgement that moves nothing writes nothing, but this often.
  granularity constant interval := '5 seconds';
  now_is constant timestamptz := clock_timestamp();
begin
  perform millrace.assert_epoch(expected_epoch);
  perform from millrace.subscription s
  where s.id = any (array(select t.i from json_to_recordset(advances) as t(i text)))
  order by s.id for no key update;

  with lineage as materialized (
    select l.epoch, l.shared, l.age from millrace.lineage() l
  ), told as materialized (
    select t.i, t.g, t.e, t.v, t.w, t.c, t.d, t.p
    from json_to_recordset(advances) as t(i text, g bigint, e uuid, v bigint, w bigint, c text, d json, p text)
  ), heard as (
    select t.*, case
        when t.e = s.epoch then t.v > s.version or t.v = s.version and (t.w > s.place or t.w = s.place and t.c <> s.cursor)
        when tl.shared is null or t.v > tl.shared then false
        when t.v = coalesce(least(s.version, kl.shared), -1) then tl.age < coalesce(kl.age, 2147483647)
        else t.v > coalesce(least(s.version, kl.shared), -1)
      end is true as forward,
      coalesce(least(t.v, tl.shared) >= o.first_version + o.count - 1, false) as kept
    from told t join millrace.subscription s on s.id = t.i
      left join lineage tl on tl.epoch = t.e
      left join lineage kl on kl.epoch = s.epoch
      cross join millrace.oldest_tick() o
    where t.g = 0 or t.g = s.generation
  )
  update millrace.subscription s set
    epoch = case when h.forward then h.e else s.epoch end,
    version = case when h.forward then h.v else s.version end,
    place = case when h.forward then h.w else s.place end,
    cursor = case when h.forward then h.c else s.cursor end,
    lost_at = case when h.forward and h.kept then null else s.lost_at end,
    delivered = case when h.g <> 0 and h.d is not null then h.d else s.delivered end,
    progress = case when h.g <> 0 and h.p is not null then h.p else s.progress end,
    last_used_at = now_is
  from heard h
  where s.id = h.i and (h.forward or h.g <> 0 and (h.d is not null or h.p is not null) or s.last_used_at < now_is - granularity);

  if settled is not null then
    delete from millrace.dead_letter d
    using json_to_recordset(settled) as t(i text, g bigint, v bigint), millrace.subscription s
    where s.id = t.i and s.generation = t.g and t.g <> 0 and d.subscription = t.i and d.version = t.v;
  end if;
  if letters is not null then
    insert into millrace.dead_letter as d (subscription, version, topic, key, operation, before, after, headers, transaction,
      occurred_at, transition, attempts, reason)
    select t.i, t.v, t.t, t.k, t.o, t.b::json, t.a::json, t.h::json, t.x,
      timestamptz '1970-01-01 00:00:00+00' + t.m * interval '1 microsecond', t.n, t.y, t.r
    from json_to_recordset(letters) as t(i text, g bigint, v bigint, t text, k text, o text, b text, a text, h text, x text,
        m bigint, n text, y int, r text)
      join millrace.subscription s on s.id = t.i and s.generation = t.g and t.g <> 0
    on conflict (subscription, version) do update set topic = excluded.topic, key = excluded.key, operation = excluded.operation,
      before = excluded.before, after = excluded.after, headers = excluded.headers, transaction = excluded.transaction,
      occurred_at = excluded.occurred_at, transition = excluded.transition, attempts = excluded.attempts,
      reason = excluded.reason, dead_at = excluded.dead_at;
  end if;

  return query
    select t.i, case when s.id is null then 'gone' when t.g <> 0 and t.g <> s.generation then 'fenced' else 'advanced' end,
      s.generation, s.epoch, s.version, s.cursor
    from json_to_recordset(advances) as t(i text, g bigint) left join millrace.subscription s on s.id = t.i;
end $$;
comment on function millrace.advance_subscriptions(uuid, json, json, json) is
  'Writes what subscriptions have come to: positions, attempts, progress, dead letters. Answers of each: advanced (or not, when '
  'it was there already), fenced or gone, and where it stands.';

create function millrace.renew_subscriptions(expected_epoch uuid, ids text[], generations bigint[], lease interval) returns setof text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  granularity constant interval := '5 seconds';
  now_is constant timestamptz := clock_timestamp();
begin
  perform millrace.assert_epoch(expected_epoch);
  perform from millrace.subscription s where s.id = any (ids) order by s.id for no key update;
  update millrace.subscription s set last_used_at = now_is,
    held_until = case when s.is_group and s.holder_replica is not null then now_is + lease end
  from unnest(ids, generations) as t(i, g)
  where s.id = t.i and s.generation = t.g
    and (s.holder_replica is not null or s.last_used_at < now_is - granularity);
  return query
    select t.i from unnest(ids, generations) as t(i, g) left join millrace.subscription s on s.id = t.i
    where s.generation is distinct from t.g;
end $$;
comment on function millrace.renew_subscriptions(uuid, text[], bigint[], interval) is
  'Renews claims of groups, and says of all that somebody waits for their events. Answers those that are somebody else''s.';

create function millrace.release_subscriptions(expected_epoch uuid, ids text[], generations bigint[]) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  released text;
begin
  perform millrace.assert_epoch(expected_epoch);
  perform from millrace.subscription s where s.id = any (ids) order by s.id for no key update;
  for released in
    update millrace.subscription s set holder_replica = null, holder_url = null, held_until = null
    from unnest(ids, generations) as t(i, g)
    where s.id = t.i and s.generation = t.g and s.holder_replica is not null
    returning s.id
  loop
    perform millrace.tell_subscription(released);
  end loop;
end $$;
comment on function millrace.release_subscriptions(uuid, text[], bigint[]) is 'Gives claims of groups up.';

create function millrace.discard_dead_letters(
  expected_epoch uuid, id text, versions bigint[], key text, out there boolean, out discarded bigint, out remaining bigint
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  perform millrace.assert_epoch(expected_epoch);
  perform from millrace.subscription s where s.id = discard_dead_letters.id for no key update;
  there := found;
  delete from millrace.dead_letter d
  where d.subscription = discard_dead_letters.id
    and (versions is null or d.version = any (versions))
    and (discard_dead_letters.key is null or d.key = discard_dead_letters.key);
  get diagnostics discarded = row_count;
  select count(*) into remaining from millrace.dead_letter d where d.subscription = discard_dead_letters.id;
  if discarded > 0 then
    perform millrace.tell_subscription(discard_dead_letters.id);
  end if;
end $$;
comment on function millrace.discard_dead_letters(uuid, text, bigint[], text) is
  'Drops dead letters: those of these versions and this key, null for any.';

create function millrace.keep_subscriptions(most int) returns json
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $$
#variable_conflict use_column
declare
  -- last_used_at may be older than the last use by so much.
  granularity constant interval := '5 seconds';
  lost text[];
  expired text[];
begin
  perform millrace.assert_epoch();
  -- Who is at work on one of them is not waited for: the next round is soon.
  with gone as (
    select s.id from millrace.subscription s
    where s.lost_at is null and s.id in (select r.id from millrace.subscription_record r where r.state = 'LOST')
    order by s.id for no key update skip locked
  ), marked as (
    update millrace.subscription s set lost_at = clock_timestamp() from gone g where s.id = g.id returning s.id
  )
  select array_agg(m.id order by m.id) into lost from marked m;
  with unused as (
    select s.id from millrace.subscription s
    where s.last_used_at + s.expire_after < clock_timestamp() - granularity
    order by s.id limit most for update skip locked
  ), deleted as (
    delete from millrace.subscription s using unused u where s.id = u.id returning s.id
  )
  select array_agg(d.id order by d.id) into expired from deleted d;
  perform millrace.tell_subscription(t.id) from unnest(lost || expired) t(id);
  if lost is null and expired is null then
    return null;
  end if;
  return json_build_object('lost', coalesce(lost, '{}'), 'expired', coalesce(expired, '{}'));
end $$;
comment on function millrace.keep_subscriptions(int) is
  'Marks subscriptions that have lost history, and deletes those that nobody uses, at most so many. Answers which; null for '
  'none. Part of the server''s upkeep.';

insert into millrace.permission (capability, function)
select 'server', unnest('{lineage,create_subscription,delete_subscription,pause_subscription,seek_subscription,claim_subscriptions,'
  'advance_subscriptions,renew_subscriptions,release_subscriptions,discard_dead_letters,keep_subscriptions}'::name[]);

revoke all on function millrace.lineage(), millrace.tell_subscription(text), millrace.is_kept(uuid, bigint),
  millrace.create_subscription(uuid, text, text, boolean, text[], text, jsonb, interval, uuid, bigint, bigint, text),
  millrace.delete_subscription(uuid, text), millrace.pause_subscription(uuid, text, boolean),
  millrace.seek_subscription(uuid, text, uuid, bigint, bigint, text),
  millrace.claim_subscriptions(uuid, text[], text[], text[], interval[]),
  millrace.advance_subscriptions(uuid, json, json, json),
  millrace.renew_subscriptions(uuid, text[], bigint[], interval),
  millrace.release_subscriptions(uuid, text[], bigint[]),
  millrace.discard_dead_letters(uuid, text, bigint[], text), millrace.keep_subscriptions(int) from public;
