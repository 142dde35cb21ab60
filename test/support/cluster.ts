import { execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { chmod, lstat, mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { findEmbeddedBinaries, type PostgresBinaries } from "../../src/embedded/binaries.ts";
import { chooseIdentity, giveTo, type Identity } from "../../src/embedded/identity.ts";
import { initdb } from "../../src/embedded/initdb.ts";
import { chooseFreePort } from "../../src/embedded/port.ts";
import { startPostmaster, stopPostmaster } from "../../src/embedded/postmaster.ts";
import { ended, sendSignal } from "../../src/embedded/processes.ts";
import { migrate } from "../../src/postgres/migrate.ts";

export interface ClusterOptions {
  /** Server settings over the tests' own: fsync off, max_prepared_transactions 64, max_connections 200. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Default `embedded`. */
  readonly binaries?: "embedded" | "debian-15";
}

/** A Postgres of a test's own. It is stopped and deleted with its process, however that ends. */
export interface TestCluster extends AsyncDisposable {
  /** Connects as the superuser `postgres` to the database `postgres` unless told otherwise. Every role is trusted. */
  url(database?: string, user?: string): string;
  readonly port: number;
  readonly dataDir: string;
  /** Of the one that runs, or ran last. */
  readonly postmasterPid: number;
  /** Makes an empty database (a fresh name unless given) and returns its superuser URL. */
  createDatabase(name?: string): Promise<string>;
  /** SIGKILL to the postmaster: a crash. Resolves when it is gone; its backends follow. */
  kill9(): Promise<void>;
  /** A fast shutdown. */
  stop(): Promise<void>;
  /** Starts it again, on the same port, after `stop` or `kill9`. */
  start(settings?: Readonly<Record<string, string>>): Promise<void>;
}

const testSettings: Readonly<Record<string, string>> = {
  fsync: "off",
  max_prepared_transactions: "64",
  max_connections: "200",
  shared_buffers: "64MB",
  log_line_prefix: "%m [%p] %q%u@%d ",
};

const debian15 = "/usr/lib/postgresql/15";

/** Whether Debian's Postgres 15 is installed here. */
export function debian15Available(): boolean {
  return existsSync(join(debian15, "bin", "postgres")) && existsSync(join(debian15, "bin", "initdb"));
}

/** Starts a Postgres in a directory of its own. About 0.1 s. */
export async function createCluster(options: ClusterOptions = {}): Promise<TestCluster> {
  const binaries =
    options.binaries === "debian-15" ? debian15Binaries : (otherBinaries() ?? (await findEmbeddedBinaries()));
  const home = await mkdtemp(join(tmpdir(), "millrace-test-"));
  await chmod(home, 0o711);
  const watchdog = startWatchdog(home);
  try {
    const identity = await chooseIdentity([binaries.root, home]);
    const dataDir = join(home, "data");
    await copyTemplate(binaries, identity, dataDir);
    const cluster = new Cluster({ binaries, identity, home, dataDir, port: await chooseFreePort() }, watchdog);
    await cluster.start({ ...testSettings, ...options.settings });
    return cluster;
  } catch (error) {
    watchdog.end();
    throw error;
  }
}

let shared: Promise<TestCluster> | undefined;

/** The cluster that the tests of one process share: for those that need no settings, roles or crashes of their own. */
export function sharedCluster(): Promise<TestCluster> {
  shared ??= createCluster();
  return shared;
}

export interface FreshDatabaseOptions {
  /** Brings Millrace's schema into it. Default false. */
  readonly migrated?: boolean;
}

/**
 * A database of its own in the shared cluster; its superuser URL. A migrated one is migrated for real and not copied
 * from another: a copy would be another history in the eyes of the feed, as the database's oid is part of its identity.
 */
export async function freshDatabase(options: FreshDatabaseOptions = {}): Promise<string> {
  const url = await (await sharedCluster()).createDatabase();
  if (options.migrated === true) await migrate(url);
  return url;
}

const debian15Binaries: PostgresBinaries = {
  initdb: join(debian15, "bin", "initdb"),
  postgres: join(debian15, "bin", "postgres"),
  root: debian15,
  majorVersion: 15,
  localeArguments: ["--no-locale"],
};

/**
 * `MILLRACE_TEST_POSTGRES=13:/path` runs the suite on the server of that major version under /path/bin, instead of on the
 * embedded one.
 */
function otherBinaries(): PostgresBinaries | undefined {
  const match = /^(\d+):(.+)$/.exec(process.env.MILLRACE_TEST_POSTGRES ?? "");
  if (match === null) return undefined;
  const [, version, root = ""] = match;
  return {
    initdb: join(root, "bin", "initdb"),
    postgres: join(root, "bin", "postgres"),
    root,
    majorVersion: Number(version),
    localeArguments: ["--no-locale"],
  };
}

interface Placement {
  readonly binaries: PostgresBinaries;
  readonly identity: Identity;
  readonly home: string;
  readonly dataDir: string;
  readonly port: number;
}

class Cluster implements TestCluster {
  readonly port: number;
  readonly dataDir: string;
  readonly #placement: Placement;
  readonly #watchdog: Watchdog;
  #settings: Readonly<Record<string, string>> = {};
  #pid = 0;

  constructor(placement: Placement, watchdog: Watchdog) {
    this.#placement = placement;
    this.#watchdog = watchdog;
    this.port = placement.port;
    this.dataDir = placement.dataDir;
  }

  get postmasterPid(): number {
    return this.#pid;
  }

  url(database = "postgres", user = "postgres"): string {
    return `postgres://${encodeURIComponent(user)}@127.0.0.1:${this.port}/${encodeURIComponent(database)}`;
  }

  async createDatabase(name = `d_${randomBytes(6).toString("hex")}`): Promise<string> {
    const client = new pg.Client({ connectionString: this.url() });
    await client.connect();
    try {
      // template0, because nobody is ever connected to it: that would make this fail.
      await client.query(`create database ${pg.escapeIdentifier(name)} template template0`);
    } finally {
      await client.end();
    }
    return this.url(name);
  }

  async kill9(): Promise<void> {
    sendSignal(this.#pid, "SIGKILL");
    await ended(this.#pid, 10_000);
  }

  async stop(): Promise<void> {
    await stopPostmaster(this.#pid, 10_000);
  }

  async start(settings = this.#settings): Promise<void> {
    this.#settings = settings;
    const { binaries, identity, home, dataDir, port } = this.#placement;
    const logFile = join(home, "postgres.log");
    const options = { binaries, identity, dataDirectory: dataDir, port, settings, logFile, startTimeoutMs: 30_000 };
    this.#pid = (await startPostmaster(options)).pid;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    sendSignal(this.#pid, "SIGQUIT");
    await ended(this.#pid, 10_000);
    await this.#watchdog.end();
  }
}

interface Watchdog {
  /** Has it clean up now; resolves when it has. */
  end(): Promise<void>;
}

/**
 * Stops the cluster and deletes its directory when this process is gone, however it went: the pipe that it reads from
 * then closes. Run by sh, in a session of its own, so that no signal meant for the tests reaches it.
 */
function startWatchdog(home: string): Watchdog {
  const script = `
    read -r never
    pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
    if [ -n "$pid" ] && tr '\\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$1/data"; then
      kill -QUIT "$pid"
      while [ -d "/proc/$pid" ] && ! grep -q '^State:.Z' "/proc/$pid/status"; do sleep 0.02; done
    fi
    rm -rf "$1"`;
  const child = spawn("sh", ["-c", script, "watchdog", home], { stdio: ["pipe", "ignore", "ignore"], detached: true });
  const gone = new Promise<void>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", () => resolve());
  });
  child.unref();
  if ("unref" in child.stdin && typeof child.stdin.unref === "function") child.stdin.unref();
  return {
    end: () => {
      child.ref();
      child.stdin.end();
      return gone;
    },
  };
}

/** initdb runs once per version and user; every cluster is a copy. */
async function copyTemplate(binaries: PostgresBinaries, identity: Identity, to: string): Promise<void> {
  const template = await templateDirectory(binaries, identity);
  // Some 40 MB in a thousand files: cp takes half of the time that Node does, and keeps the owner.
  await promisify(execFile)("cp", ["-a", template, to]);
}

async function templateDirectory(binaries: PostgresBinaries, identity: Identity): Promise<string> {
  const owner = identity.kind === "user" ? identity.uid : (process.getuid?.() ?? 0);
  const place = join(tmpdir(), `millrace-initdb-${binaries.majorVersion}-${process.getuid?.() ?? 0}-${owner}`);
  const template = join(place, "data");
  if (await belongsTo(place, process.getuid?.() ?? 0)) return template;
  const making = await mkdtemp(join(tmpdir(), "millrace-initdb-"));
  await chmod(making, 0o711);
  await mkdir(join(making, "data"), { mode: 0o700 });
  await giveTo(identity, join(making, "data"));
  await initdb({ binaries, identity, directory: join(making, "data") });
  try {
    await rename(making, place);
  } catch {
    // Another process was first, with the same outcome.
    await rm(making, { recursive: true, force: true });
  }
  if (!(await belongsTo(place, process.getuid?.() ?? 0))) throw new Error(`${place} belongs to somebody else`);
  return template;
}

async function belongsTo(path: string, uid: number): Promise<boolean> {
  try {
    const found = await lstat(path);
    return found.isDirectory() && found.uid === uid;
  } catch {
    return false;
  }
}
