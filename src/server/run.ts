import { constants } from "node:os";
import type { Logger } from "pino";
import type { Config } from "./config.ts";
import { createLogger } from "./logger.ts";
import { type RunningServer, type StartOptions, startServer } from "./server.ts";

/** What happens around a run. */
export interface RunOptions extends Omit<StartOptions, "signal"> {
  /** Told once the server takes calls. */
  readonly onStarted?: (server: RunningServer) => void;
}

/**
 * The whole life of a server process: start, until SIGTERM or SIGINT, drain. A second signal ends the process at once.
 * Rejects as `startServer` does.
 */
export async function runServer(config: Config, options: RunOptions = {}): Promise<void> {
  const log = options.log ?? createLogger(config.logLevel);
  const shutdown = onShutdownSignal(log);
  try {
    const server = await startUnlessStopped(config, { ...options, log, signal: shutdown.signal }, shutdown.signal);
    if (server !== undefined) {
      options.onStarted?.(server);
      await aborted(shutdown.signal);
      await server.stop();
    }
  } finally {
    shutdown.stop();
  }
}

/** `undefined` when it was asked to stop while it still waited for the database: that is no failure. */
async function startUnlessStopped(
  config: Config,
  options: StartOptions,
  signal: AbortSignal,
): Promise<RunningServer | undefined> {
  try {
    return await startServer(config, options);
  } catch (error) {
    if (signal.aborted) {
      return undefined;
    }
    throw error;
  }
}

interface Shutdown {
  readonly signal: AbortSignal;
  stop(): void;
}

function onShutdownSignal(log: Logger): Shutdown {
  const controller = new AbortController();
  const onSignal = (name: "SIGINT" | "SIGTERM"): void => {
    if (controller.signal.aborted) {
      log.warn({ signal: name }, "second signal: exit at once");
      process.exit(128 + constants.signals[name]);
    }
    log.info({ signal: name }, "asked to stop");
    controller.abort();
  };
  process.on("SIGINT", onSignal).on("SIGTERM", onSignal);
  return {
    signal: controller.signal,
    stop: () => process.off("SIGINT", onSignal).off("SIGTERM", onSignal),
  };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
    } else {
      signal.addEventListener("abort", () => resolve(), { once: true });
    }
  });
}
