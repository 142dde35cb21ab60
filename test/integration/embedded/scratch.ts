import { chmod, mkdtemp, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { onTestFinished, vi } from "vitest";
import { stopPostmaster } from "../../../src/embedded/postmaster.ts";
import { findPostmaster } from "../../../src/embedded/postmaster-file.ts";

/** A new directory, with a space and a quote in its name. Whatever runs in its `data` is stopped after the test. */
export async function scratchDirectory(mode = 0o711): Promise<string> {
  const directory = await realpath(await mkdtemp(join(tmpdir(), "millrace embedded's-")));
  await chmod(directory, mode);
  onTestFinished(async () => {
    const left = await findPostmaster(join(directory, "data", "cluster"));
    if (left !== undefined) await stopPostmaster(left.pid, 5_000);
    await rm(directory, { recursive: true, force: true });
  });
  return directory;
}

/** The rows of one statement. */
export async function query(url: string, statement: string): Promise<readonly Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  // The tests end servers under their clients' feet.
  client.on("error", () => {});
  await client.connect();
  try {
    return (await client.query(statement)).rows;
  } finally {
    await client.end();
  }
}

/** Resolves when the condition holds; rejects when it does not within 30 s. */
export async function until(condition: () => Promise<boolean>): Promise<void> {
  await vi.waitUntil(condition, { interval: 2, timeout: 30_000 });
}
