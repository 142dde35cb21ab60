import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { expect, it } from "vitest";
import { migrate } from "../../../src/postgres/migrate.ts";
import { sharedCluster } from "../../support/cluster.ts";
import { createOldSchema } from "./old-schema.ts";

const script = fileURLToPath(new URL("./frozen-process.ts", import.meta.url));

interface Frozen {
  readonly what: "watch" | "unwatch" | "keep" | "migrate";
  /** By a transaction that stays open, and keeps it waiting while it is frozen. */
  readonly holds: string;
  readonly writes: string;
  readonly before: readonly string[];
}

const cases: readonly Frozen[] = [
  {
    what: "watch",
    before: [],
    holds: "insert into public.t values (1)",
    writes: "insert into public.t values (2)",
  },
  {
    what: "unwatch",
    before: ["select millrace.watch('t')"],
    holds: "select count(*) from public.t",
    writes: "insert into public.t values (2)",
  },
  {
    what: "keep",
    before: ["select setval('millrace.outbox_seq', 5000000000)"],
    holds: "select millrace.emit('held')",
    writes: "select millrace.emit('notes')",
  },
  {
    what: "migrate",
    before: [],
    holds: "select millrace.emit('held')",
    writes: "select millrace.emit('notes')",
  },
];

it.each(cases)("G11 go on beside a process that is frozen amid $what", async ({ what, before, holds, writes }) => {
  const url = await (await sharedCluster()).createDatabase();
  if (what === "migrate") await createOldSchema(url, 7);
  else await migrate(url);
  const [admin, holder, writer] = await Promise.all([connected(url), connected(url), connected(url)]);
  await admin.query("create table public.t (id int primary key)");
  for (const statement of before) await admin.query(statement);
  await holder.query(`begin; ${holds}`);
  const child = spawn(process.execPath, [script, what, url], { stdio: ["pipe", "inherit", "inherit"] });
  const ended = once(child, "exit");
  try {
    await expect.poll(() => waits(admin), { interval: 1, timeout: 20_000 }).toBe(true);
    child.kill("SIGSTOP");
    await holder.query("commit");
    // Whatever the frozen one has asked for is done, or undone, without it.
    await writer.query(writes);
    await expect.poll(() => inTransaction(admin), { interval: 20, timeout: 20_000 }).toBe(false);
    await writer.query("begin; lock table millrace.outbox in row exclusive mode; commit");
  } finally {
    child.kill("SIGKILL");
    await ended;
    for (const client of [admin, holder, writer]) await client.end();
  }
});

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return client;
}

async function asked(client: pg.Client, condition: string): Promise<boolean> {
  const { rows } = await client.query(
    `select from pg_stat_activity where datname = current_database() and application_name = 'to be frozen' and ${condition}`,
  );
  return rows.length > 0;
}

const waits = (client: pg.Client) => asked(client, "wait_event_type = 'Lock'");
const inTransaction = (client: pg.Client) => asked(client, "state <> 'idle'");
