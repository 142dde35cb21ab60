import type { Duplex } from "node:stream";

/** Whoever speaks HTTP/2 without TLS begins with exactly these bytes; no HTTP/1.1 request can. */
const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");

/** What a connection turned out to speak. */
export type HttpVersion = "http1" | "http2";

/**
 * Reads from a new connection until it is clear what it speaks, puts everything back, and calls `found` in the same turn.
 * A connection that says too little within `timeoutMs`, breaks or ends before that is destroyed.
 */
export function sniffHttpVersion(socket: Duplex, timeoutMs: number, found: (version: HttpVersion) => void): void {
  const seen: Buffer[] = [];
  const giveUp = (): void => {
    stop();
    socket.destroy();
  };
  const timer = setTimeout(giveUp, timeoutMs);
  const look = (): void => {
    for (let chunk: unknown = socket.read(); chunk !== null; chunk = socket.read()) {
      if (chunk instanceof Buffer) {
        seen.push(chunk);
      }
    }
    const bytes = Buffer.concat(seen);
    const version = httpVersionOf(bytes);
    if (version !== undefined) {
      stop();
      socket.unshift(bytes);
      found(version);
    }
  };
  const stop = (): void => {
    clearTimeout(timer);
    socket.off("readable", look).off("error", giveUp).off("end", giveUp).off("close", stop);
  };
  socket.on("readable", look).on("error", giveUp).on("end", giveUp).on("close", stop);
}

/** `undefined` while both are possible. */
function httpVersionOf(bytes: Buffer): HttpVersion | undefined {
  const length = Math.min(bytes.length, preface.length);
  if (bytes.compare(preface, 0, length, 0, length) !== 0) {
    return "http1";
  }
  return length === preface.length ? "http2" : undefined;
}
