import type { McpHttpOptions } from "../mcp/http-handler.ts";
import type { RpcHandler } from "../rpc/handler.ts";
import type { Config } from "./config.ts";
import { isLoopback } from "./loopback.ts";

/** As `McpHttpOptions`, of which the transport may not be there yet. */
export interface McpRouteOptions extends Omit<McpHttpOptions, "transport"> {
  readonly transport: () => McpHttpOptions["transport"];
}

/** `/mcp`. The first request loads what serves it: servers that no agent asks never do. */
export function createMcpRoute({ transport, ...options }: McpRouteOptions): RpcHandler {
  let loading: Promise<RpcHandler> | undefined;
  return (request, response) => {
    loading ??= import("../mcp/http-handler.ts").then(({ createMcpHttpHandler }) =>
      createMcpHttpHandler({ ...options, transport: transport() }),
    );
    loading.then(
      (serve) => serve(request, response),
      (error: unknown) => {
        loading = undefined;
        options.log.error({ err: error }, "the Model Context Protocol could not be loaded");
        response.statusCode = 500;
        response.end();
      },
    );
  };
}

/**
 * The names under which `/mcp` is served. A server that only this machine reaches goes by the machine's own names, and by those of
 * origins that may call: a proxy passes its own on.
 */
export function hostsOf({ host, corsOrigins }: Config): (hostname: string) => boolean {
  if (!isLoopback(host) || corsOrigins.includes("*")) return () => true;
  const allowed = new Set(corsOrigins.map((origin) => new URL(origin).hostname));
  return (hostname) => isLoopback(hostname) || allowed.has(hostname);
}
