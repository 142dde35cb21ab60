import { type ContextKey, createContextKey, type Interceptor } from "@connectrpc/connect";
import type { NodeRequest } from "./node-call.ts";

/** The address that a call comes from, which a proxy makes its own; `undefined` where nobody knows. */
export const peerKey: ContextKey<string | undefined> = createContextKey<string | undefined>(undefined, {
  description: "address that a call comes from",
});

/** Of a request of either of Node's servers. */
export function peerOf(request: NodeRequest): string | undefined {
  return request.socket.remoteAddress;
}

/** Where callers within this process say for whom they call. Nobody else is believed. */
export const peerHeader = "millrace-peer";

/** Takes the peer of a call from `peerHeader`: for services that nobody reaches over a wire. */
export const peerFromHeader: Interceptor = (next) => (request) => {
  request.contextValues.set(peerKey, request.header.get(peerHeader) ?? undefined);
  return next(request);
};
