import { randomBytes } from "node:crypto";
import { access, mkdir, open, readdir, readFile, realpath, rename, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { FeedError } from "../core/errors.ts";
import type { PostgresBinaries } from "./binaries.ts";
import { giveTo, type Identity } from "./identity.ts";
import { initdb } from "./initdb.ts";
import { type Layout, layoutOf } from "./layout.ts";

/**
 * Makes sure that there is a whole cluster, which belongs to `identity` and which these binaries can open. Only for who
 * has the claim on the directory, and while no Postgres runs on it.
 *
 * @returns whether it was made just now.
 * @throws FeedError DATABASE_UNAVAILABLE when it is another version's or another user's, or cannot be made.
 */
export async function prepareCluster(layout: Layout, binaries: PostgresBinaries, identity: Identity): Promise<boolean> {
  await removeUnfinished(layout);
  await setAsideIncomplete(layout);
  if (await exists(layout.cluster)) {
    await assertVersion(layout, binaries);
    await giveTo(identity, layout.cluster);
    await assertOwned(layout);
    return false;
  }
  await makeCluster(layout, binaries, identity);
  return true;
}

/**
 * Makes the directory, or makes sure that it is one of these: in somebody's project folder our `password` and `port`
 * could be other things. Postgres's user must be able to pass through; what is private in it has a mode of its own.
 *
 * @returns its real path: Postgres is told, and asked for, by it, and it must be the same through whatever symlink.
 * @throws FeedError DATABASE_UNAVAILABLE when it holds other things.
 */
export async function openHome(directory: string): Promise<string> {
  await mkdir(directory, { recursive: true, mode: 0o711 });
  const home = await realpath(directory);
  const names = (await readdir(home)).filter((name) => name !== "lost+found");
  if (names.length === 0 || names.includes(basename(layoutOf(home).claims))) return home;
  throw new FeedError(
    "DATABASE_UNAVAILABLE",
    `${home} holds other things, so the embedded Postgres does not move in.`,
    "Choose a data directory that is empty or does not exist yet.",
  );
}

/**
 * Refuses a cluster that another major version made: Postgres cannot open it. No cluster at all passes.
 *
 * @throws FeedError DATABASE_UNAVAILABLE
 */
export async function assertVersion(layout: Layout, binaries: PostgresBinaries): Promise<void> {
  const version = await contents(join(layout.cluster, "PG_VERSION"));
  if (version === undefined || version === String(binaries.majorVersion)) return;
  throw new FeedError(
    "DATABASE_UNAVAILABLE",
    `${layout.cluster} was made by Postgres ${version}; the embedded one is Postgres ${binaries.majorVersion}.`,
    `Move its data with pg_dump of Postgres ${version}, or delete ${layout.home} to start afresh.`,
  );
}

/**
 * The superuser's password.
 *
 * @throws FeedError DATABASE_UNAVAILABLE when it is not there or not ours to read.
 */
export async function readPassword(layout: Layout): Promise<string> {
  const password = await contents(layout.password);
  if (password) return password;
  throw new FeedError(
    "DATABASE_UNAVAILABLE",
    `The password of the embedded Postgres could not be read from ${layout.password}.`,
    `Start Millrace as the user who made it, put the file back, or delete ${layout.home} to start afresh.`,
  );
}

/** In a directory beside it, moved into place when it is whole: a cut initdb leaves nothing that looks like a cluster. */
async function makeCluster(layout: Layout, binaries: PostgresBinaries, identity: Identity): Promise<void> {
  const making = join(layout.home, `initdb-${process.pid}`);
  const password = randomBytes(24).toString("base64url");
  await mkdir(making, { mode: 0o700 });
  await mkdir(join(making, "cluster"), { mode: 0o700 });
  await writeDurably(join(making, "password"), password);
  await giveTo(identity, making);
  await initdb({ binaries, identity, directory: join(making, "cluster"), passwordFile: join(making, "password") });
  // Before the cluster: a password without one is made anew, a cluster without one is lost.
  await writeDurably(layout.password, password);
  await rename(join(making, "cluster"), layout.cluster);
  await rm(making, { recursive: true });
}

/** The initdb of a start that was killed may go on for a moment and put files where others are just being removed. */
async function removeUnfinished(layout: Layout): Promise<void> {
  const untilItHasEnded = { recursive: true, force: true, maxRetries: 10, retryDelay: 100 };
  for (const name of await readdir(layout.home)) {
    if (name.startsWith("initdb-")) await rm(join(layout.home, name), untilItHasEnded);
  }
}

/** A restored or damaged directory may lack its end. It is kept: it may hold somebody's data. */
async function setAsideIncomplete(layout: Layout): Promise<void> {
  if (!(await exists(layout.cluster))) return;
  const parts = ["PG_VERSION", "postgresql.conf", "pg_hba.conf", "global/pg_control", "base", "pg_wal"];
  const found = await Promise.all(parts.map((part) => exists(join(layout.cluster, part))));
  if (found.every(Boolean)) return;
  await rename(layout.cluster, join(layout.home, `incomplete-${new Date().toISOString().replaceAll(":", "-")}`));
}

async function assertOwned(layout: Layout): Promise<void> {
  const user = process.getuid?.();
  if (user === undefined || user === 0) return;
  const { uid } = await stat(layout.cluster);
  if (uid === user) return;
  throw new FeedError(
    "DATABASE_UNAVAILABLE",
    `${layout.cluster} belongs to the user with uid ${uid}, and this is uid ${user}.`,
    `Start Millrace as that user, or run: sudo chown -R ${user} '${layout.home}'`,
  );
}

async function writeDurably(file: string, content: string): Promise<void> {
  const temporary = `${file}.new`;
  await rm(temporary, { force: true });
  const handle = await open(temporary, "wx", 0o600);
  try {
    await handle.writeFile(content);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(temporary, file);
}

async function contents(file: string): Promise<string | undefined> {
  try {
    return (await readFile(file, "utf8")).trim();
  } catch {
    return undefined;
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}
