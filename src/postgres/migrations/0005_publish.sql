-- Events that an application hands to a server instead of writing them itself: all of a request in one transaction, once.

-- Appends the events in order, unless this key was used before. The arrays are of one length, an element for each event.
-- outcome: appended, or, with the xid of the transaction that used the key first: duplicate when it had the same content,
-- conflict when it had other.
--
-- Two requests with one key at once: the second waits in ON CONFLICT until the first is over. If that committed, the row is
-- there to be compared with; if it rolled back, the second takes its place. So the transaction must be READ COMMITTED, for
-- under a snapshot of its own the second would not see the row that stopped it, and fail.
create function millrace.publish(
  topics text[], keys text[], operations text[], payloads text[], headers text[],
  principal text, idempotency_key text, content_hash bytea,
  out xid xid8, out outcome text
)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  kept constant interval := '24 hours';
  used record;
  e record;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'publish() needs a transaction that is READ COMMITTED'
      using errcode = 'MR004', hint = 'begin isolation level read committed';
  end if;
  while publish.idempotency_key <> '' loop
    select p.xid, p.content_hash into used from millrace.publication p
    where p.principal = publish.principal and p.idempotency_key = publish.idempotency_key
      and p.created_at >= clock_timestamp() - kept;
    if found then
      xid := used.xid;
      outcome := case when used.content_hash = publish.content_hash then 'duplicate' else 'conflict' end;
      return;
    end if;
    insert into millrace.publication as p (principal, idempotency_key, content_hash)
    values (publish.principal, publish.idempotency_key, publish.content_hash)
    on conflict (principal, idempotency_key) do update
      set content_hash = excluded.content_hash, xid = excluded.xid, created_at = excluded.created_at
      where p.created_at < clock_timestamp() - kept;
    exit when found;
  end loop;
  for e in
    select u.* from unnest(topics, keys, operations, payloads, headers)
      with ordinality as u(topic, key, operation, payload, headers, at) order by u.at
  loop
    perform millrace.emit(e.topic, e.key, e.payload::json, e.headers::json, e.operation);
  end loop;
  -- Each request with a key takes a few old ones along, so that the table holds a day's worth and nothing need run at times.
  if publish.idempotency_key <> '' then
    delete from millrace.publication where ctid = any (array(
      select p.ctid from millrace.publication p where p.created_at < clock_timestamp() - kept
      order by p.created_at limit 16 for update skip locked));
  end if;
  xid := pg_current_xact_id();
  outcome := 'appended';
end $$;
comment on function millrace.publish(text[], text[], text[], text[], text[], text, text, bytea) is
  'Appends events in one transaction, once per principal and idempotency key within 24 h. What the server calls for Publish.';
revoke all on function millrace.publish(text[], text[], text[], text[], text[], text, text, bytea) from public;
