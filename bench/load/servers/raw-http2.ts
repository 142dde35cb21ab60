// The floor of what Node's own HTTP/2 can do: one shared buffer, written to every stream. `perWrite` events go in one write.
import { createServer, type ServerHttp2Stream } from "node:http2";
import { childOptions, ready } from "../child.ts";
import { enveloped, eventsMessage, openedMessage } from "../message.ts";

const { burst } = childOptions();
const streams = new Set<ServerHttp2Stream>();
let version = 0;
const server = createServer({ maxSessionMemory: 1_000, settings: { maxConcurrentStreams: 20_000 } });
server.on("sessionError", () => {});
server.on("stream", (stream: ServerHttp2Stream) => {
  stream.on("error", () => {});
  stream.respond({ ":status": 200, "content-type": "application/grpc+proto" });
  stream.write(enveloped(openedMessage()));
  stream.resume();
  streams.add(stream);
  stream.once("close", () => streams.delete(stream));
});
server.listen(0, "127.0.0.1", () => {
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  void ready(port, publish, burst);
});

function publish(count: number, stampNs: bigint): void {
  const frame = enveloped(eventsMessage(version + 1, count, stampNs));
  version += count;
  for (const stream of streams) stream.write(frame);
}
