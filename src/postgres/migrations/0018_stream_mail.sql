-- Letters between servers: a change of selectors comes to any of them and concerns a stream of one. Empty while nobody
-- changes anything. A letter lives for seconds; what its sender or its receiver leaves behind, by dying, later ones take along.
--
-- Whether a letter was taken is decided by its row's lock: either the receiver sets taken_at, and the sender then knows that
-- it was, or the sender deletes the row, and the receiver never sees it.

create table millrace.stream_mail (
  id bigint generated always as identity primary key,
  replica text not null check (length(replica) <= 64),
  letter bytea not null check (length(letter) <= 16777216),
  answer bytea,
  sent_at timestamptz not null default clock_timestamp(),
  taken_at timestamptz,
  expires_at timestamptz not null
);
comment on table millrace.stream_mail is 'Letters from one server to another about a stream of it. Empty but for the last seconds.';
comment on column millrace.stream_mail.id is 'Number of the letter, which its sender knows.';
comment on column millrace.stream_mail.replica is 'Whom it is for: a feed in one process.';
comment on column millrace.stream_mail.letter is 'As the servers write it.';
comment on column millrace.stream_mail.answer is 'Of the receiver; null as long as there is none.';
comment on column millrace.stream_mail.sent_at is 'When it was sent, by the database''s clock.';
comment on column millrace.stream_mail.taken_at is 'When its receiver read it; null as long as nobody has.';
comment on column millrace.stream_mail.expires_at is 'After this it is not taken any more, and some time later deleted.';

create function millrace.send_stream_mail(replica text, letter bytea, lives interval) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  sent bigint;
begin
  -- An hour: nobody waits for an answer that long.
  delete from millrace.stream_mail where id = any (array(
    select m.id from millrace.stream_mail m where m.expires_at < clock_timestamp() - interval '1 hour'
    order by m.id limit 16 for update skip locked));
  insert into millrace.stream_mail (replica, letter, expires_at)
  values (send_stream_mail.replica, send_stream_mail.letter, clock_timestamp() + lives) returning id into sent;
  perform pg_notify('millrace_mail', send_stream_mail.replica);
  return sent;
end $$;
comment on function millrace.send_stream_mail(text, bytea, interval) is
  'Leaves a letter for a server and tells it so. It is to be taken within so long. Answers its number.';

create function millrace.take_stream_mail(replica text) returns table (id bigint, letter bytea)
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  update millrace.stream_mail m set taken_at = clock_timestamp()
  where m.id = any (array(
      select w.id from millrace.stream_mail w
      where w.replica = take_stream_mail.replica and w.taken_at is null and w.expires_at > clock_timestamp()
      order by w.id limit 64 for update skip locked))
  returning m.id, m.letter;
$$;
comment on function millrace.take_stream_mail(text) is 'The letters for a server that it has not taken yet, each once.';

create function millrace.answer_stream_mail(letter bigint, answer bytea) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  update millrace.stream_mail m set answer = answer_stream_mail.answer
  where m.id = answer_stream_mail.letter and m.taken_at is not null;
$$;
comment on function millrace.answer_stream_mail(bigint, bytea) is 'Answers a letter that was taken.';

create function millrace.collect_stream_mail(letter bigint, withdraw boolean, out taken boolean, out answer bytea)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  if collect_stream_mail.withdraw then
    delete from millrace.stream_mail m where m.id = collect_stream_mail.letter
      returning m.taken_at is not null, m.answer into taken, answer;
  else
    select m.taken_at is not null, m.answer into taken, answer
    from millrace.stream_mail m where m.id = collect_stream_mail.letter;
  end if;
end $$;
comment on function millrace.collect_stream_mail(bigint, boolean) is
  'Whether a letter was taken, and its answer; when withdrawn it is gone afterwards. Nulls for a letter that is not there.';

insert into millrace.permission (capability, function)
select 'server', unnest('{send_stream_mail,take_stream_mail,answer_stream_mail,collect_stream_mail}'::name[]);

revoke all on function millrace.send_stream_mail(text, bytea, interval), millrace.take_stream_mail(text),
  millrace.answer_stream_mail(bigint, bytea), millrace.collect_stream_mail(bigint, boolean) from public;
