/**
 * Opens the transaction of a publication.
 *
 * READ COMMITTED whatever the role's default, as `millrace.publish` needs it; synchronous_commit because the answer says
 * "committed": it must outlive a crash. A process that freezes in the middle holds nothing but its own key, and not long.
 */
export const beginPublish = `
  begin isolation level read committed read write;
  set local synchronous_commit = on;
  set local lock_timeout = '10s';
  set local statement_timeout = '30s';
  set local idle_in_transaction_session_timeout = '10s'`;

/**
 * $1 to $5 the events' columns, $6 principal, $7 idempotency key, $8 hash of the content, $9 the epoch that the answer will
 * name. assert_epoch fails the transaction when the server behind this connection is not the one that epoch belongs to.
 */
export const publishEvents = `
  select p.xid::text, p.outcome
  from millrace.assert_epoch($9::uuid),
    millrace.publish($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6, $7, $8) p`;

/**
 * The version of a transaction's last event, $1 its xid. No row unless it is settled and its whole batch is kept.
 *
 * As ticks go on, a transaction that is seen stays seen, and ticks are numbered without holes: so the first tick that sees
 * it is found by halving. Its place there is its rank by seq among the rows that this tick sees and the one before does
 * not; that all of them are still there is checked by the tick's own count. All that since the last seam: snapshots and rows
 * from before it have the transaction ids of another server (see millrace.write_seam).
 */
export const findLastVersion = `
  with recursive search(low, high) as (
    select greatest((select min(tick) from millrace.tick),
        (select max(first_tick) from millrace.epoch where not same_xids)), (select max(tick) from millrace.tick)
    union all
    select case when v.seen then s.low else m.tick + 1 end, case when v.seen then m.tick else s.high end
    from search s, lateral (select (s.low + s.high) / 2 as tick) m, lateral (
      select pg_visible_in_snapshot($1::xid8, t.snapshot) as seen from millrace.tick t where t.tick = m.tick) v
    where s.low < s.high
  )
  select (t.first_version + count(*) filter (where o.seq <= l.seq) - 1)::text as version
  from search s
    join millrace.tick t on t.tick = s.low and pg_visible_in_snapshot($1::xid8, t.snapshot)
    join millrace.tick p on p.tick = t.tick - 1 and not pg_visible_in_snapshot($1::xid8, p.snapshot),
    (select max(seq) as seq from millrace.outbox
     where xid = $1::xid8 and seq > (select base_seq from millrace.tick order by tick desc limit 1)) l,
    millrace.outbox o
  where s.low = s.high and l.seq is not null
    and o.seq >= t.min_seq and o.seq <= t.max_seq
    and pg_visible_in_snapshot(o.xid, t.snapshot) and not pg_visible_in_snapshot(o.xid, p.snapshot)
  group by t.first_version, t.count having count(*) = t.count`;
