import { stat } from "node:fs/promises";
import { basename } from "node:path";
import type { Logger } from "pino";
import { FeedError } from "../../core/errors.ts";
import type { Service } from "../../core/ports.ts";
import type { Problem } from "../../rpc/status.ts";
import { type ConfigFile, configDigest, readConfigFile } from "./read-config.ts";

/** A configuration file that may change while the server runs. */
export interface FollowedConfig extends Service {
  /** As it was when it was right last. */
  readonly current: ConfigFile;
  /** Why it is not read as it is now. */
  problems(): readonly Problem[];
  /** Calls back after each change that can be read. The result ends that. */
  onChange(tell: (next: ConfigFile, before: ConfigFile) => void): () => void;
}

/** What following takes. */
export interface FollowedConfigOptions {
  readonly log: Pick<Logger, "info" | "warn">;
  /** Milliseconds between looks. Default 500. */
  readonly everyMs?: number | undefined;
}

/** How often the file is looked at: far cheaper than asking a file system that may be of another machine to tell. */
const LOOK_MS = 500;

/**
 * Looks at the file, and reads it again when it has changed and then stayed as it is for one look: editors write in pieces.
 * One that cannot be read changes nothing.
 */
export function followConfigFile(first: ConfigFile, { log, everyMs = LOOK_MS }: FollowedConfigOptions): FollowedConfig {
  const { path } = first;
  const name = basename(path);
  const told = new Set<(next: ConfigFile, before: ConfigFile) => void>();
  const stopping = new AbortController();
  let current = first;
  let problem: Problem | undefined;
  let timer: NodeJS.Timeout | undefined;
  let looking: Promise<void> = Promise.resolve();
  /** What the file looked like when it was read, and one look ago. */
  let read: string | undefined;
  let seen: string | undefined;

  const load = async (): Promise<void> => {
    try {
      const next = (await configDigest(path)) === current.digest ? current : await readConfigFile(path);
      if (stopping.signal.aborted) return;
      if (problem !== undefined) log.info({ code: problem.code }, `solved: ${problem.message}`);
      problem = undefined;
      if (next === current) return;
      const before = current;
      current = next;
      log.info({ config: path }, "the configuration file has changed: its sources count from now on");
      if (JSON.stringify(next.options) !== JSON.stringify(before.options)) {
        log.warn({ config: path }, "options of the server count from its next start on");
      }
      for (const tell of told) tell(next, before);
    } catch (error) {
      problem = configProblem(error, name);
      log.warn({ code: problem.code, action: problem.action }, problem.message);
    }
  };
  const look = async (): Promise<void> => {
    const now = await appearance(path);
    const settled = now === seen;
    seen = now;
    if (settled && now !== read) {
      read = now;
      await load();
    }
  };
  const again = (): void => {
    if (stopping.signal.aborted) return;
    timer = setTimeout(() => {
      looking = look().finally(again);
    }, everyMs);
  };
  return {
    get current() {
      return current;
    },
    problems: () => (problem === undefined ? [] : [problem]),
    onChange(tell) {
      told.add(tell);
      return () => told.delete(tell);
    },
    async start() {
      // The second look compares the bytes, and so finds what has changed since they were read.
      again();
    },
    async stop() {
      stopping.abort();
      clearTimeout(timer);
      await looking;
    },
  };
}

/** What a change of the file changes. */
async function appearance(path: string): Promise<string> {
  try {
    const { mtimeMs, size, ino } = await stat(path);
    return `${mtimeMs} ${size} ${ino}`;
  } catch (error) {
    return String(error instanceof Error && "code" in error ? error.code : error);
  }
}

function configProblem(error: unknown, name: string): Problem {
  const known = error instanceof FeedError;
  return {
    code: "CONFIG_INVALID",
    message: known ? error.message : `${name} cannot be read: ${String(error)}.`,
    action: `${known ? error.action : "Correct it."} Until then the configuration from before counts.`,
  };
}
