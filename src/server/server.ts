import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import type { Logger } from "pino";
import { systemClock, systemTimers } from "../core/clock.ts";
import { FeedError, goingDown } from "../core/errors.ts";
import type { Feed } from "../core/feed.ts";
import { createPolls, type Polls } from "../core/poll/polls.ts";
import type { Sources } from "../core/source/sources.ts";
import { createHttpStreams, type HttpStreams } from "../http-stream/http-streams.ts";
import { muxedBody } from "../mux/mux.ts";
import type { Traffic } from "../rpc/hand-off/wire-outlet.ts";
import { createRpcHandlers, type RpcHandler } from "../rpc/handler.ts";
import type { Problem, StorageReport } from "../rpc/status.ts";
import { advertisedUrl } from "./advertised-url.ts";
import type { Config } from "./config.ts";
import { type FollowedConfig, followConfigFile } from "./config-file/followed-config.ts";
import type { ConfigFile } from "./config-file/read-config.ts";
import { createCors } from "./cors.ts";
import { FeedHolder, type OpenFeed } from "./feed-holder.ts";
import { createFeedSlot, type FeedSlot } from "./feed-slot.ts";
import { type Listener, listen } from "./listen.ts";
import { createLogger } from "./logger.ts";
import { isLoopback } from "./loopback.ts";
import { createMcpRoute } from "./mcp-route.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import { createPageGuard } from "./page-guard.ts";
import { createPages } from "./pages.ts";
import { postgresFeedOpener } from "./postgres-feed.ts";
import { serverVersion } from "./version.ts";

/** What surrounds a server. */
export interface StartOptions {
  /** Default: JSON lines on standard error at `config.logLevel`. */
  readonly log?: Logger;
  /** Gives up the start. */
  readonly signal?: AbortSignal;
  /** Default: the feed of `config.databaseUrl`. */
  readonly openFeed?: OpenFeed;
  /** Whose sources are brought about, now and whenever it changes. Its options are in `config` already. Default: none. */
  readonly configFile?: ConfigFile | undefined;
  /** Told why the start waits and what to do, each time it tries again. The log is told only without it. */
  readonly onWait?: (failure: string, action: string) => void;
}

/** A server that takes calls. */
export interface RunningServer {
  readonly url: string;
  readonly port: number;
  readonly feed: Feed;
  /** Drains and ends everything. Idempotent. `graceMs` as `config.drainMs` by default. */
  stop(graceMs?: number): Promise<void>;
}

/** What is left of connections once their streams have ended. */
const CLOSE_GRACE_MS = 1_000;

/**
 * Opens the port, then the feed, for which it waits as long as Postgres does not answer. Resolves once commits become
 * versions.
 *
 * @throws FeedError INVALID_REQUEST with what to do when waiting cannot help: the port is taken, the password is wrong, a
 *   right is missing, the schema is of a newer Millrace
 */
export async function startServer(config: Config, options: StartOptions = {}): Promise<RunningServer> {
  const log = options.log ?? createLogger(config.logLevel);
  const signal = options.signal ?? new AbortController().signal;
  const slot = createFeedSlot();
  const shutdown = new AbortController();
  const traffic = { messages: 0, bytes: 0 };
  const { configFile } = options;
  const followed = configFile === undefined ? undefined : followConfigFile(configFile, { log });
  const problems = () => [...holder.problems(), ...(followed?.problems() ?? [])];
  const streams = streamOptions(config, { slot, log, traffic, shutdown: shutdown.signal });
  const httpStreams = createHttpStreams({ ...streams, timers: systemTimers });
  const polls = createPolls({ feed: slot, clock: systemClock, subscriptions: slot.subscriptions });
  const metrics = createMetrics({
    feed: slot,
    polls,
    subscriptions: slot.subscriptions,
    httpStreams,
    problems,
    storage: () => holder.storage(),
    builders: () => holder.builders(),
    traffic,
    clock: systemClock,
    serverVersion,
  });
  const openFeed =
    options.openFeed ??
    postgresFeedOpener(config, log, metrics.observer, followed, () => advertisedUrl(config, listener.url, hostname()));
  const holder = new FeedHolder(openFeed, slot, log);
  const handlers = {
    slot,
    streams,
    httpStreams,
    polls,
    log,
    metrics,
    shutdown: shutdown.signal,
    problems,
    storage: () => holder.storage(),
    sources: () => holder.sources(),
    built: () => holder.builders() !== undefined,
  };
  const listener = await openPort(config, handlers);
  log.info({ url: listener.url, version: serverVersion }, "listening");
  try {
    await holder.start({
      signal,
      logLevel: options.onWait === undefined ? "warn" : "debug",
      onWait(failure) {
        slot.explain(failure);
        options.onWait?.(failure.message, failure.action);
      },
    });
    const { epoch, head, oldest } = slot.status();
    log.info({ epoch, head, oldest }, "the feed moves");
    await followed?.start(signal);
    return runningServer(config, listener, { slot, metrics, shutdown, holder, followed, log });
  } catch (error) {
    await listener.close(0);
    throw error;
  }
}

interface Parts {
  readonly slot: FeedSlot;
  readonly metrics: Metrics;
  readonly shutdown: AbortController;
  readonly holder: FeedHolder;
  readonly followed: FollowedConfig | undefined;
  readonly log: Logger;
}

function runningServer(
  config: Config,
  listener: Listener,
  { slot, metrics, shutdown, holder, followed, log }: Parts,
): RunningServer {
  let stopped: Promise<void> | undefined;
  const stop = async (graceMs: number): Promise<void> => {
    log.info({ streams: slot.status().streams, graceMs }, "draining");
    await Promise.all([slot.drain(graceMs), slot.subscriptions.drain(graceMs)]);
    shutdown.abort(goingDown());
    await listener.close(CLOSE_GRACE_MS);
    await followed?.stop();
    await holder.stop();
    await metrics.stop();
    log.info({}, "stopped");
  };
  return {
    url: listener.url,
    port: listener.port,
    feed: slot,
    stop(graceMs = config.drainMs) {
      stopped ??= stop(graceMs);
      return stopped;
    },
  };
}

interface Handlers {
  readonly metrics: Metrics;
  readonly slot: FeedSlot;
  readonly streams: ReturnType<typeof streamOptions>;
  readonly httpStreams: HttpStreams;
  readonly polls: Polls;
  readonly log: Logger;
  readonly shutdown: AbortSignal;
  readonly problems: () => readonly Problem[];
  readonly storage: () => StorageReport | undefined;
  readonly sources: () => Sources | undefined;
  readonly built: () => boolean;
}

interface StreamParts extends Pick<Handlers, "slot" | "log" | "shutdown"> {
  readonly traffic: Traffic;
}

/** What all ways to stream have in common. */
function streamOptions(config: Config, { slot, log, traffic, shutdown }: StreamParts) {
  return {
    feed: slot,
    subscriptions: slot.subscriptions,
    clock: systemClock,
    checkpointIntervalMs: config.checkpointIntervalMs,
    maxStreamAgeMs: config.maxStreamAgeMs,
    log,
    bodyOf: config.delivery === "mux" ? muxedBody : undefined,
    shutdownSignal: shutdown,
    inFlight: { connectionBytes: config.connectionBytes },
    traffic,
  };
}

async function openPort(config: Config, handlers: Handlers): Promise<Listener> {
  const { slot, streams, httpStreams, polls, log, shutdown, problems, storage, sources, built, metrics } = handlers;
  let url = "";
  const rpc = createRpcHandlers({
    ...streams,
    polls,
    problems,
    storage,
    serverVersion,
    maxRequestBytes: config.maxRequestBytes,
    compress: config.compress,
    handOff: config.delivery !== "stock",
    sources: { sources, enabled: servesSources(config) },
    built,
    fallback: createPages({
      feed: slot,
      url: () => url,
      serverVersion,
      problems,
      routes: {
        "/metrics": metrics.page,
        "/v1/events": httpStreams.handler,
        "/mcp": createMcpRoute({
          transport: () => rpc.local,
          version: serverVersion,
          log,
          shutdownSignal: shutdown,
        }),
      },
    }),
  });
  const guard = createPageGuard(config);
  const cors = createCors(config.corsOrigins);
  const handler: RpcHandler = (request, response) => {
    try {
      if (guard(request, response) === "pass" && cors(request, response) === "pass") {
        rpc.request(request, response);
      }
    } catch (error) {
      // Else one request would end the process, and with it everybody's streams.
      log.error({ err: error, path: request.url }, "a request could not be answered");
      response.destroy();
    }
  };
  const listener = await listen({
    host: config.host,
    port: config.port,
    tls: await readCertificate(config),
    maxConcurrentStreams: config.maxStreams,
    mux: config.delivery === "mux" ? { connectionPendingMaxBytes: config.connectionBytes } : undefined,
    handler,
    streamHandler: rpc.stream,
  });
  url = listener.url;
  return listener;
}

/** Whoever may watch a table may read it: not for everybody on a network, unless somebody says so. */
function servesSources({ sourcesApi, host }: Config): boolean {
  return sourcesApi === "auto" ? isLoopback(host) : sourcesApi === "on";
}

async function readCertificate({ tlsCert, tlsKey }: Config): Promise<{ cert: string; key: string } | undefined> {
  if (tlsCert === undefined || tlsKey === undefined) {
    return undefined;
  }
  const read = async (path: string, option: string): Promise<string> => {
    try {
      return await readFile(path, "utf8");
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new FeedError("INVALID_REQUEST", `${option} cannot be read: ${reason}.`, "Name a PEM file.", { cause });
    }
  };
  return { cert: await read(tlsCert, "--tls-cert"), key: await read(tlsKey, "--tls-key") };
}
