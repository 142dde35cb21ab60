import { readFile, realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { FeedError } from "../core/errors.ts";
import { findEmbeddedBinaries, type PostgresBinaries } from "./binaries.ts";
import { claimDirectory } from "./claim.ts";
import { assertVersion, openHome, prepareCluster, readPassword } from "./cluster-directory.ts";
import { chooseIdentity } from "./identity.ts";
import { type Layout, layoutOf } from "./layout.ts";
import { chooseFreePort, isFree } from "./port.ts";
import { StartError, startPostmaster, stopPostmaster } from "./postmaster.ts";
import { findPostmaster, type PostmasterFile } from "./postmaster-file.ts";
import { ended } from "./processes.ts";

/** Where to run it and how. */
export interface EmbeddedOptions {
  /** Made when missing. What it holds: `Layout`. */
  readonly dataDir: string;
  /** TCP port on 127.0.0.1. Default: the one it had last when that is free, else a free one. */
  readonly port?: number;
  /** Server settings over Postgres's own defaults. One that is adopted keeps those it was started with. */
  readonly settings?: Readonly<Record<string, string>>;
  /** How long it may take to be ready, recovery after a crash included, in ms. Default 120,000. */
  readonly startTimeoutMs?: number;
  /** Told in a sentence about what takes long or may surprise. */
  readonly log?: (message: string) => void;
}

/** Where a running embedded Postgres is found. */
export interface RunningPostgres {
  /** As the superuser `postgres`, with its password; the database `postgres`. */
  readonly url: string;
  readonly port: number;
  /** Of the postmaster. */
  readonly pid: number;
}

/** An embedded Postgres that is this process's to use and to stop. */
export interface EmbeddedPostgres extends RunningPostgres {
  /** It was running already, left behind by a Millrace that was killed. */
  readonly adopted: boolean;
  /**
   * Stops it and lets go of the directory. Idempotent.
   *
   * @param graceMs for a shutdown that writes everything out; then it is cut short, and the next start recovers.
   * Default 10,000.
   */
  stop(graceMs?: number): Promise<void>;
}

const defaultSettings: Readonly<Record<string, string>> = {
  cluster_name: "millrace",
  max_connections: "100",
  shared_buffers: "128MB",
  log_checkpoints: "off",
  log_line_prefix: "%m [%p] %q%u@%d ",
};

const logMaxBytes = 16 * 1024 * 1024;

/**
 * Runs the Postgres that npm installed, on a directory of its own: makes it at the first start (half a second), starts it
 * (some 30 ms), or adopts the one that a killed Millrace left running. For development and trials: one machine, one
 * process, passwords over loopback.
 *
 * It listens on 127.0.0.1 only and asks for a generated password, because other users of the machine can reach that
 * address too. As root it runs as another user: see `Identity`.
 *
 * @throws FeedError DATABASE_UNAVAILABLE when the directory holds other things, another Millrace has it, the port that was
 * asked for is taken, another version or another user made it, or Postgres does not start; the message says which.
 */
export async function startEmbedded(options: EmbeddedOptions): Promise<EmbeddedPostgres> {
  const home = resolve(options.dataDir);
  try {
    const binaries = await findEmbeddedBinaries();
    const layout = layoutOf(await openHome(home));
    const claim = await claimDirectory(layout.claims, layout.home);
    try {
      const { file, adopted } = await adoptOrStart(layout, binaries, options);
      const running = await describe(layout, file);
      let stopping: Promise<void> | undefined;
      const stop = (graceMs = 10_000) => {
        stopping ??= stopPostmaster(file.pid, graceMs).then(() => claim.release());
        return stopping;
      };
      return { ...running, adopted, stop };
    } catch (error) {
      await claim.release();
      throw error;
    }
  } catch (error) {
    throw explained(error, home);
  }
}

/**
 * The embedded Postgres that runs on this directory now, whoever started it; undefined when none does.
 *
 * @throws FeedError DATABASE_UNAVAILABLE when its password is not ours to read.
 */
export async function findRunning(dataDir: string): Promise<RunningPostgres | undefined> {
  const home = await realpath(resolve(dataDir)).catch(() => undefined);
  if (home === undefined) return undefined;
  const layout = layoutOf(home);
  const file = await findPostmaster(layout.cluster);
  return file?.state === "ready" ? describe(layout, file) : undefined;
}

interface Started {
  readonly file: PostmasterFile;
  readonly adopted: boolean;
}

async function adoptOrStart(layout: Layout, binaries: PostgresBinaries, options: EmbeddedOptions): Promise<Started> {
  await assertVersion(layout, binaries);
  const found = await settled(layout, options.startTimeoutMs ?? 120_000);
  if (found !== undefined) {
    if (options.port === undefined || options.port === found.port) {
      options.log?.(`Adopted the Postgres that was left running (process ${found.pid}, port ${found.port}).`);
      return { file: found, adopted: true };
    }
    options.log?.(
      `Restarting the Postgres that was left running on port ${found.port}, to have it on ${options.port}.`,
    );
    await stopPostmaster(found.pid, 10_000);
  }
  return { file: await startNew(layout, binaries, options), adopted: false };
}

/** What runs once it is neither coming up nor going down. */
async function settled(layout: Layout, timeoutMs: number): Promise<PostmasterFile | undefined> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const file = await findPostmaster(layout.cluster);
    if (file === undefined || file.state === "ready") return file;
    if (file.state === "stopping") await ended(file.pid, 10_000);
    if (performance.now() > deadline) {
      await stopPostmaster(file.pid, 1_000);
      return undefined;
    }
    await delay(10);
  }
}

async function startNew(layout: Layout, binaries: PostgresBinaries, options: EmbeddedOptions): Promise<PostmasterFile> {
  const identity = await chooseIdentity([binaries.root, layout.home]);
  if (await prepareCluster(layout, binaries, identity))
    options.log?.(`Made a new Postgres data directory in ${layout.home}.`);
  // Before Postgres runs: one that nobody can connect to would be left behind.
  await readPassword(layout);
  await rotateLog(layout);
  for (let attempt = 1; ; attempt++) {
    const port = await choosePort(layout, options.port);
    try {
      const file = await startPostmaster({
        binaries,
        identity,
        dataDirectory: layout.cluster,
        port,
        settings: { ...defaultSettings, ...options.settings },
        logFile: layout.log,
        startTimeoutMs: options.startTimeoutMs ?? 120_000,
      });
      await writeFile(layout.port, `${port}\n`);
      return file;
    } catch (error) {
      // Somebody took the port between our look and Postgres's.
      const again = error instanceof StartError && error.failure === "port-taken" && options.port === undefined;
      if (!again || attempt === 5) throw error;
    }
  }
}

async function choosePort(layout: Layout, wanted: number | undefined): Promise<number> {
  if (wanted !== undefined) {
    if (await isFree(wanted)) return wanted;
    throw new FeedError(
      "DATABASE_UNAVAILABLE",
      `Port ${wanted}, meant for the embedded Postgres, is taken on 127.0.0.1.`,
      "Name another one, or none to have a free one chosen.",
    );
  }
  const last = Number(await readFile(layout.port, "utf8").catch(() => ""));
  return last > 0 && last < 65_536 && (await isFree(last)) ? last : chooseFreePort();
}

async function rotateLog(layout: Layout): Promise<void> {
  const size = await stat(layout.log).then(
    (found) => found.size,
    () => 0,
  );
  if (size <= logMaxBytes) return;
  await rm(layout.olderLog, { force: true });
  await rename(layout.log, layout.olderLog);
}

async function describe(layout: Layout, file: PostmasterFile): Promise<RunningPostgres> {
  const password = encodeURIComponent(await readPassword(layout));
  return { url: `postgres://postgres:${password}@127.0.0.1:${file.port}/postgres`, port: file.port, pid: file.pid };
}

function explained(error: unknown, home: string): unknown {
  if (error instanceof FeedError || !(error instanceof Error && "code" in error)) return error;
  return new FeedError(
    "DATABASE_UNAVAILABLE",
    `The embedded Postgres in ${home} cannot be used: ${error.message}`,
    "Check that this user may write there and that the disk has room, or choose another data directory.",
    { cause: error },
  );
}
