import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createCluster, type TestCluster } from "../support/cluster.ts";
import { cleanUp, millrace, parsed, type Running, scratchDirectory, startMillrace } from "./millrace-command.ts";

let cluster: TestCluster;
let directory: string;
let server: Running | undefined;
beforeAll(async () => {
  cluster = await createCluster();
  directory = await scratchDirectory();
});
afterAll(async () => {
  await server?.end("SIGKILL");
  await cluster[Symbol.asyncDispose]();
  await cleanUp(directory);
});

it("polls a table from its command line to a client's terminal, and ends it", async () => {
  const url = await cluster.createDatabase();
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(
    "create table invoices (id int primary key, updated_at timestamptz not null default now(), deleted_at timestamptz)",
  );
  server = startMillrace(["start", "--json", "--port", "0"], { directory, env: { DATABASE_URL: url } });
  const started = await server.line((line) => line.includes('"serverVersion"')).then(parsed);
  const here = (...args: readonly string[]) => millrace(args, { directory, env: { DATABASE_URL: url } });

  const wrong = await here("watch", "invoices", "--every", "1s");
  expect(wrong.code).toBe(2);
  expect(wrong.stderr).toContain("--poll updated_at");
  const watched = await here("watch", "invoices", "--poll", "updated_at", "--deleted", "deleted_at", "--every", "1s");
  expect(watched.stdout).toBe("watching public.invoices as invoices, by id\n");
  expect(watched.stderr).toContain("No index of public.invoices begins with updated_at");
  await client.query("insert into invoices values (1)");
  await client.query("insert into invoices values (2, now(), now())");
  const tail = await here("tail", "--from", "oldest", "--limit", "2", "--ndjson", "--url", String(started.url));
  expect(tail.stdout.trim().split("\n").map(parsed)).toMatchObject([
    { topic: "invoices", key: "1", operation: "UPDATE", after: { id: 1 } },
    { topic: "invoices", key: "2", operation: "DELETE" },
  ]);
  expect((await here("sources")).stdout).toContain("OK polled by updated_at");
  expect((await here("unwatch", "invoices")).code).toBe(0);
  expect((await here("sources")).stdout).toContain("no table is watched");
  await client.end();
  expect(await server.end("SIGTERM")).toBe(0);
});
