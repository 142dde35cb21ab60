import { access } from "node:fs/promises";
import { join, resolve } from "node:path";
import { FeedError } from "../../core/errors.ts";

/** In the order in which they are looked for. */
export const configFileNames = [
  "millrace.config.ts",
  "millrace.config.mts",
  "millrace.config.js",
  "millrace.config.mjs",
  "millrace.config.json",
] as const;

/**
 * The configuration file to use: the one that was named, or one that lies in the directory; `undefined` when there is none.
 *
 * @throws FeedError INVALID_REQUEST when the one that was named is not there, or several lie in the directory
 */
export async function findConfigFile(directory: string, given: string | undefined): Promise<string | undefined> {
  if (given !== undefined && given !== "") {
    const path = resolve(directory, given);
    if (await isThere(path)) return path;
    throw new FeedError("INVALID_REQUEST", `There is no ${path}.`, "Correct --config (MILLRACE_CONFIG).");
  }
  const there: string[] = [];
  for (const name of configFileNames) {
    if (await isThere(join(directory, name))) there.push(name);
  }
  const [first, second] = there;
  if (second !== undefined) {
    throw new FeedError(
      "INVALID_REQUEST",
      `${directory} has ${there.join(" and ")}.`,
      "Leave one of them, or name the one that counts with --config.",
    );
  }
  return first === undefined ? undefined : join(directory, first);
}

async function isThere(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
