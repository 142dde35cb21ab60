import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createCluster, type TestCluster } from "../support/cluster.ts";
import { cleanUp, millrace, parsed, scratchDirectory, startMillrace } from "./millrace-command.ts";

let cluster: TestCluster;
let directory: string;
beforeAll(async () => {
  cluster = await createCluster();
  directory = await scratchDirectory();
});
afterAll(async () => {
  await cluster[Symbol.asyncDispose]();
  await cleanUp(directory);
});

async function query(url: string, text: string): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}

/** Two events of eight days ago in a partition that the sequence has left, and one of now. */
async function history(url: string): Promise<void> {
  const tick =
    "begin isolation level read committed; set local synchronous_commit = on; select millrace.tick(); commit";
  for (const _ of [1, 2]) {
    await query(url, "select millrace.emit('orders')");
    await query(url, tick);
  }
  await query(url, "update millrace.tick set time = time - interval '8 days'");
  await query(url, "select millrace.extend_outbox(0), millrace.skip_to(10000001)");
  await query(url, "select millrace.emit('orders')");
  await query(url, tick);
}

it("shows and sets what is kept, holds it, prunes it, and says so in the status", async () => {
  const url = await cluster.createDatabase();
  const run = (...args: readonly string[]) => millrace([...args, "--database-url", url], { directory });
  await run("migrate");
  await history(url);

  expect(await run("retain")).toMatchObject({ code: 0, stdout: "kept           7 d\nheld, at most  30 d\n" });
  expect(await run("retain", "--bytes", "50GiB")).toMatchObject({ stdout: expect.stringContaining("7 d or 50 GiB") });
  expect(parsed((await run("retain", "--age", "2w", "--hold-cap-age", "none", "--json")).stdout)).toEqual({
    keepAgeMs: 14 * 86_400_000,
    keepBytes: 50 * 2 ** 30,
    holdCapAgeMs: null,
    holdCapBytes: null,
  });
  await run("retain", "--age", "7d");

  expect(await run("hold")).toMatchObject({ stdout: "nothing holds history back\n" });
  const held = await run("hold", "backfill", "--for", "2d");
  expect(held.stdout).toMatch(/^backfill holds what follows version 0, until 20/);
  expect((await run("hold")).stdout).toMatch(/hold +backfill +0 +20\S+ +kept\n$/);
  expect((await run("prune", "--dry-run")).stdout).toMatch(
    /outbox_1 +\d+ KiB +versions up to 2 +\S+ +kept for hold backfill\n$/,
  );

  expect(await run("hold", "backfill", "--release")).toMatchObject({ code: 0 });
  expect(await run("hold", "backfill", "--release")).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("no hold"),
  });
  expect((await run("prune", "--dry-run")).stdout).toMatch(/would go \(age\)\n$/);
  expect(await query(url, "select count(*)::int as count from millrace.outbox")).toEqual([{ count: 3 }]);

  await run("hold", "later", "--after", "2", "--for", "12h");
  expect(parsed((await run("prune", "--json")).stdout)).toEqual({
    dryRun: false,
    dropped: ["outbox_1"],
    made: 1,
    lost: [],
    expired: [],
  });
  expect(await run("prune")).toMatchObject({ stdout: "nothing to do\n" });
  expect(await query(url, "select count(*)::int as count from millrace.outbox")).toEqual([{ count: 1 }]);

  const server = startMillrace(["start", "--json", "--port", "0"], { directory, env: { DATABASE_URL: url } });
  const started = parsed(await server.line((line) => line.includes('"serverVersion"')));
  const status = (...args: readonly string[]) =>
    millrace(["status", "--url", String(started.url), ...args], { directory });
  expect(await status("--json")).toMatchObject({ code: 0, stderr: "" });
  expect(parsed((await status("--json")).stdout)).toMatchObject({
    oldestVersion: 3,
    headVersion: 3,
    storage: {
      bytes: expect.any(Number),
      oldestSettledAt: expect.stringMatching(/^20/),
      keepAgeMs: 7 * 86_400_000,
      keepBytes: 50 * 2 ** 30,
      holds: [{ kind: "hold", name: "later", version: 2, overridden: false }],
    },
    problems: [],
  });
  const text = (await status()).stdout;
  expect(text).toMatch(/^outbox +\d+ KiB, kept 7 d or 50 GiB$/m);
  expect(text).toMatch(/^held back +by hold later, after version 2, until 20\S+$/m);
  expect(await server.end("SIGTERM")).toBe(0);
});

it("says which subscriptions hold history back, without a line for each, and which are past the cap", async () => {
  const url = await cluster.createDatabase();
  const run = (...args: readonly string[]) => millrace([...args, "--database-url", url], { directory });
  await run("migrate");
  await history(url);
  await query(
    url,
    `insert into millrace.subscription
       (id, definition, is_group, topics, owner, labels, epoch, version, place, cursor, expire_after, last_used_at)
     select 's' || n, '{}', false, '{}', '', '{}', (millrace.epoch_in_force()).id, least(n, 3), 0, 'c',
       case when n = 9 then interval '1 hour' end, clock_timestamp() - n * interval '1 day'
     from generate_series(1, 9) n`,
  );
  const listed = (await run("hold")).stdout;
  expect(listed).toMatch(/subscription +s1 +1 +never +kept\n/);
  expect(listed.match(/subscription +s/g)?.length).toBe(5);
  expect(listed).toMatch(/\nand 4 more subscriptions\n$/);
  expect((await run("prune", "--dry-run")).stdout).toMatch(/kept for subscription s1\n$/);
  expect(await run("prune")).toMatchObject({
    stdout: expect.stringMatching(/deleted subscription s9, which nobody used\n$/),
  });
  await query(url, "update millrace.tick set time = time - interval '23 days'");
  const pruned = parsed((await run("prune", "--json")).stdout);
  expect(pruned).toMatchObject({ dropped: ["outbox_1"], lost: ["s1"], expired: [] });
  const server = startMillrace(["start", "--json", "--port", "0"], { directory, env: { DATABASE_URL: url } });
  const started = parsed(await server.line((line) => line.includes('"serverVersion"')));
  const { stdout } = await millrace(["status", "--url", String(started.url)], { directory });
  expect(stdout).toMatch(/^subscriptions +8, of which those furthest behind are listed$/m);
  expect(stdout).toMatch(/^SUBSCRIPTION_LOST: Subscription "s1" was past the cap/m);
  expect(await (await fetch(`${started.url}/readyz`)).text()).toContain("SUBSCRIPTION_LOST");
  expect(await server.end("SIGTERM")).toBe(0);
});

it("says what to do to whoever asks for something else", async () => {
  const url = await cluster.createDatabase();
  const run = (...args: readonly string[]) => millrace([...args, "--database-url", url], { directory });
  for (const args of [
    ["retain", "--age", "7"],
    ["retain", "--bytes", "much"],
    ["hold", "--for", "1d"],
    ["hold", "x", "--for", "0s"],
  ]) {
    expect(await run(...args), args.join(" ")).toMatchObject({ code: 2, stdout: "" });
  }
  expect(await run("prune")).toMatchObject({ code: 1, stderr: expect.stringContaining("millrace doctor") });
  await run("migrate");
  expect(await run("hold", "x", "--after", "5")).toMatchObject({
    code: 2,
    stderr: "millrace: Version 5 has not been settled: the last one is 0.\n  Hold from the last version at most.\n",
  });
  await query(url, "create role retention_nobody login");
  const nobody = url.replace("postgres@", "retention_nobody@");
  expect(await millrace(["retain", "--database-url", nobody], { directory })).toMatchObject({ code: 1 });
});
