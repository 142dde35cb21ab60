import type { connectNodeAdapter } from "@connectrpc/connect-node";

/** A request listener for Node's servers of HTTP/1.1 and HTTP/2. */
export type RpcHandler = ReturnType<typeof connectNodeAdapter>;

/** A request of either of Node's servers. */
export type NodeRequest = Parameters<RpcHandler>[0];

/** A response of either of Node's servers. */
export type NodeResponse = Parameters<RpcHandler>[1];
