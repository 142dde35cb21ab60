-- What servers found stuck of themselves and restarted, of the last day: so that whoever asks the database why events came
-- late is told also of what is over. Each server writes here by itself, and nothing depends on it.

create table millrace.restart (
  id bigint generated always as identity primary key,
  server text not null check (length(server) <= 64),
  part text not null check (length(part) <= 64),
  code text not null check (length(code) <= 64),
  message text not null check (length(message) <= 2000),
  at timestamptz not null default clock_timestamp()
);
comment on table millrace.restart is 'What servers found stuck of themselves and restarted, of the last day. millrace why tells of it.';
comment on column millrace.restart.id is 'In the order of writing.';
comment on column millrace.restart.server is 'Which server, as its sessions call themselves in pg_stat_activity.';
comment on column millrace.restart.part is 'What of it: tail, waiter, history and so on.';
comment on column millrace.restart.code is 'As GetStatus has it: TAIL_STUCK and so on.';
comment on column millrace.restart.message is 'What was seen, as a sentence.';
comment on column millrace.restart.at is 'When, by the database''s clock.';

create function millrace.note_restart(server text, part text, code text, message text) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  -- A few rows at a time, for servers on a bad network write here often.
  delete from millrace.restart r where r.id = any (array(
    select o.id from millrace.restart o
    where o.at < clock_timestamp() - interval '1 day' or o.id <= (select max(n.id) - 1000 from millrace.restart n)
    order by o.id limit 16 for update skip locked));
  insert into millrace.restart (server, part, code, message)
  values (note_restart.server, note_restart.part, note_restart.code, left(note_restart.message, 2000));
$$;
comment on function millrace.note_restart(text, text, text, text) is
  'Keeps for a day that a server has restarted a part of itself. The thousand last ones are kept.';

insert into millrace.permission (capability, function) values ('server', 'note_restart');

revoke all on function millrace.note_restart(text, text, text, text) from public;
