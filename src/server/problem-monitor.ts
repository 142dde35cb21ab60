import type { Logger } from "pino";
import type { Service } from "../core/ports.ts";
import type { Problem } from "../rpc/status.ts";

/** Looks at what may go wrong beside the feed, so that GetStatus and probes answer from memory. */
export interface ProblemMonitor extends Service {
  current(): readonly Problem[];
}

const INTERVAL_MS = 10_000;

/** Asks `list` at once and then every ten seconds; logs what appears and what goes. */
export function createProblemMonitor(
  list: (signal: AbortSignal) => Promise<readonly Problem[]>,
  log: Logger,
): ProblemMonitor {
  const stopping = new AbortController();
  let current: readonly Problem[] = [];
  let timer: NodeJS.Timeout | undefined;
  let looking: Promise<void> = Promise.resolve();
  const look = async (): Promise<void> => {
    try {
      const found = await list(stopping.signal);
      report(current, found, log);
      current = found;
    } catch (error) {
      // The feed itself says that the database is away; what was known before stands until it is back.
      if (!stopping.signal.aborted) {
        log.debug({ err: error }, "could not look for problems");
      }
    }
    if (!stopping.signal.aborted) {
      timer = setTimeout(() => {
        looking = look();
      }, INTERVAL_MS);
    }
  };
  return {
    current: () => current,
    async start() {
      looking = look();
      await looking;
    },
    async stop() {
      stopping.abort();
      clearTimeout(timer);
      await looking;
    },
  };
}

function report(before: readonly Problem[], now: readonly Problem[], log: Logger): void {
  const key = ({ code, message }: Problem): string => `${code} ${message}`;
  const known = new Set(before.map(key));
  const still = new Set(now.map(key));
  for (const problem of now.filter((one) => !known.has(key(one)))) {
    log.warn({ code: problem.code, action: problem.action }, problem.message);
  }
  for (const problem of before.filter((one) => !still.has(key(one)))) {
    log.info({ code: problem.code }, `solved: ${problem.message}`);
  }
}
