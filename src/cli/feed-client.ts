import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { FeedService } from "../../gen/millrace/v1/feed_service_pb.js";
import { usageFailure } from "./failure.ts";
import type { Terminal } from "./terminal.ts";

/** Where `millrace start` listens unless told otherwise. */
export const defaultServerUrl = "http://127.0.0.1:7400";

/** A connection of its own to a Millrace server. */
export interface FeedConnection {
  readonly client: Client<typeof FeedService>;
  /** Ends every call on it. */
  close(): void;
}

/** Opens gRPC over HTTP/2; the first call connects. */
export function connectFeed(url: string): FeedConnection {
  const { transport, close } = connectServer(url);
  return { client: createClient(FeedService, transport), close };
}

/**
 * The same, for every service of it.
 *
 * @param pingIntervalMs - a connection that has been still for so long is asked for a sign of life before it is used again.
 *   Default: never, which is for those who hold a stream with checkpoints, or end soon
 */
export function connectServer(url: string, pingIntervalMs?: number): { readonly transport: Transport; close(): void } {
  const sessionManager = new Http2SessionManager(url, pingIntervalMs === undefined ? {} : { pingIntervalMs });
  const transport = createGrpcTransport({ baseUrl: url, sessionManager });
  return { transport, close: () => sessionManager.abort() };
}

/** `--url`, else MILLRACE_URL, else the default. */
export function serverUrl(option: string | undefined, terminal: Terminal): string {
  const text = option ?? (terminal.environment.MILLRACE_URL || defaultServerUrl);
  const url = URL.parse(text);
  if (url === null || !["http:", "https:"].includes(url.protocol)) {
    throw usageFailure(`\`${text}\` is not the URL of a server.`, `Give it like ${defaultServerUrl}, or with https.`);
  }
  return text.replace(/\/+$/, "");
}
