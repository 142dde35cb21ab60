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
