import { connect } from "node:http2";
import { create, toBinary } from "@bufbuild/protobuf";
import { type SubscribeRequest, SubscribeRequestSchema } from "../gen/millrace/v1/feed_service_pb.js";

export interface WireStream {
  /** Resolves when the call has ended; rejects with the grpc-status when that is neither OK nor our own cancel. */
  readonly ended: Promise<void>;
  cancel(): void;
}

const windowBytes = 16 * 1024 * 1024;

/** A bare gRPC call over cleartext HTTP/2: hands over each message's bytes and does nothing else. */
export function subscribe(
  port: number,
  request: Parameters<typeof create<typeof SubscribeRequestSchema>>[1],
  onMessage: (message: Uint8Array) => void,
): WireStream {
  const session = connect(`http://127.0.0.1:${port}`, { settings: { initialWindowSize: windowBytes } });
  session.on("connect", () => session.setLocalWindowSize(windowBytes));
  const stream = session.request({
    ":method": "POST",
    ":path": "/millrace.v1.FeedService/Subscribe",
    "content-type": "application/grpc+proto",
    te: "trailers",
  });
  const message: SubscribeRequest = create(SubscribeRequestSchema, request);
  const body = toBinary(SubscribeRequestSchema, message);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  stream.end(Buffer.concat([head, body]));
  stream.on("data", createUnframer(onMessage));
  let cancelled = false;
  const ended = new Promise<void>((resolve, reject) => {
    let status: unknown;
    const note = (headers: Readonly<Record<string, unknown>>) => {
      status = headers["grpc-status"] === undefined ? status : `${headers["grpc-status"]} ${headers["grpc-message"]}`;
    };
    stream.on("response", note);
    stream.on("trailers", note);
    const finish = (error?: Error) => {
      session.close();
      if (cancelled || String(status).startsWith("0 ")) resolve();
      else reject(error ?? new Error(`the call ended with grpc-status ${String(status)}`));
    };
    stream.on("error", finish);
    session.on("error", finish);
    stream.on("close", () => finish());
  });
  return {
    ended,
    cancel: () => {
      cancelled = true;
      stream.close();
      session.destroy();
    },
  };
}

/** Cuts the byte stream into messages at their 5-byte envelopes; copies only what straddles chunks. */
function createUnframer(onMessage: (message: Uint8Array) => void): (chunk: Buffer) => void {
  let pieces: Buffer[] = [];
  let have = 0;
  let need = 5;
  return (chunk) => {
    let rest = chunk;
    if (have > 0) {
      pieces.push(chunk);
      have += chunk.length;
      if (have >= 5 && need === 5) need = 5 + Buffer.concat(pieces, have).readUInt32BE(1);
      if (have < need) return;
      rest = Buffer.concat(pieces, have);
      pieces = [];
      have = 0;
    }
    let at = 0;
    need = 5;
    while (rest.length - at >= 5) {
      const end = at + 5 + rest.readUInt32BE(at + 1);
      if (end > rest.length) {
        need = end - at;
        break;
      }
      onMessage(rest.subarray(at + 5, end));
      at = end;
    }
    if (at < rest.length) {
      pieces = [rest.subarray(at)];
      have = rest.length - at;
    }
  };
}
