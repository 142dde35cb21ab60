// Shared messages to handed-off streams, through the mux, with everything it does for flow control, fairness and bounds.
// `separate` makes each event of a burst a message of its own, as the engine does when events arrive one by one.
import { createServer, type ServerHttp2Stream } from "node:http2";
import { createServer as createTcpServer } from "node:net";
import { createMux, type Mux, muxedBody } from "../../../src/mux/mux.ts";
import type { BodySink } from "../../../src/rpc/hand-off/body-sink.ts";
import { childOptions, ready } from "../child.ts";
import { enveloped, eventsMessage, openedMessage } from "../message.ts";

const { burst, separate } = childOptions();
const bodies = new Set<BodySink>();
let version = 0;
let entering: Mux | undefined;

const server = createServer({ maxSessionMemory: 1_000, settings: { maxConcurrentStreams: 20_000 } });
server.on("sessionError", () => {});
server.on("session", (session) => entering?.bind(session));
server.on("stream", (stream: ServerHttp2Stream) => {
  stream.on("error", () => {});
  stream.resume();
  stream.respond({ ":status": 200, "content-type": "application/grpc+proto" });
  stream.write(enveloped(openedMessage()));
  const body = muxedBody(stream, { onReady() {}, onClosed: () => body !== undefined && bodies.delete(body) });
  if (body === undefined) throw new Error("The stream cannot be handed over.");
  bodies.add(body);
});
const tcp = createTcpServer({ noDelay: true }, (socket) => {
  entering = createMux(socket);
  server.emit("connection", entering);
  entering = undefined;
});
tcp.listen(0, "127.0.0.1", () => {
  const address = tcp.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  void ready(port, publish, burst);
});

function publish(count: number, stampNs: bigint): void {
  if (separate === true) {
    for (let i = 1; i <= count; i += 1) {
      writeAll(enveloped(eventsMessage(version + i, 1, stampNs)));
    }
  } else {
    writeAll(enveloped(eventsMessage(version + 1, count, stampNs)));
  }
  version += count;
}

function writeAll(message: Buffer): void {
  for (const body of bodies) body.write(message);
}
