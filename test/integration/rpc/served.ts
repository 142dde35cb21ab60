import type { Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { pino } from "pino";
import type { Feed } from "../../../src/core/feed.ts";
import type { Subscriptions } from "../../../src/core/subscription/subscriptions.ts";
import type { Problem } from "../../../src/rpc/status.ts";
import { type ConfigInput, resolveConfig } from "../../../src/server/config.ts";
import { type RunningServer, startServer } from "../../../src/server/server.ts";

/** A real server on a real port, over a feed of the test's choice. */
export interface Served extends AsyncDisposable {
  readonly server: RunningServer;
  readonly url: string;
  readonly port: number;
  /** What was logged, one JSON object each. */
  readonly logged: readonly Readonly<Record<string, unknown>>[];
}

export interface ServedOptions {
  readonly config?: Partial<ConfigInput>;
  readonly problems?: readonly Problem[];
  /** Of that feed; they end before it. */
  readonly subscriptions?: Subscriptions;
}

/** The database URL is never used: the feed is given. */
export async function serve(feed: Feed, options: ServedOptions = {}): Promise<Served> {
  const logged: Record<string, unknown>[] = [];
  const log = pino({ level: "debug" }, { write: (line: string) => logged.push(JSON.parse(line)) });
  const config = resolveConfig({
    // `MILLRACE_DELIVERY=stock npx vitest run test/integration/rpc`: every test here holds for every way of delivery.
    env: { MILLRACE_DELIVERY: process.env.MILLRACE_DELIVERY },
    flags: { databaseUrl: "postgres://unused/unused", port: 0, ...options.config },
  });
  const server = await startServer(config, {
    log,
    openFeed: async () => ({
      feed: Object.assign(feed, { end: () => undefined, restart: () => undefined }),
      lineage: [],
      ...(options.subscriptions === undefined ? {} : { subscriptions: options.subscriptions }),
      problems: () => options.problems ?? [],
      stop: async () => {
        await options.subscriptions?.stop();
        await feed.stop();
      },
    }),
  });
  return {
    server,
    url: server.url,
    port: server.port,
    logged,
    [Symbol.asyncDispose]: () => server.stop(1_000),
  };
}

/** Every protocol, codec and HTTP version that a client may choose. */
export const transports: readonly {
  readonly name: string;
  readonly create: (baseUrl: string) => Transport;
}[] = [
  { name: "gRPC over HTTP/2", create: (baseUrl) => createGrpcTransport({ baseUrl }) },
  { name: "gRPC+JSON over HTTP/2", create: (baseUrl) => createGrpcTransport({ baseUrl, useBinaryFormat: false }) },
  { name: "gRPC-Web over HTTP/1.1", create: (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }) },
  { name: "gRPC-Web over HTTP/2", create: (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "2" }) },
  {
    name: "Connect over HTTP/1.1",
    create: (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: true }),
  },
  {
    name: "Connect+JSON over HTTP/1.1",
    create: (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: false }),
  },
  {
    name: "Connect over HTTP/2",
    create: (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: true }),
  },
  {
    name: "Connect+JSON over HTTP/2 by GET",
    create: (baseUrl) =>
      createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: false, useHttpGet: true }),
  },
];
