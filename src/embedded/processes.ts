import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";

/** Whether a process runs. One that ended and waits for its parent to notice does not. */
export async function isAlive(pid: number): Promise<boolean> {
  if (!exists(pid)) return false;
  const state = (await statFields(pid))?.[0];
  // No state: either the system does not say, or the process went between the two looks.
  return state === undefined ? exists(pid) : state !== "Z";
}

function exists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

/**
 * When the process started, in whatever unit the system has: tells it from a later one that was given its pid.
 * Undefined when it is gone, or where the system does not say.
 */
export async function startTimeOf(pid: number): Promise<string | undefined> {
  if (process.platform === "linux") return (await statFields(pid))?.[19];
  if (process.platform === "win32") return undefined;
  return (await ps(pid, "lstart="))?.replaceAll(/[^0-9A-Za-z]+/g, "-");
}

/** The arguments a process was started with; undefined when it is gone, or where the system does not say. */
export async function commandLineOf(pid: number): Promise<string | undefined> {
  if (process.platform === "win32") return undefined;
  if (process.platform !== "linux") return ps(pid, "args=");
  try {
    return (await readFile(`/proc/${pid}/cmdline`, "utf8")).replaceAll("\0", " ").trim();
  } catch {
    return undefined;
  }
}

/** Resolves to whether the process ended within that time. */
export async function ended(pid: number, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  for (let pause = 2; await isAlive(pid); pause = Math.min(pause * 2, 50)) {
    if (performance.now() >= deadline) return false;
    await delay(pause);
  }
  return true;
}

/** Sends a signal; to nobody, when the process is gone already. */
export function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}

/** Fields of /proc/PID/stat from the state on: the name before it may hold spaces and parentheses. */
async function statFields(pid: number): Promise<readonly string[] | undefined> {
  if (process.platform !== "linux") return undefined;
  try {
    const text = await readFile(`/proc/${pid}/stat`, "utf8");
    return text.slice(text.lastIndexOf(")") + 2).split(" ");
  } catch {
    return undefined;
  }
}

async function ps(pid: number, column: string): Promise<string | undefined> {
  try {
    const { stdout } = await promisify(execFile)("ps", ["-ww", "-o", column, "-p", String(pid)]);
    return stdout.trim();
  } catch {
    return undefined;
  }
}
