// What writing DATA frames below Node's HTTP/2 can reach: all streams of a connection in one buffer, in one write. No flow
// control, no pacing, nothing that a server needs; `reuse` takes the buffers from a ring instead of making each anew.
import { createServer, type ServerHttp2Stream } from "node:http2";
import { createServer as createTcpServer, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { childOptions, ready } from "../child.ts";
import { enveloped, eventsMessage, openedMessage } from "../message.ts";

/** A socket, and the streams on it that take part. */
interface Connection {
  readonly socket: Socket;
  readonly ids: number[];
}

const { burst, reuse } = childOptions();
let latest: Connection | undefined;
const connections = new Set<Connection>();
const free: Buffer[] = [];
const ringBytes = 4 * 1024 * 1024;
const opened = enveloped(openedMessage());
let version = 0;

const server = createServer({ settings: { maxConcurrentStreams: 20_000 } });
server.on("sessionError", () => {});
server.on("session", (session) => {
  if (latest === undefined) return;
  const { ids, socket } = latest;
  session.on("stream", (stream: ServerHttp2Stream) => {
    stream.on("error", () => {});
    stream.resume();
    stream.respond({ ":status": 200, "content-type": "application/grpc+proto" });
    // What the sink takes for the stream's beginning comes once the stream takes part, behind its head.
    stream.write(Buffer.alloc(5), () => {
      if (stream.id === undefined) return;
      ids.push(stream.id);
      socket.write(dataFrame(stream.id, opened));
    });
  });
});
const tcp = createTcpServer({ noDelay: true }, (socket) => {
  const connection = { socket, ids: [] };
  latest = connection;
  connections.add(connection);
  socket.once("close", () => connections.delete(connection));
  server.emit("connection", passThrough(socket));
});
tcp.listen(0, "127.0.0.1", () => {
  const address = tcp.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  void ready(port, publish, burst);
});

/** Node aborts when somebody else's write to a socket ends that its HTTP/2 session holds. */
function passThrough(socket: Socket): Duplex {
  const duplex = new Duplex({
    read: () => socket.resume(),
    write: (chunk: Buffer, _encoding, done) => void socket.write(chunk, done),
    destroy: (error, done) => {
      socket.destroy();
      done(error);
    },
  });
  socket.on("data", (chunk) => duplex.push(chunk) || socket.pause());
  socket.on("error", () => duplex.destroy());
  socket.once("close", () => duplex.destroy());
  return duplex;
}

function publish(count: number, stampNs: bigint): void {
  const messages = Array.from({ length: count }, (_, i) => enveloped(eventsMessage(version + 1 + i, 1, stampNs)));
  version += count;
  const body = Buffer.concat(messages);
  for (const { socket, ids } of connections) writeAll(socket, ids, body);
}

function dataFrame(id: number, body: Buffer): Buffer {
  const frame = Buffer.alloc(9 + body.length);
  frame.writeUIntBE(body.length, 0, 3);
  frame.writeUInt32BE(id, 5);
  frame.set(body, 9);
  return frame;
}

function writeAll(socket: Socket, ids: readonly number[], body: Buffer): void {
  const bytes = ids.length * (9 + body.length);
  const whole = reuse === true ? (free.pop() ?? Buffer.allocUnsafeSlow(ringBytes)) : Buffer.allocUnsafeSlow(bytes);
  let at = 0;
  for (const id of ids) {
    whole.writeUIntBE(body.length, at, 3);
    whole[at + 3] = 0;
    whole[at + 4] = 0;
    whole.writeUInt32BE(id, at + 5);
    whole.set(body, at + 9);
    at += 9 + body.length;
  }
  const out = whole.subarray(0, bytes);
  if (reuse === true) socket.write(out, () => free.push(whole));
  else socket.write(out);
}
