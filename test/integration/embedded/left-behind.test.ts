import { randomBytes } from "node:crypto";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { startEmbedded } from "../../../src/embedded/embedded-postgres.ts";
import { chooseIdentity, spawnAs } from "../../../src/embedded/identity.ts";
import { chooseFreePort } from "../../../src/embedded/port.ts";
import { readPostmasterFile } from "../../../src/embedded/postmaster-file.ts";
import { ended, isAlive, sendSignal } from "../../../src/embedded/processes.ts";
import { startMillrace } from "./millrace-process.ts";
import { query, scratchDirectory, until } from "./scratch.ts";

test("what a killed process left running is adopted, with its clients and its data", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  const killed = startMillrace([dataDir]);
  const before = await killed.outcome;
  await query(before.url, "create table kept as select 42 as answer");
  await killed.kill9();
  expect(await isAlive(before.pid)).toBe(true);
  const after = await startEmbedded({ dataDir });
  expect(after).toMatchObject({ adopted: true, pid: before.pid, url: before.url });
  expect(await query(after.url, "select answer from kept")).toEqual([{ answer: 42 }]);
  await after.stop();
  expect(await isAlive(before.pid)).toBe(false);
});

test("what was left running is started anew when another port is asked for", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  const killed = startMillrace([dataDir]);
  const before = await killed.outcome;
  await killed.kill9();
  const port = await chooseFreePort();
  const after = await startEmbedded({ dataDir, port });
  expect(after).toMatchObject({ adopted: false, port });
  expect(await isAlive(before.pid)).toBe(false);
  await after.stop();
});

test("while the other process lives it keeps the directory, and is named", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  const other = startMillrace([dataDir]);
  const { pid } = await other.outcome;
  await expect(startEmbedded({ dataDir })).rejects.toThrow(`Another Millrace, process ${other.pid}, runs`);
  expect(await isAlive(pid)).toBe(true);
  await other.end();
  const after = await startEmbedded({ dataDir });
  await after.stop();
});

test("of two that start at once on a new directory one has it and one is told", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  const both = [startMillrace([dataDir]), startMillrace([dataDir])];
  const outcomes = await Promise.all(both.map((millrace) => millrace.outcome));
  expect(outcomes.filter((outcome) => outcome.error === undefined)).toHaveLength(1);
  expect(outcomes.find((outcome) => outcome.error !== undefined)?.error).toMatch(/Another Millrace, process \d+,/);
  await Promise.all(both.map((millrace) => millrace.end()));
});

test("a claim of a process whose pid now belongs to another does not count", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  const first = await startEmbedded({ dataDir });
  await first.stop();
  // This very pid, but of a process that started at another time.
  await writeFile(join(dataDir, "claims", `${process.ppid}-1`), "");
  const second = await startEmbedded({ dataDir });
  expect(await readdir(join(dataDir, "claims"))).toHaveLength(1);
  await second.stop();
  expect(await readdir(join(dataDir, "claims"))).toEqual([]);
});

test("after a crash of both the committed is there again, though backends of the dead are slow to go", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  const killed = startMillrace([dataDir]);
  const before = await killed.outcome;
  await query(before.url, "create table kept as select 42 as answer");
  const [backend] = await query(before.url, "select pid from pg_stat_activity where backend_type = 'checkpointer'");
  const checkpointer = Number(backend?.pid);
  // Stopped, it cannot notice the postmaster's end, and keeps the shared memory.
  sendSignal(checkpointer, "SIGSTOP");
  await killed.kill9();
  sendSignal(before.pid, "SIGKILL");
  await ended(before.pid, 10_000);
  const starting = startEmbedded({ dataDir });
  await until(async () => (await readFile(join(dataDir, "postgres.log"), "utf8")).includes("shared memory block"));
  sendSignal(checkpointer, "SIGCONT");
  const after = await starting;
  expect(after.adopted).toBe(false);
  expect(await query(after.url, "select answer from kept")).toEqual([{ answer: 42 }]);
  await after.stop();
});

test("a postmaster.pid that names some other living process does not stand in the way", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  const first = await startEmbedded({ dataDir });
  const file = join(dataDir, "cluster", "postmaster.pid");
  const text = await readFile(file, "utf8");
  await first.stop();
  // Of the same user: Postgres itself takes no other user's process for a postmaster.
  const bystander = spawnAs(await chooseIdentity(["/usr/bin", dirname(dataDir)]), "sleep", ["600"], {
    stdio: "ignore",
  });
  onTestFinished(() => void bystander.kill("SIGKILL"));
  await writeFile(file, text.replace(String(first.pid), String(bystander.pid)));
  expect((await readPostmasterFile(join(dataDir, "cluster")))?.pid).toBe(bystander.pid);
  const second = await startEmbedded({ dataDir });
  expect(second.adopted).toBe(false);
  await second.stop();
});

test("a start that was killed in the middle of initdb is done again from the beginning", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  const killed = startMillrace([dataDir]);
  const made = async () => {
    const making = (await namesIn(dataDir)).find((name) => name.startsWith("initdb-"));
    return making !== undefined && (await namesIn(join(dataDir, making, "cluster"))).includes("base");
  };
  await until(made);
  await killed.kill9();
  expect(await readdir(dataDir)).not.toContain("cluster");
  const postgres = await startEmbedded({ dataDir });
  expect(await query(postgres.url, "select 1 as one")).toEqual([{ one: 1 }]);
  expect((await readdir(dataDir)).filter((name) => name.startsWith("initdb-"))).toEqual([]);
  await postgres.stop();
});

test("a cluster that lacks a part is set aside, not deleted", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  const first = await startEmbedded({ dataDir });
  await first.stop();
  const token = randomBytes(8).toString("hex");
  await writeFile(join(dataDir, "cluster", "token"), token);
  await rm(join(dataDir, "cluster", "global", "pg_control"));
  const second = await startEmbedded({ dataDir });
  expect(await query(second.url, "select 1 as one")).toEqual([{ one: 1 }]);
  const aside = (await readdir(dataDir)).find((name) => name.startsWith("incomplete-")) ?? "";
  expect(await readFile(join(dataDir, aside, "token"), "utf8")).toBe(token);
  await second.stop();
});

/** What a directory holds; nothing while there is none. */
async function namesIn(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch {
    return [];
  }
}
