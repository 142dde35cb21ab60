import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { FeedError } from "../../../src/core/errors.ts";
import { listSources } from "../../../src/postgres/sources.ts";
import { resolveConfig } from "../../../src/server/config.ts";
import { findConfigFile } from "../../../src/server/config-file/find-config.ts";
import { readConfigFile } from "../../../src/server/config-file/read-config.ts";
import { type RunningServer, startServer } from "../../../src/server/server.ts";
import { createCluster, sharedCluster, type TestCluster } from "../../support/cluster.ts";
import { WatchedDatabase } from "../capture/watched-database.ts";

const PATIENCE = { timeout: 20_000 };

async function scratch(): Promise<
  AsyncDisposable & { readonly path: string; write(text: string, name?: string): Promise<string> }
> {
  const path = await mkdtemp(join(tmpdir(), "millrace-config-"));
  return {
    path,
    async write(text, name = "millrace.config.ts") {
      const target = join(path, name);
      // As editors do it: never half a file under the name.
      await writeFile(`${target}.new`, text);
      await rename(`${target}.new`, target);
      return target;
    },
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
}

async function failureOf(work: Promise<unknown>): Promise<string> {
  const outcome: unknown = await work.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(outcome instanceof FeedError)) throw outcome ?? new Error("it was accepted");
  expect(outcome.code).toBe("INVALID_REQUEST");
  return outcome.message;
}

interface Stage extends AsyncDisposable {
  readonly database: WatchedDatabase;
  readonly server: RunningServer;
  topics(): Promise<readonly string[]>;
  ready(): Promise<string>;
}

async function stage(cluster: TestCluster, file: string, setUp: readonly string[], role = ""): Promise<Stage> {
  const database = await WatchedDatabase.create(cluster);
  await database.run(...setUp);
  const databaseUrl = role === "" ? database.url : cluster.url(new URL(database.url).pathname.slice(1), role);
  const configFile = await readConfigFile(file);
  const flags = { databaseUrl, port: 0, logLevel: "silent", migrate: false };
  const server = await startServer(resolveConfig({ flags, file: configFile.options }), { configFile });
  return {
    database,
    server,
    topics: async () => (await listSources(database.client)).map(({ table, topic }) => `${table} ${topic}`),
    ready: async () => await (await fetch(`${server.url}/readyz`)).text(),
    async [Symbol.asyncDispose]() {
      await server.stop(0);
      await database[Symbol.asyncDispose]();
    },
  };
}

describe("the configuration file", () => {
  it("is found where the server starts, or where it is said to be, and only one", async () => {
    await using files = await scratch();
    expect(await findConfigFile(files.path, undefined)).toBeUndefined();
    const first = await files.write("export default {}", "millrace.config.mjs");
    expect(await findConfigFile(files.path, undefined)).toBe(first);
    expect(await findConfigFile("/", first)).toBe(first);
    expect(await failureOf(findConfigFile(files.path, "nowhere.ts"))).toContain("There is no");
    await files.write("{}", "millrace.config.json");
    expect(await failureOf(findConfigFile(files.path, undefined))).toContain(
      "millrace.config.mjs and millrace.config.json",
    );
  });

  it("is TypeScript with erasable types, JavaScript or JSON; what is none of them is refused with a sentence", async () => {
    await using files = await scratch();
    const typed = await files.write("const port: number = 1; export default { port } satisfies object;");
    expect((await readConfigFile(typed)).options).toEqual({ port: 1 });
    expect((await readConfigFile(await files.write("export default { port: 2 };", "c.mjs"))).options).toEqual({
      port: 2,
    });
    expect((await readConfigFile(await files.write('{ "port": 3 }', "c.json"))).options).toEqual({ port: 3 });
    expect(await failureOf(readConfigFile(await files.write("export default {", "broken.mjs")))).toContain(
      "broken.mjs cannot be loaded",
    );
    expect(await failureOf(readConfigFile(await files.write("throw new Error('no luck')", "throws.mjs")))).toContain(
      "no luck",
    );
    expect(await failureOf(readConfigFile(await files.write("export const a = 1;", "bare.mjs")))).toContain(
      "no default export",
    );
    expect(await failureOf(readConfigFile(await files.write("{", "c.json")))).toContain("c.json is not JSON");
    expect(await failureOf(readConfigFile(join(files.path, "nowhere.ts")))).toContain("cannot be read");
  });

  it("brings its sources about at the start, and again whenever it changes, without a restart", async () => {
    await using files = await scratch();
    const file = await files.write('export default { sources: { "public.a": { topic: "first" } } };');
    await using on = await stage(await sharedCluster(), file, [
      "create table a (id int primary key)",
      "create table b (id int primary key)",
    ]);
    expect(await on.topics()).toEqual(["public.a first"]);
    await files.write('export default { sources: { "public.a": { topic: "second" }, "public.b": {} } };');
    await vi.waitFor(async () => expect(await on.topics()).toEqual(["public.a second", "public.b b"]), PATIENCE);
    // What is not named any more stays.
    await files.write('export default { sources: { "public.b": { topic: "other" } } };');
    await vi.waitFor(async () => expect(await on.topics()).toEqual(["public.a second", "public.b other"]), PATIENCE);
    await files.write('export default { sources: { "public.a": false } };');
    await vi.waitFor(async () => expect(await on.topics()).toEqual(["public.b other"]), PATIENCE);
  });

  it("that is broken keeps the configuration from before, and says so until it is mended", async () => {
    await using files = await scratch();
    const good = 'export default { sources: { "public.a": {} } };';
    const file = await files.write(good);
    await using on = await stage(await sharedCluster(), file, ["create table a (id int primary key)"]);
    await files.write('export default { sources: { "public.a": { topik: "x" } } };');
    await vi.waitFor(async () => expect(await on.ready()).toContain("CONFIG_INVALID"), PATIENCE);
    expect(await on.ready()).toContain("topik");
    await files.write("export default {");
    await vi.waitFor(async () => expect(await on.ready()).toContain("cannot be loaded"), PATIENCE);
    expect(on.server.feed.status().state).toBe("LIVE");
    expect(await on.topics()).toEqual(["public.a a"]);
    await rm(file);
    await vi.waitFor(async () => expect(await on.ready()).toContain("cannot be read"), PATIENCE);
    await files.write(good);
    await vi.waitFor(async () => expect(await on.ready()).not.toContain("CONFIG_INVALID"), PATIENCE);
  });

  it("that asks for what cannot be had is a problem, and no reason not to start", async () => {
    await using cluster = await createCluster();
    await using files = await scratch();
    const file = await files.write('export default { sources: { "public.a": {}, "public.missing": {} } };');
    await using on = await stage(
      cluster,
      file,
      ["create role mill login", "select millrace.allow('mill', 'server')", "create table a (id int primary key)"],
      "mill",
    );
    const told = await on.ready();
    expect(told).toContain("SOURCE_NOT_AS_DECLARED: public.a is not watched as declared");
    expect(told).toContain("millrace watch public.a");
    expect(told).toContain("SOURCE_NOT_AS_DECLARED: public.missing is not watched as declared: There is no table");
    // Somebody does what the sentence says; the file's next change, as the next try, finds it so.
    await on.database.run("select millrace.watch('a')");
    await files.write('export default { sources: { "public.a": {} } };');
    await vi.waitFor(async () => expect(await on.ready()).not.toContain("SOURCE_NOT_AS_DECLARED"), PATIENCE);
  });

  it("may lie in a directory whose package is of another kind", async () => {
    await using files = await scratch();
    await mkdir(join(files.path, "sub"));
    await files.write('{ "type": "commonjs" }', "package.json");
    const file = await files.write("export default { port: 5 };", "sub/millrace.config.ts");
    expect((await readConfigFile(file)).options).toEqual({ port: 5 });
  });
});
