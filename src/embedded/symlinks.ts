import { randomUUID } from "node:crypto";
import { readFile, rename, stat, symlink } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import { FeedError } from "../core/errors.ts";

interface Link {
  readonly source: string;
  readonly target: string;
}

/**
 * Puts back the symlinks that the package's own list, `native/pg-symlinks.json`, names and that are missing or dangling.
 * Safe from several processes at once. A package without a list (Windows) needs none.
 *
 * @param directory of the platform package
 * @throws FeedError DATABASE_UNAVAILABLE when one is missing and cannot be made.
 */
export async function repairSymlinks(directory: string): Promise<void> {
  for (const { source, target } of await listedLinks(directory)) {
    const link = join(directory, target);
    if (await exists(link)) continue;
    try {
      await makeLink(link, relative(dirname(target), source));
    } catch (cause) {
      throw new FeedError(
        "DATABASE_UNAVAILABLE",
        `The embedded Postgres lacks ${link}, and it could not be made.`,
        "Run npm ci as the user who owns node_modules, once, with install scripts allowed.",
        { cause },
      );
    }
  }
}

/** By rename, which replaces a dangling link and never leaves a moment without one for another process that starts. */
async function makeLink(link: string, to: string): Promise<void> {
  const made = join(dirname(link), `.${basename(link)}.${randomUUID()}`);
  await symlink(to, made);
  await rename(made, link);
}

async function listedLinks(directory: string): Promise<readonly Link[]> {
  let text: string;
  try {
    text = await readFile(join(directory, "native", "pg-symlinks.json"), "utf8");
  } catch {
    return [];
  }
  const list: unknown = JSON.parse(text);
  return Array.isArray(list) ? list.filter(isLink) : [];
}

function isLink(value: unknown): value is Link {
  return typeof value === "object" && value !== null && "source" in value && "target" in value;
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch {
    return false;
  }
}
