import { type ContextKey, createContextKey } from "@connectrpc/connect";
import type { NodeRequest } from "./node-call.ts";

/** The address that a call comes from, which a proxy makes its own; `undefined` where nobody knows. */
export const peerKey: ContextKey<string | undefined> = createContextKey<string | undefined>(undefined, {
  description: "address that a call comes from",
});

/** Of a request of either of Node's servers. */
export function peerOf(request: NodeRequest): string | undefined {
  return request.socket.remoteAddress;
}
