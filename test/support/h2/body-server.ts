import { createServer, type Http2ServerRequest, type Http2ServerResponse, type ServerHttp2Session } from "node:http2";
import { createServer as createTcpServer, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { createMux, type Mux, type MuxOptions, muxedBody } from "../../../src/mux/mux.ts";
import type { BodySink, BodySinkOwner } from "../../../src/rpc/hand-off/body-sink.ts";
import { until } from "../deadline.ts";
import { streamBody } from "./stream-body.ts";

/** A response whose body the test writes. */
export interface OpenBody {
  readonly path: string;
  readonly sink: BodySink;
  readonly request: Http2ServerRequest;
  readonly response: Http2ServerResponse;
  /** How often each was called. */
  readyCalls: number;
  closedCalls: number;
  /** Called with `onReady`. */
  whenReady: (() => void) | undefined;
}

export interface BodyServerOptions extends MuxOptions {
  /** Without, bodies go through Node's own streams: what the mux is compared with. Default true. */
  readonly mux?: boolean;
  /** Cuts everything between socket, mux and session into pieces of so many bytes. */
  readonly chop?: number;
  /** What the session writes reaches the mux a piece in each turn of the event loop. */
  readonly slow?: boolean;
  /** Answers instead of opening a body; says whether it did. */
  readonly answer?: (request: Http2ServerRequest, response: Http2ServerResponse) => boolean;
  /** Written through the response before the body is handed over. */
  readonly opening?: Buffer;
  readonly maxConcurrentStreams?: number;
  /** Field lines of each response. */
  readonly fields?: Readonly<Record<string, string>>;
}

/** An HTTP/2 server in this process, whose bodies are handed over as soon as their head is written. */
export interface BodyServer extends AsyncDisposable {
  readonly port: number;
  readonly bodies: readonly OpenBody[];
  readonly sessions: readonly ServerHttp2Session[];
  /** The body of the request for this path, once it has come. */
  opened(path: string): Promise<OpenBody>;
}

export async function startBodyServer(options: BodyServerOptions = {}): Promise<BodyServer> {
  const bodies: OpenBody[] = [];
  const sessions: ServerHttp2Session[] = [];
  const sockets = new Set<Socket>();
  let entering: Mux | undefined;
  const http2 = createServer({
    maxSessionMemory: 512,
    settings: { maxConcurrentStreams: options.maxConcurrentStreams ?? 2_000 },
  });
  http2.on("session", (session) => {
    entering?.bind(session);
    sessions.push(session);
  });
  http2.on("sessionError", () => {});
  http2.on("request", (request, response) => {
    request.on("error", () => {});
    response.on("error", () => {});
    if (options.answer?.(request, response) === true) return;
    const body = openBody(request, response, options);
    if (body !== undefined) bodies.push(body);
  });
  const tcp = createTcpServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    socket.on("error", () => {});
    const outer = options.chop === undefined ? socket : chopped(socket, options.chop);
    entering = options.mux === false ? undefined : createMux(outer, options);
    const inner = entering ?? outer;
    http2.emit("connection", options.chop === undefined ? inner : chopped(inner, options.chop, options.slow));
    entering = undefined;
  });
  await new Promise<void>((resolve) => tcp.listen(0, "127.0.0.1", resolve));
  const address = tcp.address();
  return {
    port: typeof address === "object" && address !== null ? address.port : 0,
    bodies,
    sessions,
    async opened(path) {
      let found: OpenBody | undefined;
      await until(`a request for ${path}`, async () => {
        found = bodies.find((body) => body.path === path);
        return found !== undefined;
      });
      if (found === undefined) throw new Error("unreachable");
      return found;
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise<void>((resolve) => tcp.close(() => resolve()));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

function openBody(
  request: Http2ServerRequest,
  response: Http2ServerResponse,
  options: BodyServerOptions,
): OpenBody | undefined {
  response.sendDate = false;
  response.writeHead(200, { ...options.fields });
  if (options.opening !== undefined) response.write(options.opening);
  const counts = { readyCalls: 0, closedCalls: 0, whenReady: undefined as (() => void) | undefined };
  const owner: BodySinkOwner = {
    onReady() {
      counts.readyCalls += 1;
      counts.whenReady?.();
    },
    onClosed() {
      counts.closedCalls += 1;
    },
  };
  const { stream } = response;
  const sink = options.mux === false ? streamBody(stream, owner) : muxedBody(stream, owner);
  if (sink === undefined) {
    // Reset before it was answered.
    response.end();
    return undefined;
  }
  return Object.assign(counts, { path: request.url, sink, request, response });
}

/** A duplex that passes `inner` on, and to it, in pieces of at most so many bytes. */
function chopped(inner: Duplex, size: number, slow = false): Duplex {
  const pieces = (chunk: Buffer) =>
    Array.from({ length: Math.ceil(chunk.length / size) }, (_, i) => chunk.subarray(i * size, (i + 1) * size));
  const outer = new Duplex({
    read: () => {
      inner.resume();
    },
    async write(chunk: Buffer, _encoding, done) {
      for (const piece of pieces(chunk)) {
        inner.write(piece);
        if (slow) await new Promise((resolve) => setImmediate(resolve));
      }
      if (inner.writableNeedDrain) inner.once("drain", done);
      else done();
    },
    final(done) {
      inner.end(() => done());
    },
    destroy(error, done) {
      inner.destroy();
      done(error);
    },
  });
  inner.on("data", (chunk: Buffer) => {
    for (const piece of pieces(chunk)) {
      if (!outer.push(piece)) inner.pause();
    }
  });
  inner.on("end", () => outer.push(null));
  inner.on("error", (error) => outer.destroy(error));
  inner.on("close", () => outer.destroy());
  return outer;
}
