import { execFile } from "node:child_process";
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { promisify } from "node:util";
import pg from "pg";
import { describe, expect, it } from "vitest";
import { FeedError } from "../../../src/core/errors.ts";
import { assertServerVersion, migrate, pendingMigrations, schemaVersion } from "../../../src/postgres/migrate.ts";
import { createCluster, debian15Available, sharedCluster, type TestCluster } from "../../support/cluster.ts";

const servers: readonly { readonly name: string; readonly cluster: () => Promise<TestCluster> }[] = [
  { name: "embedded", cluster: sharedCluster },
  ...(debian15Available() ? [{ name: "debian-15", cluster: sharedDebian }] : []),
];

let debian: Promise<TestCluster> | undefined;

function sharedDebian(): Promise<TestCluster> {
  debian ??= createCluster({ binaries: "debian-15" });
  return debian;
}

async function run<T extends pg.QueryResultRow>(url: string, ...statements: readonly string[]): Promise<readonly T[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    let rows: readonly T[] = [];
    for (const statement of statements) rows = (await client.query<T>(statement)).rows;
    return rows;
  } finally {
    await client.end();
  }
}

async function failure(promise: Promise<unknown>): Promise<FeedError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof FeedError) return error;
    throw error;
  }
  throw new Error("it was expected to fail");
}

function asRole(url: string, role: string): string {
  const changed = new URL(url);
  changed.username = role;
  return changed.href;
}

const databaseName = (url: string): string => new URL(url).pathname.slice(1);

describe.each(servers)("migrate on $name", ({ cluster }) => {
  it("applies each migration once, and then has nothing to do", async () => {
    const url = await (await cluster()).createDatabase();
    const pending = await pendingMigrations(url);
    expect(pending.map(({ number }) => number)).toEqual(pending.map((_, i) => i + 1));

    const first = await migrate(url);

    expect(first.applied).toEqual(pending.map(({ number, name }) => ({ number, name })));
    expect(first.version).toBe(pending.length);
    expect(await pendingMigrations(url)).toEqual([]);
    expect(await migrate(url)).toEqual({ applied: [], version: first.version });
    expect(await migrate(url, { apply: false })).toEqual({ applied: [], version: first.version });
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    expect(await schemaVersion(client)).toBe(first.version);
    await client.end();
    expect(await run(url, "select number, name, sha256 from millrace.migration order by number")).toEqual(
      pending.map(({ number, name, sha256 }) => ({ number, name, sha256 })),
    );
  });

  it("is safe from several processes at once: one does it, the others find it done", async () => {
    const url = await (await cluster()).createDatabase();
    const program = `import { migrate } from ${JSON.stringify(new URL("../../../src/postgres/migrate.ts", import.meta.url).href)};
      console.log(JSON.stringify(await migrate(process.argv[1])));`;
    const processes = await Promise.all(
      [1, 2, 3].map(() => promisify(execFile)(process.execPath, ["--input-type=module", "--eval", program, url])),
    );
    const applied = processes.map(({ stdout }) => (JSON.parse(stdout) as { applied: unknown[] }).applied.length);
    expect(applied.sort()).toEqual([0, 0, (await pendingMigrations(url)).length + Math.max(...applied)]);
    expect(await run(url, "select count(*)::int as epochs from millrace.epoch")).toEqual([{ epochs: 1 }]);
  });

  it("does all or nothing, and does not mind what the role or the database presets", async () => {
    const server = await cluster();
    const url = await server.createDatabase();
    const name = databaseName(url);
    await run(
      url,
      "create schema evil; create function evil.clock_timestamp() returns timestamptz language sql as 'select null::timestamptz'",
      ...[
        "default_transaction_isolation = serializable",
        "default_transaction_read_only = on",
        "statement_timeout = '100ms'",
        "idle_in_transaction_session_timeout = '100ms'",
        "lock_timeout = '1ms'",
        "search_path = evil, pg_catalog",
        "standard_conforming_strings = off",
        "synchronous_commit = off",
      ].map((setting) => `alter database ${name} set ${setting}`),
    );
    expect((await migrate(url)).version).toBeGreaterThan(0);
  });

  it("names who is in the way of its lock, and goes on when it is free", async () => {
    const url = await (await cluster()).createDatabase();
    const holder = new pg.Client({ connectionString: url });
    await holder.connect();
    const { rows } = await holder.query<{ pid: number }>("select pg_backend_pid() as pid");
    await holder.query("begin; select pg_advisory_xact_lock(2615, 7213)");
    const sentence = `Could not lock what the migration changes: held by pid ${rows[0]?.pid}.`;
    expect(await failure(migrate(url, { lockAttempts: 1 }))).toMatchObject({
      code: "DATABASE_UNAVAILABLE",
      message: sentence,
    });
    const waits: string[] = [];
    const onWait = (told: string): void => {
      waits.push(told);
      void holder.query("commit");
    };
    expect((await migrate(url, { onWait })).applied).not.toEqual([]);
    expect(waits).toEqual([sentence]);
    await holder.end();
  });

  it("refuses a newer schema, a migration that changed, and, when it may not apply, an older one", async () => {
    const url = await (await cluster()).createDatabase();
    expect(await failure(migrate(url, { apply: false }))).toMatchObject({
      code: "INVALID_REQUEST",
      message: "This database has no Millrace schema yet.",
      action: "Run `millrace migrate` as a role that may create the schema.",
    });
    const { version } = await migrate(url);
    const [second] = await run<{ sha256: string }>(url, "select sha256 from millrace.migration where number = 2");
    await run(url, "update millrace.migration set sha256 = 'other' where number = 2");
    expect(await failure(migrate(url))).toMatchObject({
      code: "INVALID_REQUEST",
      message: "Migration 2 differs from the one that this database ran (0002_capture).",
    });
    await run(url, `insert into millrace.migration values (${version + 2}, 'later', 'x')`);
    for (const attempt of [() => migrate(url), () => migrate(url, { apply: false }), () => pendingMigrations(url)]) {
      expect(await failure(attempt())).toMatchObject({
        code: "INVALID_REQUEST",
        message: `This database was migrated by a newer Millrace (schema ${version + 2}, this one knows ${version}).`,
      });
    }
    await run(
      url,
      `delete from millrace.migration where number >= ${version}`,
      `update millrace.migration set sha256 = '${second?.sha256}' where number = 2`,
    );
    expect(await failure(migrate(url, { apply: false }))).toMatchObject({
      message: `This database has schema ${version - 1}, this Millrace needs ${version}.`,
    });
  });

  it("leaves alone a schema of that name that is somebody else's", async () => {
    const url = await (await cluster()).createDatabase();
    await run(url, "create schema millrace; create table millrace.theirs ()");
    expect(await failure(migrate(url))).toMatchObject({
      code: "INVALID_REQUEST",
      message: `Database "${databaseName(url)}" has a schema "millrace" that is not Millrace's: it holds "theirs".`,
    });
    await run(url, "drop table millrace.theirs");
    expect((await migrate(url)).applied).not.toEqual([]);
  });

  it("refuses what it cannot reach, without telling the password", async () => {
    const server = await cluster();
    const absent = await failure(migrate(server.url("absent").replace("postgres@", "postgres:hunter2@")));
    expect(absent).toMatchObject({
      code: "INVALID_REQUEST",
      action: expect.stringContaining("DATABASE_URL") as string,
    });
    const refused = await failure(migrate("postgres://postgres:hunter2@127.0.0.1:1/x"));
    expect(refused.code).toBe("DATABASE_UNAVAILABLE");
    for (const error of [absent, refused]) expect(`${error.message} ${error.action}`).not.toContain("hunter2");
  });
});

describe.each([
  { name: "embedded", binaries: "embedded" as const },
  ...(debian15Available() ? [{ name: "debian-15", binaries: "debian-15" as const }] : []),
])("roles on $name", ({ binaries }) => {
  it("own the schema as far as they may: a role of its own, else the one that migrates, else a sentence", async () => {
    await using server = await createCluster({ binaries });
    await run(
      server.url(),
      "create role creator login createrole; create role plain login; create role stranger login; create role member login",
    );
    const owner = async (url: string): Promise<unknown> =>
      (
        await run(
          url,
          `select array_agg(distinct pg_get_userbyid(o)::text) as owners from (
             select relowner from pg_class where relnamespace = 'millrace'::regnamespace
             union select proowner from pg_proc where pronamespace = 'millrace'::regnamespace
             union select nspowner from pg_namespace where nspname = 'millrace') x(o)`,
        )
      )[0];
    const forRole = async (role: string): Promise<string> => {
      const url = await server.createDatabase();
      await run(url, `grant create on database ${databaseName(url)} to ${role}`);
      return url;
    };

    const refused = await server.createDatabase();
    expect(await failure(migrate(asRole(refused, "plain")))).toMatchObject({
      code: "INVALID_REQUEST",
      message: `Role "plain" may not create the schema "millrace" in database "${databaseName(refused)}".`,
      action: expect.stringContaining(`grant create on database ${databaseName(refused)} to plain`) as string,
    });

    const plain = await forRole("plain");
    await migrate(asRole(plain, "plain"));
    expect(await owner(plain)).toEqual({ owners: ["plain"] });

    const created = await forRole("creator");
    await migrate(asRole(created, "creator"));
    expect(await owner(created)).toEqual({ owners: ["millrace_owner"] });
    await run(asRole(created, "creator"), "select millrace.allow('stranger', 'server')");

    // Four databases at once, and the role already there.
    const urls = await Promise.all([1, 2, 3, 4].map(() => server.createDatabase()));
    await Promise.all(urls.map((url) => migrate(url)));
    for (const url of urls) expect(await owner(url)).toEqual({ owners: ["millrace_owner"] });

    await run(server.url(), "grant millrace_owner to member");
    const ofMember = await forRole("member");
    await migrate(asRole(ofMember, "member"));
    expect(await owner(ofMember)).toEqual({ owners: ["millrace_owner"] });

    // Up to date: whoever may read needs no more. Who may not, or may not become the owner, is told so.
    expect((await migrate(asRole(created, "stranger"))).applied).toEqual([]);
    expect(await failure(migrate(asRole(created, "plain")))).toMatchObject({
      code: "INVALID_REQUEST",
      message: 'Role "plain" may not read the schema "millrace".',
      action: expect.stringContaining("millrace.allow('plain', 'server')") as string,
    });
    await run(created, "delete from millrace.migration where number = (select max(number) from millrace.migration)");
    expect(await failure(migrate(asRole(created, "stranger")))).toMatchObject({
      code: "INVALID_REQUEST",
      message: 'Schema "millrace" belongs to role "millrace_owner", which role "stranger" may not become.',
    });
  });

  it("are made once although several databases want them at the same moment", async () => {
    await using server = await createCluster({ binaries });
    const urls = await Promise.all([1, 2, 3, 4].map(() => server.createDatabase()));
    await Promise.all(urls.map((url) => migrate(url)));
    for (const url of urls) {
      expect(
        await run(url, "select pg_get_userbyid(nspowner)::text as owner from pg_namespace where nspname = 'millrace'"),
      ).toEqual([{ owner: "millrace_owner" }]);
    }
  });
});

describe("the server's version", () => {
  it("must be 13 or later", () => {
    expect(() => assertServerVersion("12.22", 120_022)).toThrowError(
      "This is Postgres 12.22; Millrace needs 13 or later.",
    );
    expect(() => assertServerVersion("13.0", 130_000)).not.toThrow();
  });
});

/** `ready for query`, after an authentication that asks for nothing. */
const greeting = Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0, 0x5a, 0, 0, 0, 5, 0x49]);

describe("an address that takes connections and does not answer", () => {
  it.each([
    { name: "at all", greets: false },
    { name: "what it is asked", greets: true },
  ])("$name is given up when the caller stops, and holds up no server's end", async ({ greets }) => {
    const stopping = new AbortController();
    const sockets: Socket[] = [];
    let heard = 0;
    await using server = createServer((socket) => {
      sockets.push(socket);
      socket.on("error", () => undefined);
      socket.on("data", () => {
        heard += 1;
        if (greets && heard === 1) socket.write(greeting);
        else stopping.abort(new Error("stopped by its caller"));
      });
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const url = `postgres://nobody@127.0.0.1:${port}/nothing?sslmode=disable`;
    await expect(migrate(url, { signal: stopping.signal })).rejects.toThrow("stopped by its caller");
    for (const socket of sockets) socket.destroy();
  });

  it("is DATABASE_UNAVAILABLE after a while, so that a server tries again", async () => {
    const sockets: Socket[] = [];
    await using server = createServer((socket) => {
      sockets.push(socket);
      socket.on("error", () => undefined);
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const error = await failure(migrate(`postgres://nobody@127.0.0.1:${port}/nothing?sslmode=disable`));
    expect(error.code).toBe("DATABASE_UNAVAILABLE");
    for (const socket of sockets) socket.destroy();
  });
});
