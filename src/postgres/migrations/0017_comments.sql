-- What the first tables and functions say of themselves to \d+ and \df+. test/integration/migrate holds every later one to it.

comment on sequence millrace.outbox_seq is 'Draws outbox.seq. Moves forward only, also past numbers that nobody uses.';

comment on column millrace.outbox.xid is 'The top-level transaction that wrote the event: in the server where it was written.';
comment on column millrace.outbox.seq is 'Order of insertion, drawn after xid. Rises, with holes; the partition it lies in goes by it.';
comment on column millrace.outbox.topic is 'Dotted name, at most 255 bytes.';
comment on column millrace.outbox.key is 'What the event is about, as text; null for events about nothing in particular. At most 8192 bytes when emitted.';
comment on column millrace.outbox.before is 'The row before, as JSON; null where there is none or the source leaves it out.';
comment on column millrace.outbox.after is 'The row after, or the payload, as JSON.';
comment on column millrace.outbox.headers is 'A JSON object of strings, or null.';
comment on column millrace.outbox.occurred_at is 'When the event was written, by the database''s clock: before its transaction committed.';
comment on column millrace.outbox.source_id is 'The watched table (millrace.source.id); null for an application''s own event.';

comment on column millrace.tick.tick is 'Number of the batch, from 0. Dense; those of forgotten history are deleted.';
comment on column millrace.tick.snapshot is 'What was visible: the batch is what this sees and the one before did not. Of a seam, see seam_seq.';
comment on column millrace.tick.first_version is 'Version of the batch''s first event; of an empty one, that of the next event to come.';
comment on column millrace.tick.count is 'Events in the batch.';
comment on column millrace.tick.min_seq is 'Least seq of the batch; null when it is empty.';
comment on column millrace.tick.max_seq is 'Greatest seq of the batch; null when it is empty.';
comment on column millrace.tick.base_seq is 'Rows at or below it were settled before the last seam: their xids mean nothing here.';
comment on column millrace.tick.floor_seq is 'Every row at or below it is settled: later ticks do not look there.';
comment on column millrace.tick.next_floor_seq is 'Becomes floor_seq once no transaction up to next_floor_xid is in progress.';
comment on column millrace.tick.next_floor_xid is 'Whoever drew a seq up to next_floor_seq had a lower xid.';
comment on column millrace.tick.time is 'When it was settled, by the database''s clock; never earlier than the tick before.';

comment on table millrace.publication is 'Publish requests with an idempotency key, for 24 h: the same key answers as the first time.';
comment on column millrace.publication.principal is 'Whose key it is; empty for everybody''s.';
comment on column millrace.publication.idempotency_key is 'As the client gave it.';
comment on column millrace.publication.content_hash is 'Of the events: the same key with others is refused.';
comment on column millrace.publication.xid is 'The transaction that appended the events.';
comment on column millrace.publication.created_at is 'When, by the database''s clock.';

comment on column millrace.registration.count is 'Tables watched so far, again or anew.';
comment on column millrace.retention.one is 'There is one row.';

comment on column millrace.hold.name is 'What it is called, by whoever took it.';
comment on column millrace.hold.version is 'Events after this version are kept.';
comment on column millrace.hold.epoch is 'The epoch in force when it was taken.';
comment on column millrace.hold.expires_at is 'When it ends by itself.';
comment on column millrace.hold.created_by is 'The role that took it.';
comment on column millrace.hold.created_at is 'When it was taken first.';

comment on column millrace.migration.number is 'Number of the file, from 1.';
comment on column millrace.migration.name is 'Name of the file without its ending.';
comment on column millrace.migration.sha256 is 'Of the file''s bytes: one that changed after it ran is refused.';
comment on column millrace.migration.applied_at is 'When it ran.';

comment on function millrace.assert_epoch(uuid) is
  'The epoch in force. Raises MR002 on a standby, MR001 when another one is expected, MR003 when this database is not the one '
  'that the epoch was written by.';
comment on function millrace.new_xids(pg_snapshot, pg_snapshot) is
  'Transaction ids that the later snapshot sees and the earlier one did not, as open intervals. Of two snapshots of one server.';
comment on function millrace.settle(boolean) is 'Writes the next tick; with false only if there is something to settle. Part of tick and snapshot_tick.';
comment on function millrace.tick(uuid) is
  'Settles what has committed since the last tick and returns the last tick and version there are. Alone in a transaction that '
  'is READ COMMITTED with synchronous_commit on, else MR004.';
comment on function millrace.snapshot_tick(uuid) is
  'The tick at exactly this REPEATABLE READ transaction''s snapshot, written also when it is empty. Its first statement must '
  'lock millrace.tick_lock in SHARE ROW EXCLUSIVE mode, else MR004 or a conflict.';
comment on function millrace.tail(uuid, bigint, int, bigint) is
  'Events after a version that ends a tick, in order, at most so many rows and about so many bytes of images. MR005 when a '
  'batch is not what was settled.';
comment on function millrace.wake_waiter() is 'Wakes a sleeping server, if one sleeps. The trigger on millrace.outbox; fails no writer.';
