import { expect, test } from "vitest";
import { FeedError } from "../../../src/core/errors.ts";
import type { Claim } from "../../../src/core/subscription/subscription-store.ts";
import { migrate } from "../../../src/postgres/migrate.ts";
import { createPostgresStore } from "../../../src/postgres/store.ts";
import { at, claimant, subscription } from "../../contract/subscriptions/world.ts";
import { freshDatabase, sharedCluster } from "../../support/cluster.ts";
import { eventually } from "../../support/deadline.ts";
import { query } from "../../support/restores.ts";
import { never } from "../ordering/stage.ts";

async function insert(url: string, count: number): Promise<readonly string[]> {
  await query(
    url,
    `insert into millrace.subscription (id, definition, is_group, topics, owner, labels, epoch, version, place, cursor)
     select 's' || n, repeat('definition ', 40), n % 2 = 0, '{a,b}', 'o', '{"a":"b"}', (millrace.epoch_in_force()).id, 0, 9007199254740991, 'cursor-0'
     from generate_series(1, $1::int) n`,
    [count],
  );
  return Array.from({ length: count }, (_, n) => `s${n + 1}`);
}

test("a thousand acknowledgements are one call of one function, and touch no index", async () => {
  const url = await freshDatabase({ migrated: true });
  await query(url, `alter database ${new URL(url).pathname.slice(1)} set track_functions = 'pl'`);
  const ids = await insert(url, 1_000);
  const store = createPostgresStore({ url, directUrl: false });
  await store.start(never);
  const rounds = 8;
  for (let version = 1; version <= rounds; version++) {
    const outcomes = await store.subscriptions.advance(
      ids.map((id) => ({ id, generation: 0, position: at(version, store) })),
      never,
    );
    expect(outcomes).toEqual(ids.map(() => ({ kind: "advanced", position: at(version, store) })));
  }
  // Nothing new: nothing is written.
  await store.subscriptions.advance(
    ids.map((id) => ({ id, generation: 0, position: at(1, store) })),
    never,
  );
  // What a session has counted is known at the latest when it ends.
  await store.stop();
  const calls = "select calls::int from pg_stat_user_functions where funcname = 'advance_subscriptions'";
  await eventually(async () => (await query(url, calls))[0]?.[0] === rounds + 1);
  const updates = `select n_tup_upd::int, n_tup_hot_upd::int from pg_stat_user_tables where relname = 'subscription'`;
  await eventually(async () => Number((await query(url, updates))[0]?.[0]) >= rounds * 1_000);
  const [[updated, hot] = []] = await query(url, updates);
  expect(updated).toBe(rounds * 1_000);
  expect(Number(hot) / Number(updated)).toBeGreaterThan(0.9);
});

test("thousands who take their subscriptions up together share a few transactions, and each has a generation of its own", async () => {
  const url = await freshDatabase({ migrated: true });
  await query(url, `alter database ${new URL(url).pathname.slice(1)} set track_functions = 'pl'`);
  const ids = await insert(url, 2_500);
  const store = createPostgresStore({ url, directUrl: false });
  await store.start(never);
  const { subscriptions } = store;
  const claims = await Promise.all(
    [...ids, "s1", "ghost"].map((id) => outcome(subscriptions.claim(id, claimant("r"), never))),
  );
  expect(new Set(claims).size).toBe(ids.length + 2);
  expect(claims.at(-1)).toBe("SUBSCRIPTION_NOT_FOUND");
  // One after the other: the later one has it.
  expect((await subscriptions.get("s1", never)).generation).toBe(claims.at(-2));
  expect((await subscriptions.get("s2", never)).generation).toBe(claims[1]);
  await store.stop();
  const calls = "select calls::int from pg_stat_user_functions where funcname = 'claim_subscriptions'";
  await eventually(async () => (await query(url, calls)).length > 0);
  expect(Number((await query(url, calls))[0]?.[0])).toBeLessThan(10);
});

test("what a database's encoding lacks is refused, and no acknowledgement fails for it", async () => {
  const cluster = await sharedCluster();
  const name = `latin_${process.pid}`;
  const provider = await query(
    cluster.url(),
    "select case when current_setting('server_version_num')::int >= 150000 then 'locale_provider libc' else '' end",
  );
  await query(
    cluster.url(),
    `create database ${name} template template0 encoding 'LATIN1' locale 'C' ${provider[0]?.[0]}`,
  );
  const url = cluster.url(name);
  await migrate(url);
  const store = createPostgresStore({ url, directUrl: false });
  await store.start(never);
  const { subscriptions } = store;
  const asked = subscription("g", store, { isGroup: true, owner: "Zürich" });
  for (const rest of [{ owner: "東京" }, { labels: { city: "東京" } }, { definition: '"東京"' }, { owner: "\0" }]) {
    await expect(subscriptions.create({ ...asked, ...rest }, never)).rejects.toMatchObject({ code: "INVALID_REQUEST" });
  }
  await subscriptions.create(asked, never);
  await subscriptions.create(subscription("other", store), never);
  const { record } = await subscriptions.claim("g", claimant("r"), never);
  const letter = {
    version: 1,
    topic: "t",
    key: "ü",
    operation: "MESSAGE",
    transaction: "1",
    occurredAtMicros: 0,
  } as const;
  const rest = { before: undefined, after: undefined, headers: undefined, transition: undefined, attempts: 1 };
  const told = await subscriptions.advance(
    [
      { id: "other", generation: 0, position: at(0, store, "-later") },
      { id: "g", generation: record.generation, deadLetters: [{ ...letter, ...rest, reason: "東京 ü\0 failed" }] },
    ],
    never,
  );
  expect(told.map(({ kind }) => kind)).toEqual(["advanced", "advanced"]);
  expect(await subscriptions.get("g", never)).toMatchObject({ owner: "Zürich", deadLetters: 1 });
  const { items } = await subscriptions.deadLetters("g", {}, { limit: 1, after: undefined }, never);
  expect(items).toMatchObject([{ key: "ü", reason: "?? ?? failed" }]);
  await expect(subscriptions.list({ owner: "東京" }, { limit: 1, after: undefined }, never)).rejects.toMatchObject({
    code: "INVALID_REQUEST",
  });
  await store.stop();
});

/** The generation that a claim got, or the code of its failure. */
async function outcome(claim: Promise<Claim>): Promise<unknown> {
  return await claim.then(
    ({ record }) => record.generation,
    (error: unknown) => (error instanceof FeedError ? error.code : error),
  );
}

test("replicas whose role defaults to SERIALIZABLE race for the same subscriptions without an error", async () => {
  const admin = await freshDatabase({ migrated: true });
  const role = `strict_${process.pid}`;
  await query(admin, `create role ${role} login`);
  await query(admin, `alter role ${role} set default_transaction_isolation = 'serializable'`);
  await query(admin, `alter role ${role} set default_transaction_read_only = on`);
  await query(admin, `alter role ${role} set synchronous_commit = off`);
  await query(admin, `select millrace.allow('${role}', 'server')`);
  const url = new URL(admin);
  url.username = role;
  const ids = await insert(admin, 50);
  const stores = [0, 1].map(() => createPostgresStore({ url: url.href, directUrl: false }));
  for (const store of stores) await store.start(never);
  const rounds = Array.from({ length: 30 }, (_, round) => round);
  await Promise.all(
    rounds.flatMap((round) =>
      stores.map(async (store, n) => {
        const mine = (round + n) % 2 === 0 ? ids : ids.toReversed();
        await store.subscriptions.advance(
          mine.map((id) => ({ id, generation: 0, position: at(round, store) })),
          never,
        );
        const { record } = await store.subscriptions.claim("s1", claimant(`r${n}`), never);
        await store.subscriptions.renew(
          mine.map((id) => ({ id, generation: record.generation })),
          1_000,
          never,
        );
        await store.subscriptions.release([record], never);
        await store.subscriptions.create(subscription(`made-${round}`, store), never);
      }),
    ),
  );
  const [first] = stores;
  const { items } = (await first?.subscriptions.list({ owner: "o" }, { limit: 100, after: undefined }, never)) ?? {};
  expect(items?.map(({ position }) => position.version)).toEqual(ids.map(() => 29));
  for (const store of stores) await store.stop();
});
