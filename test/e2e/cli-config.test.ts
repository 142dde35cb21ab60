import { mkdir, rename, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sharedCluster } from "../support/cluster.ts";
import { eventually } from "../support/deadline.ts";
import { cleanUp, millrace, parsed, type Running, scratchDirectory, startMillrace } from "./millrace-command.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));

let directory: string;
let databaseUrl: string;
let client: pg.Client;
let server: Running;
let url: string;

/** As editors do it: never half a file under the name. */
async function configure(text: string): Promise<void> {
  const path = join(directory, "millrace.config.ts");
  await writeFile(`${path}.new`, text);
  await rename(`${path}.new`, path);
}

const config = (kind: string) => `
import { type Change, defineConfig } from "millrace";

const build = ({ after }: Change) => {
  const { id, note } = after ?? {};
  return note === "hush" ? undefined : { topic: "${kind}.orders", key: \`o-\${id}\`, payload: { note } };
};

export default defineConfig({
  logLevel: "error",
  sources: { "public.orders": { topic: "orders", exclude: ["secret"], build, topics: ["${kind}.*"] } },
});
`;

const here = (...args: readonly string[]) => millrace(args, { directory, env: { MILLRACE_URL: url } });
const eventsFrom = async (topic: string, limit: number) => {
  const { stdout } = await here("tail", topic, "--from", "oldest", "--limit", String(limit));
  return stdout.trimEnd().split("\n").map(parsed);
};

beforeAll(async () => {
  directory = await scratchDirectory();
  await mkdir(join(directory, "node_modules"));
  await symlink(root, join(directory, "node_modules", "millrace"));
  databaseUrl = await (await sharedCluster()).createDatabase();
  client = new pg.Client(databaseUrl);
  await client.connect();
  await client.query("create table orders (id int primary key, note text, secret text)");
  await configure(config("shop"));
  server = startMillrace(["start", "--json", "--port", "0"], { directory, env: { DATABASE_URL: databaseUrl } });
  url = String(parsed(await server.line((line) => line.includes('"url"'))).url);
});
afterAll(async () => {
  await server.end("SIGTERM");
  await client.end();
  await cleanUp(directory);
});

describe("millrace start beside a millrace.config.ts", () => {
  it("watches what it declares, and shows events as its builder makes them", async () => {
    await client.query("insert into orders values (1, 'a', 's'), (2, 'hush', 's'), (3, 'c', 's')");
    expect(await eventsFrom("shop.*", 2)).toMatchObject([
      { version: 1, topic: "shop.orders", key: "o-1", after: { note: "a" } },
      { version: 3, topic: "shop.orders", key: "o-3", after: { note: "c" } },
    ]);
    const { stdout } = await millrace(["sources", "--json"], { directory, env: { DATABASE_URL: databaseUrl } });
    expect(JSON.parse(stdout)).toMatchObject([
      { table: "public.orders", topic: "orders", excludedColumns: ["secret"] },
    ]);
  });

  it("takes up a change of the file, under a tail that goes on by itself", async () => {
    const tail = startMillrace(["tail", "--from", "now"], { directory, env: { MILLRACE_URL: url } });
    await eventually(async () => parsed((await here("status", "--json")).stdout).streams === 1);
    await configure(config("store"));
    await eventually(async () => (await eventsFrom(">", 1))[0]?.topic === "store.orders");
    await client.query("insert into orders values (4, 'd', 's')");
    expect(parsed(await tail.line((line) => line.includes('"o-4"')))).toMatchObject({
      topic: "store.orders",
      version: 4,
    });
    await tail.end("SIGINT");
  });

  it("goes on with the file from before when it is broken, and says so", async () => {
    await configure("export default {");
    const told = await eventually(async () => {
      const { stdout } = await here("status");
      return stdout.includes("CONFIG_INVALID") && stdout;
    });
    expect(told).toContain("millrace.config.ts cannot be loaded");
    expect((await eventsFrom("store.*", 1))[0]).toMatchObject({ topic: "store.orders" });
    await configure(config("store"));
    await eventually(async () => !(await here("status")).stdout.includes("CONFIG_INVALID"));
  });

  it("ends the start with a sentence when the file is wrong, and names what is", async () => {
    const wrong = join(directory, "wrong.config.mjs");
    await writeFile(wrong, 'export default { prot: 1, sources: { "public.orders": { topik: "x" } } };');
    const { code, stderr } = await millrace(["start", "--config", "wrong.config.mjs", "--no-demo"], { directory });
    expect(code).not.toBe(0);
    expect(stderr).toContain("`prot` is no option");
    expect(stderr).toContain('`sources["public.orders"].topik` is no field of a source');
    expect(stderr).not.toContain("    at ");
    const missing = await millrace(["start"], { directory, env: { MILLRACE_CONFIG: "nowhere.ts" } });
    expect(missing.stderr).toContain("nowhere.ts");
    expect(missing.code).not.toBe(0);
  });
});
