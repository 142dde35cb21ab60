import { text } from "node:stream/consumers";
import { FeedError } from "../core/errors.ts";
import type { PostgresBinaries } from "./binaries.ts";
import { type Identity, spawnAs } from "./identity.ts";

/** What to make a data directory with. */
export interface InitdbOptions {
  readonly binaries: PostgresBinaries;
  readonly identity: Identity;
  /** An empty directory that belongs to `identity`. */
  readonly directory: string;
  /** A file that `identity` can read, with the password of the superuser `postgres`. Without one everybody is trusted. */
  readonly passwordFile?: string;
}

/**
 * Makes a data directory: UTF8, byte order, no locale of this machine. About half a second.
 *
 * @throws FeedError DATABASE_UNAVAILABLE with what initdb said.
 */
export async function initdb(options: InitdbOptions): Promise<void> {
  const { binaries, identity, directory, passwordFile } = options;
  const auth = passwordFile === undefined ? ["--auth=trust"] : ["--auth=scram-sha-256", `--pwfile=${passwordFile}`];
  const args = ["-D", directory, "-U", "postgres", "-E", "UTF8", ...binaries.localeArguments, ...auth];
  // Apart from the terminal: Ctrl-C is for the server, which ends in an orderly way once this is through.
  const child = spawnAs(identity, binaries.initdb, args, { stdio: ["ignore", "pipe", "pipe"], detached: true });
  const exited = new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  try {
    const [code, , complaint] = await Promise.all([exited, drained(child.stdout), drained(child.stderr)]);
    if (code !== 0) throw new Error(complaint.trim());
  } catch (cause) {
    throw new FeedError(
      "DATABASE_UNAVAILABLE",
      `initdb could not make ${directory}: ${cause instanceof Error ? cause.message : String(cause)}`,
      "Check that the disk has room and that the directory may be written; what initdb says above is the reason.",
      { cause },
    );
  }
}

async function drained(stream: NodeJS.ReadableStream | null): Promise<string> {
  return stream === null ? "" : text(stream);
}
