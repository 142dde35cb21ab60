import { createServer as createHttp1Server } from "node:http";
import { createServer as createHttp2Server, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import { createServer as createTcpServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer, TLSSocket, type TlsOptions } from "node:tls";
import { FeedError } from "../core/errors.ts";
import { createMux, type Mux, type MuxOptions } from "../mux/mux.ts";
import type { RpcHandler, StreamHandler } from "../rpc/handler.ts";
import { Admission } from "./admission.ts";
import { type HttpVersion, sniffHttpVersion } from "./sniff.ts";

/** What the one port needs. */
export interface ListenOptions {
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
  /** PEM. With it the port speaks TLS only. */
  readonly tls: { readonly cert: string; readonly key: string } | undefined;
  /** Streams of one HTTP/2 connection at once; more wait on the client's side. */
  readonly maxConcurrentStreams: number;
  readonly handler: RpcHandler;
  /** Sees HTTP/2 streams before `handler` gets them as requests. Default: nobody does. */
  readonly streamHandler?: StreamHandler;
  /**
   * Gives HTTP/2 connections a mux, so that the bodies of handed-off streams can be written beside the session. Default:
   * none.
   */
  readonly mux?: MuxOptions | undefined;
  /** How long a connection may take to show what it speaks, and an HTTP/1.1 request to send its head. Default 30,000. */
  readonly headersTimeoutMs?: number;
}

/** The open port. */
export interface Listener {
  readonly port: number;
  /** For people and clients on this machine: a wildcard address appears as loopback. */
  readonly url: string;
  /** Takes no more connections, lets calls end for so long, then cuts what is left. */
  close(graceMs: number): Promise<void>;
}

/** MB that one connection may hold for all its streams. Node's 10 suit web pages, not thousands of streams with batches. */
const SESSION_MEMORY_MB = 512;
/** Finds peers that went away without a word: a stream that only sleeps would otherwise stay for ever. */
const TCP_KEEPALIVE_MS = 30_000;

/**
 * One port for HTTP/1.1 and HTTP/2, by the first bytes of the connection, or by ALPN under TLS.
 *
 * @throws FeedError INVALID_REQUEST when the address cannot be had or the certificate is none, with the option to change
 */
export async function listen(options: ListenOptions): Promise<Listener> {
  const headersTimeoutMs = options.headersTimeoutMs ?? 30_000;
  const protocols = createProtocols(options, headersTimeoutMs);
  const sockets = new Set<Socket>();
  const accept = (socket: Socket): void => {
    if (socket instanceof TLSSocket && socket.alpnProtocol === "h2") {
      protocols.serve(socket, "http2");
    } else {
      sniffHttpVersion(socket, headersTimeoutMs, (version) => protocols.serve(socket, version));
    }
  };
  // HTTP/1.1 clients may end their side once the request is out, and still want the answer.
  const tcp = { allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: TCP_KEEPALIVE_MS };
  const server =
    options.tls === undefined
      ? createTcpServer(tcp, accept)
      : createSecureServer({ ...tcp, ...options.tls, handshakeTimeout: headersTimeoutMs }, accept);
  // Each as it arrives, under TLS before its handshake: `close` waits for those too, and must be able to cut them.
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  const port = await bind(server, options.host, options.port);
  // A connection that could not be accepted, for want of file descriptors: the next one may be.
  server.on("error", () => undefined);
  return {
    port,
    url: `${options.tls === undefined ? "http" : "https"}://${urlHost(options.host)}:${port}`,
    async close(graceMs) {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      protocols.close();
      const cut = setTimeout(() => {
        for (const socket of sockets) {
          socket.destroy();
        }
      }, graceMs);
      await closed;
      clearTimeout(cut);
    },
  };
}

function createSecureServer(options: TlsOptions, accept: (socket: Socket) => void): Server {
  try {
    return createTlsServer({ ...options, ALPNProtocols: ["h2", "http/1.1"] }, accept);
  } catch (cause) {
    throw new FeedError(
      "INVALID_REQUEST",
      `The certificate or its key cannot be used: ${cause instanceof Error ? cause.message : String(cause)}.`,
      "Name PEM files that belong together with --tls-cert and --tls-key.",
      { cause },
    );
  }
}

interface Protocols {
  serve(socket: Socket, version: HttpVersion): void;
  /** Ends idle connections now, and the others once their calls have ended. */
  close(): void;
}

/** Node's two servers, which never listen: they are handed connections. */
function createProtocols(options: ListenOptions, headersTimeoutMs: number): Protocols {
  const sessions = new Set<ServerHttp2Session>();
  const admission = new Admission();
  let closing = false;
  const http1 = createHttp1Server({
    headersTimeout: headersTimeoutMs,
    // The time for a request to arrive; how long its answer takes is another matter.
    requestTimeout: Math.max(60_000, headersTimeoutMs),
    keepAliveTimeout: 65_000,
    connectionsCheckingInterval: Math.min(30_000, headersTimeoutMs),
  });
  http1.on("request", (request, response) => {
    response.once("close", () => {
      if (closing) {
        setImmediate(() => http1.closeIdleConnections());
      }
    });
    admission.admit(() => {
      // Its client may have gone while it waited.
      if (!request.destroyed) {
        options.handler(request, response);
      }
    });
  });
  // Starts the watch over slow request heads, which a server otherwise starts as it listens.
  http1.emit("listening");
  const http2 = createHttp2Server({
    maxSessionMemory: SESSION_MEMORY_MB,
    settings: { maxConcurrentStreams: options.maxConcurrentStreams },
  });
  // Makes requests of the streams that it is given. A server does so with each of its own, and nobody could come before it.
  const requests = createHttp2Server(options.handler);
  http2.on("stream", (stream: ServerHttp2Stream, headers, flags, rawHeaders) => {
    // Whoever serves it learns of its end by `close`; an error that nobody listens for would end the process.
    stream.on("error", () => undefined);
    admission.admit(() => {
      if (!stream.destroyed && options.streamHandler?.(stream, headers) !== true) {
        requests.emit("stream", stream, headers, flags, rawHeaders);
      }
    });
  });
  let entering: Mux | undefined;
  http2.on("session", (session) => {
    entering?.bind(session);
    sessions.add(session);
    session.once("close", () => sessions.delete(session));
  });
  // A broken connection ends its own calls, through their signals; nobody else needs to know.
  http2.on("sessionError", () => undefined);
  return {
    serve(socket, version) {
      if (version === "http2") {
        // Unlike HTTP/1.1, a session never goes on after its client has ended.
        socket.allowHalfOpen = false;
        // The session is made, and announced, before `emit` returns.
        entering = options.mux && createMux(socket, options.mux);
        http2.emit("connection", entering ?? socket);
        entering = undefined;
      } else {
        http1.emit("connection", socket);
      }
    },
    close() {
      closing = true;
      http1.close();
      for (const session of sessions) {
        session.close();
      }
    },
  };
}

async function bind(server: Server, host: string, port: number): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => reject(bindError(error, host, port)));
    server.listen(port, host, resolve);
  });
  const address = server.address();
  return typeof address === "object" && address !== null ? address.port : port;
}

function bindError(error: NodeJS.ErrnoException, host: string, port: number): FeedError {
  const options = { cause: error };
  switch (error.code) {
    case "EADDRINUSE":
      return new FeedError(
        "INVALID_REQUEST",
        `Port ${port} on ${host} is taken by another process.`,
        "Stop that process, or choose another port with --port or PORT.",
        options,
      );
    case "EACCES":
      return new FeedError(
        "INVALID_REQUEST",
        `This user may not listen on port ${port}.`,
        "Choose a port above 1023 with --port or PORT.",
        options,
      );
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
      return new FeedError(
        "INVALID_REQUEST",
        `${host} is no address of this machine.`,
        "Correct --host: 127.0.0.1 is this machine alone, 0.0.0.0 every interface.",
        options,
      );
    default:
      return new FeedError(
        "INTERNAL",
        `Could not listen on ${host}:${port}: ${error.message}.`,
        "Check the address and the system's limits.",
        options,
      );
  }
}

function urlHost(host: string): string {
  if (host === "0.0.0.0" || host === "::") {
    return "127.0.0.1";
  }
  return host.includes(":") ? `[${host}]` : host;
}
