import type { IncomingHttpHeaders } from "node:http";
import type { ServerHttp2Stream } from "node:http2";
import type { connectNodeAdapter } from "@connectrpc/connect-node";

/** A request listener for Node's servers of HTTP/1.1 and HTTP/2. */
export type RpcHandler = ReturnType<typeof connectNodeAdapter>;

/** A request of either of Node's servers. */
export type NodeRequest = Parameters<RpcHandler>[0];

/** A response of either of Node's servers. */
export type NodeResponse = Parameters<RpcHandler>[1];

/** What looks at HTTP/2 streams first; true when it answers this one. Somebody listens for their errors. */
export type StreamHandler = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => boolean;
