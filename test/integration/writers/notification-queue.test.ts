import pg from "pg";
import { expect, it } from "vitest";
import { createFeed } from "../../../src/core/feed/feed-service.ts";
import { migrate } from "../../../src/postgres/migrate.ts";
import { createPostgresStore } from "../../../src/postgres/store.ts";
import { createCluster } from "../../support/cluster.ts";

it("G11 commit, and are heard of, while a listener that is stuck in a transaction fills the notification queue", async () => {
  // 64 pages of 8 KiB: the least there may be. Before Postgres 17 the queue's size could not be set.
  await using cluster = await createCluster({
    settings: { max_notify_queue_pages: "64", max_prepared_transactions: "0" },
  });
  const url = await cluster.createDatabase();
  await migrate(url);
  const [stuck, writer] = [new pg.Client({ connectionString: url }), new pg.Client({ connectionString: url })];
  await Promise.all([stuck.connect(), writer.connect()]);
  const usage = async () =>
    Number((await writer.query<{ used: string }>("select pg_notification_queue_usage() as used")).rows[0]?.used);
  await stuck.query("listen something");
  await stuck.query("begin; select 1");
  while ((await usage()) < 0.5) await writer.query("select pg_notify('something', repeat('x', 7900))");
  const filled = await usage();

  const store = createPostgresStore({ url });
  const never = new AbortController().signal;
  await store.start(never);
  const feed = createFeed({
    store,
    wakeUp: store.wakeUp,
    limits: {},
    report: () => undefined,
    onOver: () => undefined,
  });
  await feed.start(never);
  for (let event = 1; event <= 300; event += 1) await writer.query("select millrace.emit('notes')");
  await expect.poll(async () => (await store.bounds(never)).head, { timeout: 20_000 }).toBe(300);
  // Not one notification of Millrace's was added.
  expect(await usage()).toBe(filled);
  await feed.stop();
  await store.stop();
  await stuck.query("rollback");
  await Promise.all([stuck.end(), writer.end()]);
});
