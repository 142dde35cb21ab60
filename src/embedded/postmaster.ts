import type { ChildProcess } from "node:child_process";
import { open } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { FeedError } from "../core/errors.ts";
import type { PostgresBinaries } from "./binaries.ts";
import { type Identity, spawnAs } from "./identity.ts";
import { type PostmasterFile, readPostmasterFile, removeStalePostmasterFile } from "./postmaster-file.ts";
import { ended, sendSignal } from "./processes.ts";

/** How to run Postgres on a data directory. */
export interface PostmasterOptions {
  readonly binaries: PostgresBinaries;
  readonly identity: Identity;
  readonly dataDirectory: string;
  /** On 127.0.0.1. */
  readonly port: number;
  /** Server settings, given on the command line; they win over postgresql.conf. */
  readonly settings: Readonly<Record<string, string>>;
  /** What Postgres says is appended here. */
  readonly logFile: string;
  /** How long recovery after a crash may take, in ms. */
  readonly startTimeoutMs: number;
}

/** Why a start failed, as far as the caller can do something about it. */
export type StartFailure = "port-taken" | "still-in-use" | "other";

/** Postgres ended before it was ready. `failure` tells what may be tried again. */
export class StartError extends FeedError {
  readonly failure: StartFailure;

  constructor(failure: StartFailure, dataDirectory: string, said: string, logFile: string) {
    super(
      "DATABASE_UNAVAILABLE",
      `Postgres did not start on ${dataDirectory}: ${said || "it said nothing"}`,
      `The whole story is in ${logFile}.`,
    );
    this.failure = failure;
  }
}

/**
 * Starts Postgres and resolves once it takes connections. It goes on running when this process ends, also when that is
 * killed: what it was told by clients stays committed, and the next start finds it.
 *
 * In a session of its own, so that Ctrl-C in the terminal reaches only the server, which stops it last.
 *
 * @throws StartError when it ends before it is ready, or is not ready in time.
 */
export async function startPostmaster(options: PostmasterOptions): Promise<PostmasterFile> {
  const deadline = performance.now() + stillInUseMs;
  for (;;) {
    try {
      return await startOnce(options);
    } catch (error) {
      const again = error instanceof StartError && error.failure === "still-in-use" && performance.now() < deadline;
      if (!again) throw error;
      await delay(20);
    }
  }
}

/** After the postmaster alone was killed its backends hold the shared memory until they notice. */
const stillInUseMs = 10_000;

async function startOnce(options: PostmasterOptions): Promise<PostmasterFile> {
  const { dataDirectory, logFile } = options;
  await removeStalePostmasterFile(dataDirectory);
  const log = await open(logFile, "a", 0o600);
  try {
    const from = (await log.stat()).size;
    const child = spawnAs(options.identity, options.binaries.postgres, argumentsFor(options), {
      stdio: ["ignore", log.fd, log.fd],
      detached: true,
    });
    child.unref();
    const ready = await waitUntilReady(child, dataDirectory, options.startTimeoutMs);
    if (typeof ready !== "string") return ready;
    throw startError(options, (await readFrom(logFile, from)) || ready);
  } finally {
    await log.close();
  }
}

/**
 * Stops Postgres: running transactions are rolled back and clients told (a fast shutdown). When that takes longer than
 * the grace it is stopped without a checkpoint (the next start recovers), and killed as a last resort. Windows has no
 * signals: there it ends at once.
 *
 * @param graceMs for the fast shutdown
 */
export async function stopPostmaster(pid: number, graceMs: number): Promise<void> {
  sendSignal(pid, "SIGINT");
  if (await ended(pid, graceMs)) return;
  sendSignal(pid, "SIGQUIT");
  if (await ended(pid, 6_000)) return;
  sendSignal(pid, "SIGKILL");
  await ended(pid, 5_000);
}

function argumentsFor(options: PostmasterOptions): readonly string[] {
  const settings = {
    ...options.settings,
    port: String(options.port),
    listen_addresses: "127.0.0.1",
    // TCP only: a socket's path may hold 107 bytes, and data directories are often deeper.
    unix_socket_directories: "",
  };
  return [
    "-D",
    options.dataDirectory,
    ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
  ];
}

/** The running postmaster, or why there is none. */
async function waitUntilReady(child: ChildProcess, dataDirectory: string, timeoutMs: number) {
  let failed: string | undefined;
  child.once("error", (error) => {
    failed = error.message;
  });
  child.once("exit", (code, signal) => {
    failed = `it ended with ${signal ?? `code ${code}`}`;
  });
  const deadline = performance.now() + timeoutMs;
  // A warm start takes some 30 ms: look often at first.
  for (let pause = 2; ; pause = pause < 50 && performance.now() > deadline - timeoutMs + 500 ? pause * 2 : pause) {
    const file = await readPostmasterFile(dataDirectory);
    if (file !== undefined && file.pid === child.pid && file.state === "ready") return file;
    if (failed !== undefined) return failed;
    if (performance.now() > deadline) {
      if (child.pid !== undefined) await stopPostmaster(child.pid, 5_000);
      return `it was not ready within ${timeoutMs} ms`;
    }
    await delay(pause);
  }
}

function startError(options: PostmasterOptions, said: string): StartError {
  const lines = said.split("\n").map((line) => line.trim());
  const telling = lines.findLast((line) => line.includes("FATAL:")) ?? lines.findLast((line) => line !== "") ?? "";
  const failure = /could not create any TCP\/IP sockets|Address already in use/.test(said)
    ? "port-taken"
    : /pre-existing shared memory block|lock file "postmaster.pid" already exists/.test(said)
      ? "still-in-use"
      : "other";
  return new StartError(failure, options.dataDirectory, telling.replace(/^.*FATAL:\s+/, ""), options.logFile);
}

async function readFrom(file: string, position: number): Promise<string> {
  const handle = await open(file, "r");
  try {
    const { size } = await handle.stat();
    const start = Math.max(position, size - 65_536);
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(size - start), 0, size - start, start);
    return buffer.toString("utf8", 0, bytesRead);
  } finally {
    await handle.close();
  }
}
