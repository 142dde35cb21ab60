import type { McpHttpOptions } from "../mcp/http-handler.ts";
import type { RpcHandler } from "../rpc/handler.ts";

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
