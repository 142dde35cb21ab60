import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../support/deadline.ts";
import { cleanUp, millrace, parsed, type Running, scratchDirectory, startMillrace } from "./millrace-command.ts";

let directory: string;
let server: Running;
let url: string;

const here = (...args: readonly string[]) => millrace(args, { directory, env: { MILLRACE_URL: url } });
const subscription = (...args: readonly string[]) => here("subscription", ...args);
const lines = (stdout: string) => stdout.trimEnd().split("\n").map(parsed);

async function startServer(port: string): Promise<void> {
  server = startMillrace(["start", "--json", "--port", port], { directory });
  url = String(parsed(await server.line((line) => line.includes('"databaseUrl"'))).url);
}

async function emit(count: number): Promise<void> {
  for (let n = 0; n < count; n++) {
    expect((await here("emit", "notes", JSON.stringify({ n }))).code).toBe(0);
  }
}

beforeAll(async () => {
  directory = await scratchDirectory();
  await startServer("0");
});
afterAll(async () => {
  await server.end("SIGTERM");
  await cleanUp(directory);
});

describe("millrace subscription", { timeout: 180_000 }, () => {
  it("creates, shows, lists, pauses, moves and ends", async () => {
    const create = ["create", "reports/eu", "notes", "orders.*", "--owner", "ana", "--label", "team=blue"];
    const created = await subscription(...create, "--expire-after", "30d", "--json");
    expect(parsed(created.stdout)).toMatchObject({
      subscriptionId: "reports/eu",
      state: "ACTIVE",
      owner: "ana",
      labels: { team: "blue" },
      expireAfterMs: 30 * 86_400_000,
      selectors: [{ topics: ["notes", "orders.*"] }],
      group: null,
    });
    const again = await subscription(...create, "--expire-after", "30d");
    expect([again.code, again.stderr]).toEqual([0, expect.stringContaining("was there already")]);
    const other = await subscription("create", "reports/eu");
    expect([other.code, other.stderr]).toEqual([1, expect.stringContaining("another definition")]);
    await subscription("create", "workers", "notes", "--group", "--max-attempts", "3", "--ack-deadline", "10s");
    const listed = await subscription("list");
    expect(listed.stdout).toMatch(/^SUBSCRIPTION.*\nreports\/eu +ACTIVE.*\nworkers +ACTIVE .*group/);
    const found: unknown = JSON.parse((await subscription("list", "--owner", "ana", "--json")).stdout);
    expect(found).toMatchObject([{ subscriptionId: "reports/eu" }]);
    expect((await subscription("pause", "reports/eu")).stdout).toMatch(/^state +PAUSED$/m);
    const tailed = await here("tail", "--subscription", "reports/eu");
    expect([tailed.code, tailed.stderr]).toEqual([1, expect.stringContaining("paused")]);
    await subscription("resume", "reports/eu");
    expect((await subscription("seek", "reports/eu", "--to", "oldest")).stdout).toMatch(/up to version 0$/m);
    const deleted = await subscription("delete", "reports/eu", "--json");
    expect(parsed(deleted.stdout)).toMatchObject({ subscriptionId: "reports/eu", version: 0 });
    const gone = await subscription("get", "reports/eu", "--json");
    expect(gone.code).toBe(1);
    expect(parsed(gone.stderr)).toMatchObject({ error: { code: "SUBSCRIPTION_NOT_FOUND" } });
    expect((await subscription("dead-letters", "workers")).stdout).toBe("there are no dead letters\n");
    expect((await subscription("discard", "workers")).code).toBe(2);
    await subscription("delete", "workers");
  });

  it("tail prints what is not acknowledged, and with --ack never again", async () => {
    await subscription("create", "jobs", "notes");
    await emit(4);
    const tail = ["tail", "--subscription", "jobs", "--ndjson", "--limit"];
    const first = lines((await here(...tail, "2")).stdout);
    expect(first.map(({ after }) => Object(after).n)).toEqual([0, 1]);
    const second = await here(...tail, "3", "--ack");
    const attempts = lines(second.stdout).map(({ after, attempt }) => ({ n: Object(after).n, attempt }));
    expect(attempts.slice(0, 2)).toEqual([
      { n: 0, attempt: 2 },
      { n: 1, attempt: 2 },
    ]);
    expect(attempts[2]?.n).toBe(2);
    const { version } = lines(second.stdout).at(-1) ?? {};
    expect(second.stderr).toContain(`jobs is acknowledged up to version ${version}`);
    const got = parsed((await subscription("get", "jobs", "--json")).stdout);
    expect(got.version).toBe(version);
    // The third shared its batch with the fourth: its own cursor is exactly after it.
    const third = lines((await here(...tail, "1")).stdout);
    expect(third.map(({ after }) => Object(after).n)).toEqual([3]);
    const said = await subscription("ack", "jobs", String(third[0]?.cursor), "--json");
    expect(parsed(said.stdout)).toMatchObject({ subscriptionId: "jobs", cursor: third[0]?.cursor });
    const stale = await subscription("ack", "jobs", String(third[0]?.cursor), "--generation", "1");
    expect([stale.code, stale.stderr]).toEqual([1, expect.stringContaining("newer consumer")]);
  });

  it("a tail that is taken over says so and ends; one whose server restarts goes on", async () => {
    await subscription("create", "followed", "notes");
    const around = { directory, env: { MILLRACE_URL: url } };
    const old = startMillrace(["tail", "--subscription", "followed", "--ack", "--ndjson"], around);
    await emit(1);
    await old.line((line) => line.includes('"n"'));
    const young = startMillrace(["tail", "--subscription", "followed", "--ack", "--ndjson", "--checkpoints"], around);
    await young.line((line) => line.includes("opened"));
    await emit(1);
    await young.line((line) => line.includes('"n"'));
    expect(await old.endInput()).toBe(1);
    expect(old.stderr()).toContain("taken the subscription over");
    await server.end("SIGTERM");
    await startServer(new URL(url).port);
    await here("emit", "notes", '{"n": "after"}');
    await young.line((line) => line.includes("after"));
    expect(await young.end("SIGINT")).toBe(130);
    expect(young.stderr()).toContain("followed is acknowledged up to version");
  });

  it("tail consumes a group as one of its members, and what it gives up can be listed and discarded", async () => {
    await subscription("create", "crew", "notes", "--group", "--max-attempts", "1");
    const tail = ["tail", "--subscription", "crew", "--member", "ana", "--ndjson", "--limit"];
    await here("emit", "notes", "{}", "--key", "a");
    const first = await here(...tail, "1", "--ack");
    expect(lines(first.stdout).map(({ key }) => key)).toEqual(["a"]);
    expect(first.stderr).toContain("crew is acknowledged up to version");
    await here("emit", "notes", "{}", "--key", "b");
    expect(lines((await here(...tail, "1")).stdout).map(({ key }) => key)).toEqual(["b"]);
    // Its only attempt ended with the stream that it was given to.
    const dead = await eventually(
      async () => (await subscription("dead-letters", "crew", "--json")).stdout || undefined,
    );
    expect(lines(dead)).toMatchObject([{ key: "b", dead: { attempts: 1, replaying: false } }]);
    const discarded = await subscription("discard", "crew", "--all", "--json");
    expect(parsed(discarded.stdout)).toMatchObject({ discarded: 1, remaining: 0 });
  });

  it("refuses what means nothing together", async () => {
    for (const args of [
      ["tail", "--ack"],
      ["tail", "--member", "m"],
      ["tail", "orders", "--subscription", "jobs"],
      ["tail", "--subscription", "jobs", "--from", "oldest"],
      ["subscription", "create", "x", "--max-attempts", "2"],
      ["subscription", "seek", "jobs", "--to", "snapshot"],
      ["subscription", "seek", "jobs"],
    ]) {
      expect((await here(...args)).code, args.join(" ")).toBe(2);
    }
  });
});
