import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { chown, lstat, readdir, readFile, stat } from "node:fs/promises";
import { userInfo } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { FeedError } from "../core/errors.ts";

/**
 * Who Postgres runs as: `self`, whoever we are, but for two that it does not accept.
 *
 * It refuses to run as root. So as root:
 * - `user`: another uid, where that uid can reach the data directory and the binaries;
 * - `namespace`: still root to the file system, but inside a user namespace of its own where it is called `nobody`, so
 *   that paths only root may enter (below /root, say) work too. Linux only.
 *
 * And initdb refuses a uid that has no name (containers run with `--user 12345`): `namespace` gives it one.
 */
export type Identity =
  | { readonly kind: "self" }
  | { readonly kind: "user"; readonly uid: number; readonly gid: number }
  | { readonly kind: "namespace"; readonly unshare: string };

/**
 * Chooses who Postgres runs as.
 *
 * @param reach existing directories that it must be able to enter
 * @throws FeedError DATABASE_UNAVAILABLE when this is root and neither way is open.
 */
export async function chooseIdentity(reach: readonly string[]): Promise<Identity> {
  if (process.getuid?.() !== 0) return hasName() ? { kind: "self" } : namespaceOrSelf();
  const account = await unprivilegedAccount();
  let blocked = "there is neither a user postgres nor a user nobody in /etc/passwd";
  if (account !== undefined) {
    const closed = await firstClosedDirectory(reach, account);
    if (closed === undefined) return { kind: "user", ...account };
    blocked = `its user may not enter ${closed}`;
  }
  const unshare = await findUnshare();
  if (unshare !== undefined) return { kind: "namespace", unshare };
  throw new FeedError(
    "DATABASE_UNAVAILABLE",
    `Postgres does not run as root, and ${blocked}.`,
    "Start Millrace as an ordinary user, or choose a data directory that others may enter.",
  );
}

function hasName(): boolean {
  try {
    userInfo();
    return true;
  } catch {
    return false;
  }
}

/** Without a namespace initdb says what it misses; a cluster that exists runs all the same. */
async function namespaceOrSelf(): Promise<Identity> {
  const unshare = await findUnshare();
  return unshare === undefined ? { kind: "self" } : { kind: "namespace", unshare };
}

/** Gives a tree to whom Postgres runs as: it insists on owning its data directory. Symlinks are not followed. */
export async function giveTo(identity: Identity, path: string): Promise<void> {
  // Only root can give; anybody else has what is his.
  if (process.getuid?.() !== 0 || identity.kind === "self") return;
  const { uid, gid } = identity.kind === "user" ? identity : { uid: 0, gid: 0 };
  if ((await lstat(path)).uid === uid) return;
  const within = await readdir(path, { recursive: true, withFileTypes: true });
  for (const entry of within) {
    // A symlink may lead anywhere: chown would follow it.
    if (!entry.isSymbolicLink()) await chown(join(entry.parentPath, entry.name), uid, gid);
  }
  // Last, so that a chown that was cut short is done again.
  await chown(path, uid, gid);
}

/** Spawns a program of Postgres as that identity, in an environment that carries neither locales nor libpq's variables. */
export function spawnAs(
  identity: Identity,
  command: string,
  args: readonly string[],
  options: Pick<SpawnOptions, "stdio" | "detached">,
): ChildProcess {
  const all: SpawnOptions = { ...options, cwd: "/", env: cleanEnvironment() };
  if (identity.kind === "self") return spawn(command, args, all);
  if (identity.kind === "user") return spawn(command, args, { ...all, uid: identity.uid, gid: identity.gid });
  return spawn(identity.unshare, [...namespaceArguments, command, ...args], all);
}

/** 65534 is nobody nearly everywhere; initdb wants a uid that has a name. unshare execs: the pid stays the same. */
const namespaceArguments = ["--user", "--map-user=65534", "--map-group=65534", "--"];

/** Postgres fails to start on a locale that is not installed, and passes what it is given on to COPY … PROGRAM. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  const kept = ["PATH", "HOME", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "SystemRoot", "TEMP"];
  const entries = kept.flatMap((name) => {
    const value = process.env[name];
    return value === undefined ? [] : [[name, value]];
  });
  return { ...Object.fromEntries(entries), LC_ALL: "C" };
}

interface Account {
  readonly uid: number;
  readonly gid: number;
}

async function unprivilegedAccount(): Promise<Account | undefined> {
  let passwd: string;
  try {
    passwd = await readFile("/etc/passwd", "utf8");
  } catch {
    return undefined;
  }
  const lines = passwd.split("\n").map((line) => line.split(":"));
  for (const name of ["postgres", "nobody"]) {
    const [, , uid, gid] = lines.find((fields) => fields[0] === name) ?? [];
    if (Number(uid) > 0 && Number(gid) > 0) return { uid: Number(uid), gid: Number(gid) };
  }
  return undefined;
}

async function firstClosedDirectory(paths: readonly string[], account: Account): Promise<string | undefined> {
  for (const path of paths) {
    for (const directory of ancestors(path)) {
      if (!(await mayEnter(directory, account))) return directory;
    }
  }
  return undefined;
}

function ancestors(path: string): readonly string[] {
  const parent = dirname(path);
  return parent === path ? [path] : [...ancestors(parent), path];
}

async function mayEnter(directory: string, account: Account): Promise<boolean> {
  const { mode, uid, gid } = await stat(directory);
  if (uid === account.uid) return (mode & 0o100) !== 0;
  if (gid === account.gid) return (mode & 0o010) !== 0;
  return (mode & 0o001) !== 0;
}

/** The path of an `unshare` that can do what we need, tried out: containers often forbid it. */
async function findUnshare(): Promise<string | undefined> {
  for (const directory of [...(process.env.PATH ?? "").split(delimiter), "/usr/bin", "/bin"]) {
    const path = join(directory, "unshare");
    const works = await new Promise<boolean>((resolve) => {
      const probe = spawn(path, [...namespaceArguments, "true"], { stdio: "ignore" });
      probe.once("error", () => resolve(false));
      probe.once("exit", (code) => resolve(code === 0));
    });
    if (works) return path;
  }
  return undefined;
}
