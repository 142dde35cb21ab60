import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findRunning } from "../../src/embedded/embedded-postgres.ts";
import { eventually } from "../support/deadline.ts";
import { cleanUp, millrace, parsed, type Running, scratchDirectory, startMillrace } from "./millrace-command.ts";

let directory: string;
let server: Running;
let url: string;
let databaseUrl: string;

async function startServer(port: string): Promise<Readonly<Record<string, unknown>>> {
  server = startMillrace(["start", "--json", "--port", port], { directory });
  const started = parsed(await server.line((line) => line.includes('"databaseUrl"')));
  url = String(started.url);
  databaseUrl = String(started.databaseUrl);
  return started;
}

const here = (...args: readonly string[]) => millrace(args, { directory, env: { MILLRACE_URL: url } });

beforeAll(async () => {
  directory = await scratchDirectory();
  await startServer("0");
});
afterAll(async () => {
  await server.end("SIGTERM");
  await cleanUp(directory);
});

describe("millrace start, on an embedded Postgres in a path with spaces", () => {
  it("runs the demo: tail sees its events from the first on", async () => {
    const { code, stdout, stderr } = await here("tail", "--from", "oldest", "--limit", "30");
    const events = stdout.trimEnd().split("\n").map(parsed);
    expect(code).toBe(0);
    expect(events.map(({ version }) => version)).toEqual(Array.from({ length: 30 }, (_, at) => at + 1));
    expect(new Set(events.map(({ topic }) => String(topic).split(".")[0]))).toEqual(new Set(["customers", "orders"]));
    expect(stderr).toContain("go on with --from ");
  });

  it("tail filters and cuts rows, and says where a filter cannot be read", async () => {
    const asked = ["tail", "orders.*", "--from", "oldest", "--limit", "5"];
    const { stdout } = await here(...asked, "--filter", "row.total > 100", "--fields", "id,total");
    const rows = stdout.trimEnd().split("\n").map(parsed);
    expect(rows).toHaveLength(5);
    for (const { after, transition } of rows) {
      if (transition === "LEFT") continue;
      expect(Object.keys(Object(after))).toEqual(["id", "total"]);
      expect(Number(Object(after).total)).toBeGreaterThan(100);
    }
    const { code, stderr } = await here(...asked, "--filter", "row.total >");
    expect(code).not.toBe(0);
    expect(stderr).toContain("column ");
  });

  it("tells whoever finds the port taken, and leaves nothing running", async () => {
    const port = new URL(url).port;
    const { code, stderr } = await millrace(["start", "--port", port, "--data-dir", "other"], { directory });
    expect(stderr).toContain(`Port ${port} on 127.0.0.1 is taken`);
    expect(code).toBe(6);
    expect(await findRunning(join(directory, "other"))).toBeUndefined();
  });

  it("tells whoever finds the data directory in use which process has it", async () => {
    const { code, stderr } = await millrace(["start", "--port", "0"], { directory });
    expect(stderr).toContain(`process ${server.pid}`);
    expect(code).toBe(3);
  });

  it("prints what to paste next, also with a locale that nobody has", async () => {
    const second = startMillrace(["start", "--port", "0", "--data-dir", "other"], {
      directory,
      env: { LANG: "xx_YY.UTF-8", LC_ALL: "xx_YY.UTF-8" },
    });
    const curl = await second.line((line) => line.includes("buf curl"));
    const tail = await second.line((line) => line.includes("millrace tail --from oldest --url http://127.0.0.1:"));
    const postgres = await second.line((line) => line.trim().startsWith("postgres://"));
    expect(curl.trim()).toMatch(
      /^npx buf curl --http2-prior-knowledge --reflect http:\/\/127\.0\.0\.1:\d+\/millrace\.v1\.FeedService\/Subscribe -d '\{"oldest":\{\}\}'$/,
    );
    const pasted = await millrace(
      ["tail", "--limit", "1", "--from", "oldest", "--url", tail.trim().split(" ").at(-1) ?? ""],
      { directory },
    );
    expect(pasted.code).toBe(0);
    expect((await millrace(["sources", "--database-url", postgres.trim()], { directory })).stdout).toContain(
      "orders.{region}",
    );
    expect(await second.end("SIGINT")).toBe(0);
    expect(await findRunning(join(directory, "other"))).toBeUndefined();
  });

  it("goes on after kill -9: Postgres is adopted, and a tail resumes without losing or repeating anything", async () => {
    const tail = startMillrace(["tail", "--from", "oldest", "--ndjson", "--url", url], { directory });
    await tail.line((line) => parsed(line).version === 10);
    expect(await server.end("SIGKILL")).toBe("SIGKILL");
    const before = parsed(tail.lines.at(-1) ?? "").version;
    const started = await startServer(new URL(url).port);
    expect(started.embedded).toMatchObject({ adopted: true });
    await tail.line((line) => Number(parsed(line).version) > Number(before) + 10);
    expect(await tail.end("SIGINT")).toBe(130);
    const versions = tail.lines.map((line) => parsed(line).version);
    expect(versions).toEqual(versions.map((_, at) => at + 1));
    const told = tail.stderr().trimEnd().split("\n");
    expect(told[0]).toContain("the stream was cut");
    expect(told.at(-2)).toBe("millrace: the stream is back");
    expect(new Set(told).size).toBe(told.length);
    const cursor = /go on with --from (\S+)/.exec(tail.stderr())?.[1] ?? "";
    const next = await here("tail", "--from", cursor, "--limit", "1");
    expect(parsed(next.stdout).version).toBe(versions.length + 1);
  });
});

describe("commands on the database that runs here", () => {
  let client: pg.Client;
  beforeAll(async () => {
    client = new pg.Client({ connectionString: databaseUrl });
    await client.connect();
  });
  afterAll(() => client.end());

  it("watch, list, change and unwatch a table", async () => {
    await client.query("create table invoices (id bigint primary key, total numeric, secret text)");
    const watched = await here("watch", "invoices", "--exclude", "secret", "--no-before", "--json");
    expect(parsed(watched.stdout)).toMatchObject({
      topic: "invoices",
      keyColumns: ["id"],
      beforeValues: false,
      problems: [],
    });
    await client.query("insert into invoices values (9007199254740993, 12345678901234567890.10, 'hidden')");
    const [line = ""] = (await here("tail", "invoices", "--from", "oldest", "--limit", "1")).stdout.split("\n");
    expect(line).toContain('"after":{"id":9007199254740993,"total":12345678901234567890.10}');
    await client.query('alter table invoices disable trigger "!millrace_row"');
    expect((await here("sources")).stdout).toContain("TRIGGER_OFF");
    const listed: unknown = JSON.parse((await here("sources", "--json")).stdout);
    expect(listed).toContainEqual(
      expect.objectContaining({
        table: "public.invoices",
        problems: [expect.objectContaining({ kind: "TRIGGER_OFF" })],
      }),
    );
    expect((await here("unwatch", "invoices", "--json")).stdout).toBe('{"table":"invoices","watched":false}\n');
    expect((await here("unwatch", "invoices")).code).toBe(1);
  });

  it("says which pid is in the way of a watch, and gets through once it has gone", async () => {
    await client.query("create table busy (id int primary key)");
    await client.query("begin; insert into busy values (1)");
    const { rows } = await client.query<{ pid: number }>("select pg_backend_pid() as pid");
    const watching = startMillrace(["watch", "busy"], { directory });
    await expect.poll(() => watching.stderr(), { timeout: 20_000 }).toContain(`pid ${rows[0]?.pid}`);
    await client.query("commit");
    expect(await watching.line((line) => line.startsWith("watching public.busy"))).toContain("as busy, by id");
  });

  it("emit events that tail prints as they were written", async () => {
    const payload = '{ "amount": 1.10, "big": 123456789012345678901234567890 }';
    const emitted = await millrace(["emit", "billing.invoiced", "-", "--key", "42", "--header", "a=b", "--json"], {
      directory,
      input: payload,
    });
    expect(parsed(emitted.stdout).transaction).toMatch(/^[0-9a-f-]{36}:\d+$/);
    const { stdout } = await here("tail", "billing.>", "--from", "oldest", "--limit", "1");
    expect(stdout).toContain(`"key":"42","operation":"MESSAGE","after":${payload},`);
    expect(parsed(stdout)).toMatchObject({ topic: "billing.invoiced", headers: { a: "b" } });
  });

  it("tail a snapshot, and only keys and operations that are asked for", async () => {
    const snapshot = await here("tail", "customers", "--from", "snapshot", "--limit", "5");
    const [started, ...rows] = snapshot.stdout.trimEnd().split("\n").map(parsed);
    expect(started).toMatchObject({ frame: "snapshot_started", restart: false, topics: ["customers"] });
    expect(rows.map(({ operation }) => operation)).toEqual(Array.from({ length: 5 }, () => "SNAPSHOT"));
    const [, position] = /go on with --from (\S+)/.exec(snapshot.stderr) ?? [];
    const goesOn = await here("tail", "customers", "--from", position ?? "", "--limit", "1");
    expect(parsed(goesOn.stdout.split("\n")[0] ?? "")).toMatchObject({ frame: "snapshot_started", resumed: true });
    const one = await here(
      "tail",
      "customers",
      "--from",
      "oldest",
      "--key",
      "3",
      "--operation",
      "insert",
      "--limit",
      "1",
      "--no-payload",
    );
    expect(parsed(one.stdout)).toMatchObject({ key: "3", operation: "INSERT" });
    expect(parsed(one.stdout)).not.toHaveProperty("after");
  });

  it("why and doctor look for what is wrong, and fail when something is", async () => {
    const sound = await here("why", "--json");
    const seen = parsed(sound.stdout);
    expect(sound.code).toBe(0);
    expect(seen.findings).toContainEqual(expect.objectContaining({ code: "SETTLING", severity: "ok" }));
    const well = await here("doctor");
    expect(well.stdout).toMatch(/^ok +SCHEMA: /m);
    expect(well.code).toBe(0);
    await client.query('alter table orders disable trigger "!millrace_row"');
    const ill = await here("doctor", "--json");
    expect(parsed(ill.stdout).findings).toContainEqual(
      expect.objectContaining({ code: "TRIGGER_OFF", severity: "error" }),
    );
    expect(ill.code).toBe(1);
    const why = await here("why");
    expect(why.stdout).toMatch(/^error +TRIGGER_OFF: /m);
    expect(why.code).toBe(1);
    await client.query('alter table orders enable always trigger "!millrace_row"');
  });

  it("tail ends without a word when nobody reads it any more", async () => {
    const tail = startMillrace(["tail", "--from", "oldest", "--url", url], { directory });
    await tail.line((line) => parsed(line).version === 2);
    expect(await tail.closeOutput()).toBe(0);
    expect(tail.stderr()).toBe("");
  });

  it("status and migrate answer people and scripts", async () => {
    // The server looks at its tables every ten seconds, and a test before this one had a trigger off for a moment.
    const problems = async () => parsed((await here("status", "--json")).stdout).problems;
    await eventually(async () => JSON.stringify(await problems()) === "[]");
    expect(parsed((await here("status", "--json")).stdout)).toMatchObject({ state: "LIVE", problems: [] });
    expect((await here("status")).stdout).toMatch(/^state +LIVE$/m);
    expect((await here("migrate")).stdout).toMatch(/^up to date: schema \d+$/m);
    expect((await here("migrate", "--dry-run", "--json")).stdout).toBe('{"dryRun":true,"pending":[]}\n');
  });
});

describe("what goes wrong is one sentence, what to do, and an exit code", () => {
  const noDatabase = ["--database-url", "postgres://127.0.0.1:1/nothing"];

  it.each([
    { args: ["watch", "custmers"], code: 2, says: "Did you mean public.customers?" },
    { args: ["watch", "pg_class"], code: 2, says: "system catalog" },
    { args: ["watch", "a.b.c"], code: 2, says: "Name it as SQL would" },
    { args: ["watch", "orders", "--topic", "customers"], code: 2, says: "a topic of its own: --topic NAME" },
    { args: ["watch", "orders", "--poll", "id", "--every", "0s"], code: 2, says: "too short: 1s is the least" },
    { args: ["watch", "orders", "--topic", "orders.{regoin}"], code: 2, says: "regoin" },
    { args: ["emit", "orders.eu", "{}"], code: 1, says: "belongs to the watched table" },
    { args: ["emit", "a..b"], code: 2, says: "dotted name" },
    { args: ["emit", "a.b", "{x"], code: 2, says: "not JSON" },
    { args: ["tail", "--from", "rubbish"], code: 5, says: "cursor" },
    { args: ["tail", "--from", "version:999999999"], code: 5, says: "999999999" },
    { args: ["tail", "--from", "version:x"], code: 2, says: "not a version" },
    { args: ["tail", "orders..eu"], code: 2, says: "empty token" },
    { args: ["tail", "--limit", "none"], code: 2, says: "whole number" },
    { args: ["status", "--url", "http://127.0.0.1:1"], code: 4, says: "no answer from the Millrace server" },
    { args: ["tail", "--url", "http://127.0.0.1:1"], code: 4, says: "no answer from the Millrace server" },
    { args: ["watch", "orders", ...noDatabase], code: 3, says: "could not connect" },
    { args: ["migrate", ...noDatabase], code: 3, says: "could not connect" },
    { args: ["sources", "--data-dir", "nowhere"], code: 2, says: "no embedded Postgres runs" },
    { args: ["stats"], code: 2, says: "status" },
    { args: ["start", "--port", "none"], code: 2, says: "--port" },
  ])("$args", async ({ args, code, says }) => {
    const failed = await here(...args);
    expect(failed.stdout).toBe("");
    expect(failed.stderr.toLowerCase()).toContain(says.toLowerCase());
    expect(failed.code).toBe(code);
  });

  it("or, with --json, one line of JSON", async () => {
    const { code, stdout, stderr } = await here("tail", "--from", "rubbish", "--json");
    expect(stdout).toBe("");
    expect(code).toBe(5);
    expect(parsed(stderr).error).toMatchObject({
      code: "CURSOR_INVALID",
      exitCode: 5,
      action: expect.stringMatching(/./),
    });
  });

  it("help is no failure, and names the exit codes", async () => {
    const { code, stdout } = await here("--help");
    expect(code).toBe(0);
    expect(stdout).toContain("Exit codes:");
    for (const command of [
      "start",
      "watch",
      "unwatch",
      "sources",
      "emit",
      "tail",
      "status",
      "why",
      "doctor",
      "migrate",
    ]) {
      expect((await here(command, "--help")).stdout).toContain("Examples:");
    }
  });
});

describe("on a Node that cannot run TypeScript", () => {
  const pretend = `data:text/javascript,Object.defineProperty(process,"versions",{value:{...process.versions,node:"20.0.0"}})`;
  const around = () => ({ directory, nodeArguments: ["--import", pretend] });

  it("uses the one that is pinned, and passes on output, exit codes and signals", async () => {
    expect((await millrace(["--version"], around())).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
    expect((await millrace(["nonsense"], around())).code).toBe(2);
    const tail = startMillrace(["tail", "--from", "oldest", "--url", url], around());
    await tail.line((line) => parsed(line).version === 1);
    expect(await tail.end("SIGTERM")).toBe(143);
  });
});
