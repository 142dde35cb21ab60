import type { ConnectError } from "@connectrpc/connect";
import { createEndStreamSerialization, endStreamFlag } from "@connectrpc/connect/protocol-connect";
import { grpcStatusOk, headerGrpcMessage, headerGrpcStatus, setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { trailerFlag, trailerSerialize } from "@connectrpc/connect/protocol-grpc-web";
import { plainGrpcMessage } from "../grpc-message.ts";

/** As Connect names the protocols that it serves. */
export type CallProtocol = "grpc" | "grpc-web" | "connect";

/** A name and a value, as often as the name has values. */
export type Trailers = readonly (readonly [name: string, value: string])[];

/** What ends a call, beside the end of its body. */
export interface CallEnd {
  /** A last message with its flags, not compressed and without its prefix. */
  readonly last: { readonly flags: number; readonly message: Uint8Array } | undefined;
  /** HTTP trailers. */
  readonly trailers: Trailers | undefined;
}

/** As `Headers` gives the names. */
const grpcMessage = headerGrpcMessage.toLowerCase();
const endStream = createEndStreamSerialization(undefined);

/** The protocol of a call that Connect has let in. */
export function callProtocol(name: string): CallProtocol {
  return name === "grpc" || name === "grpc-web" ? name : "connect";
}

/**
 * The end of a stream as Connect writes it.
 *
 * @param metadata - what the service adds to it
 */
export function callEnd(protocol: CallProtocol, error: ConnectError | undefined, metadata: Trailers): CallEnd {
  const headers = new Headers(metadata.map(([name, value]): [string, string] => [name, value]));
  switch (protocol) {
    case "connect":
      return {
        last: {
          flags: endStreamFlag,
          message: endStream.serialize(error === undefined ? { metadata: headers } : { metadata: headers, error }),
        },
        trailers: undefined,
      };
    case "grpc-web": {
      const status = grpcStatus(headers, error);
      return { last: { flags: trailerFlag, message: trailerSerialize(status) }, trailers: undefined };
    }
    case "grpc":
      return { last: undefined, trailers: [...grpcStatus(headers, error)].map(plainMessage) };
  }
}

function grpcStatus(headers: Headers, error: ConnectError | undefined): Headers {
  headers.set(headerGrpcStatus, grpcStatusOk);
  return setTrailerStatus(headers, error);
}

function plainMessage([name, value]: [string, string]): readonly [string, string] {
  return name === grpcMessage ? [name, plainGrpcMessage(value)] : [name, value];
}
