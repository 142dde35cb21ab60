import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { FeedError } from "../core/errors.ts";
import { isAlive, startTimeOf } from "./processes.ts";

/** A directory that is ours alone until we let go of it, or end. */
export interface Claim {
  release(): Promise<void>;
}

const attempts = 5;

/**
 * Claims a directory for this process.
 *
 * One file per claimant, named by pid and start time. A process first makes its own and then looks for others: of two
 * that come at the same time at least one sees the other, so never both go on. A file is deleted by its maker, or by
 * anybody once its maker is gone; as no later process can bear the same name, that never hits a living claim.
 *
 * @param directory made when missing; holds nothing but claims
 * @throws FeedError DATABASE_UNAVAILABLE with the pid of the process that has it.
 */
export async function claimDirectory(directory: string, what: string): Promise<Claim> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const own = `${process.pid}-${(await startTimeOf(process.pid)) ?? "unknown"}`;
  for (let attempt = 1; ; attempt++) {
    const holder = await tryToClaim(directory, own);
    if (holder === undefined) return { release: () => rm(join(directory, own), { force: true }) };
    if (holder === process.pid || attempt === attempts) throw inUse(what, holder);
    // Two that saw each other at the start: whoever comes back alone has it.
    await delay(Math.random() * 50);
  }
}

/** The pid that is in the way; undefined when the claim is ours. */
async function tryToClaim(directory: string, own: string): Promise<number | undefined> {
  const file = join(directory, own);
  try {
    await writeFile(file, "", { flag: "wx", mode: 0o600 });
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return process.pid;
    throw error;
  }
  for (const other of await readdir(directory)) {
    if (other === own) continue;
    const pid = Number.parseInt(other, 10);
    if (await isLiving(other, pid)) {
      await rm(file, { force: true });
      return pid;
    }
    await rm(join(directory, other), { force: true });
  }
  return undefined;
}

async function isLiving(claim: string, pid: number): Promise<boolean> {
  if (!(pid > 0) || !(await isAlive(pid))) return false;
  const started = await startTimeOf(pid);
  return started === undefined || claim === `${pid}-${started}` || claim === `${pid}-unknown`;
}

function inUse(what: string, pid: number): FeedError {
  const who = pid === process.pid ? "This process itself" : `Another Millrace, process ${pid},`;
  return new FeedError(
    "DATABASE_UNAVAILABLE",
    `${who} runs the embedded Postgres in ${what}.`,
    "Stop that one first, or give this one a data directory of its own.",
  );
}
