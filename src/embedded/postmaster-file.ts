import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { commandLineOf, isAlive } from "./processes.ts";

/** What `postmaster.pid` says of the Postgres that runs on a data directory. */
export interface PostmasterFile {
  readonly pid: number;
  readonly port: number;
  /** `starting` covers crash recovery; `standby` is ready for reads only. */
  readonly state: "starting" | "ready" | "stopping" | "standby";
}

/** What postmaster.pid says, whether it is true or not; undefined when there is none or it is not yet written whole. */
export async function readPostmasterFile(dataDirectory: string): Promise<PostmasterFile | undefined> {
  let lines: readonly string[];
  try {
    lines = (await readFile(join(dataDirectory, "postmaster.pid"), "utf8")).split("\n");
  } catch {
    return undefined;
  }
  const pid = Number(lines[0]);
  const state = lines[7]?.trim();
  if (!(pid > 0) || !isState(state)) return undefined;
  return { pid, port: Number(lines[3]), state };
}

/**
 * The Postgres that runs on this data directory now. After a crash or a restart of the machine the file names a process
 * that is gone, or one that has nothing to do with us: neither counts.
 */
export async function findPostmaster(dataDirectory: string): Promise<PostmasterFile | undefined> {
  const file = await readPostmasterFile(dataDirectory);
  if (file === undefined || !(await isAlive(file.pid))) return undefined;
  const command = await commandLineOf(file.pid);
  // Every start of ours names the directory on the command line. Unknown (Windows): take the file's word.
  return command === undefined || `${command} `.includes(` -D ${dataDirectory} `) ? file : undefined;
}

/**
 * Removes a postmaster.pid that names a living process which is not this directory's Postgres: Postgres would refuse to
 * start. Should backends of a killed one still be there, the shared memory they hold stops the new one all the same.
 */
export async function removeStalePostmasterFile(dataDirectory: string): Promise<void> {
  if ((await findPostmaster(dataDirectory)) === undefined) {
    await rm(join(dataDirectory, "postmaster.pid"), { force: true });
  }
}

function isState(text: string | undefined): text is PostmasterFile["state"] {
  return text === "starting" || text === "ready" || text === "stopping" || text === "standby";
}
