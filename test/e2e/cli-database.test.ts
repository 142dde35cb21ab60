import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createCluster, type TestCluster } from "../support/cluster.ts";
import { cleanUp, millrace, parsed, scratchDirectory, startMillrace } from "./millrace-command.ts";

let cluster: TestCluster;
let directory: string;
beforeAll(async () => {
  cluster = await createCluster({ settings: { max_prepared_transactions: "0" } });
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

const start = (url: string, ...args: readonly string[]) => {
  const server = startMillrace(["start", "--json", "--port", "0", ...args], {
    directory,
    env: { DATABASE_URL: url },
  });
  const started = server.line((line) => line.includes('"serverVersion"')).then(parsed);
  return { server, started };
};

describe("on a Postgres of one's own", () => {
  it("runs no demo, shows no password, and starts no Postgres", async () => {
    const url = (await cluster.createDatabase()).replace("postgres@", "postgres:secret@");
    const { server, started } = start(url);
    const shown = await started;
    expect(shown).toMatchObject({ demo: false, embedded: null });
    expect(JSON.stringify(shown)).not.toContain("secret");
    expect(await query(url, "select from millrace.source")).toEqual([]);
    expect(await server.end("SIGTERM")).toBe(0);
  });

  it("runs the demo in a schema of its own when asked, again and again", async () => {
    const url = await cluster.createDatabase();
    for (const round of [1, 2]) {
      const { server, started } = start(url, "--demo");
      expect(await started).toMatchObject({ demo: true });
      expect(await server.end("SIGTERM")).toBe(0);
      expect(await query(url, "select name from millrace.source order by name"), `round ${round}`).toEqual([
        { name: "millrace_demo.customers" },
        { name: "millrace_demo.orders" },
      ]);
    }
  });

  it("waits for one that is down at the start, and goes through a restart with its streams open", async () => {
    const url = await cluster.createDatabase();
    await cluster.stop();
    const { server, started } = start(url);
    await expect.poll(() => server.stderr(), { timeout: 20_000 }).toContain("waiting for Postgres");
    await cluster.start();
    const feed = String((await started).url);
    const tail = startMillrace(["tail", "--checkpoints", "--ndjson", "--url", feed], { directory });
    await tail.line((line) => parsed(line).frame === "opened");
    await query(url, "select millrace.emit('a.b', payload => '1')");
    await tail.line((line) => parsed(line).after === 1);
    await cluster.kill9();
    await cluster.start();
    await query(url, "select millrace.emit('a.b', payload => '2')");
    await tail.line((line) => parsed(line).after === 2);
    expect(tail.stderr()).toBe("");
    expect(await tail.end("SIGINT")).toBe(130);
    expect(tail.lines.flatMap((line) => parsed(line).after ?? [])).toEqual([1, 2]);
    expect(await server.end("SIGTERM")).toBe(0);
  });

  it("leaves a server that says nothing any more, and goes on when one answers", async () => {
    const url = await cluster.createDatabase();
    const { server, started } = start(url, "--checkpoint-interval-ms", "500");
    const tail = startMillrace(["tail", "--checkpoints", "--ndjson", "--url", String((await started).url)], {
      directory,
    });
    await tail.line((line) => parsed(line).frame === "checkpoint");
    process.kill(server.pid, "SIGSTOP");
    await query(url, "select millrace.emit('a.b', payload => '1')");
    await expect.poll(() => tail.stderr(), { timeout: 20_000 }).toContain("nothing was heard for 1.2 s");
    process.kill(server.pid, "SIGCONT");
    await tail.line((line) => parsed(line).after === 1);
    await query(url, "select millrace.emit('a.b', payload => '2')");
    await tail.line((line) => parsed(line).after === 2);
    expect(tail.lines.flatMap((line) => parsed(line).after ?? [])).toEqual([1, 2]);
    await tail.end("SIGTERM");
    await server.end("SIGTERM");
  });

  it("says of a database that does not answer the same in every command, and of a table without a key what to give", async () => {
    const gone = "postgres://nobody@127.0.0.1:1/gone";
    for (const command of ["sources", "why", "doctor", "migrate"]) {
      expect(await millrace([command, "--database-url", gone], { directory }), command).toMatchObject({
        code: 3,
        stderr: expect.stringMatching(
          /^millrace: Could not connect to Postgres at 127\.0\.0\.1:1\/gone: .*\n {2}Check /,
        ),
      });
    }
    const url = await cluster.createDatabase();
    await millrace(["migrate", "--database-url", url], { directory });
    await query(url, "create table keyless (a int)");
    expect(await millrace(["watch", "keyless", "--database-url", url], { directory })).toMatchObject({
      stderr: "millrace: public.keyless has no primary key.\n  Name columns that tell its rows apart: --key a,b.\n",
    });
  });

  it("says what to do to a role without rights, to an old schema and to a newer one", async () => {
    const url = await cluster.createDatabase();
    const database = new URL(url).pathname.slice(1);
    const run = (as: string, ...args: readonly string[]) =>
      millrace([...args, "--database-url", cluster.url(database, as)], { directory });
    expect(await run("postgres", "doctor")).toMatchObject({
      code: 1,
      stdout: expect.stringContaining("SCHEMA_MISSING"),
    });
    expect(await run("postgres", "emit", "a.b")).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("millrace migrate"),
    });
    expect(await run("postgres", "start", "--no-migrate", "--port", "0")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("Run `millrace migrate`"),
    });
    expect((await run("postgres", "migrate")).code).toBe(0);
    await query(url, "create role nobody_special login");
    expect(await run("nobody_special", "start", "--port", "0")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("millrace.allow('nobody_special', 'server')"),
    });
    expect((await run("nobody_special", "emit", "a.b")).code).toBe(1);
    await query(url, "select millrace.allow('nobody_special', 'writer')");
    expect((await run("nobody_special", "emit", "a.b")).code).toBe(0);
    await query(
      url,
      "insert into millrace.migration (number, name, sha256) values (9999, '9999_later', repeat('0', 64))",
    );
    expect(await run("postgres", "migrate")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("newer Millrace"),
    });
  });
});
