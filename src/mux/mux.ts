import type { ServerHttp2Session, ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import type { BodySink, BodySinkOwner } from "../rpc/hand-off/body-sink.ts";
import { type BodyHost, MuxedBody } from "./body.ts";
import { giveBack, takeBuffer } from "./buffers.ts";
import { windowUpdate } from "./frame.ts";
import { Inbound } from "./inbound.ts";
import { codeOfDestroy, goaway } from "./last-word.ts";
import { Ledger } from "./ledger.ts";
import { Outbound } from "./outbound.ts";
import { Outflow, type OutflowLimits } from "./outflow.ts";
import { inThisTurn } from "./turn.ts";
import type { StreamWindow } from "./window.ts";

/** Bounds of what waits in memory, and of patience. */
export interface MuxOptions extends Partial<OutflowLimits> {
  /**
   * How long a connection may stand still because streams leave half of its window to others, before they need not any more.
   * Default 30,000: above the interval at which every stream sends something.
   */
  readonly relentMs?: number;
}

/** A connection: a socket, or something before it that nothing is known of. */
export type MuxSocket = Duplex & Partial<Pick<Socket, "setNoDelay" | "remoteAddress" | "remotePort" | "remoteFamily">>;

const defaults: OutflowLimits = {
  streamPendingMaxBytes: 262_144,
  connectionPendingMaxBytes: 16_777_216,
  streamPendingMinBytes: 16_384,
};
/** Batches of one connection in one turn; the other connections come next. */
const BATCHES_PER_TURN = 4;
/** The library sends in immediates of its own. After so many turns, what it has not used of a credit it does not need. */
const TURNS_TO_USE_CREDIT = 3;
const RELENT_MS = 30_000;

/** What the library is made to send, and nobody gets. */
const placeholder = Buffer.alloc(262_144);

const muxes = new WeakMap<object, Mux>();

/**
 * Stands between a connection and Node's HTTP/2 session, and lets the bodies of chosen streams be written beside the
 * session (`muxedBody`). Everything else is the session's, and passes through frame by frame: what it is asked, answers,
 * refuses and ends is as without the mux.
 *
 * Why: a session spends about 7 microseconds on a small DATA frame, most of it on its way into C++ and back, for each
 * stream; here it is a copy into the batch that goes to the socket, one batch per connection and turn of the event loop.
 */
export class Mux extends Duplex implements BodyHost {
  readonly outflow: Outflow;
  readonly #socket: MuxSocket;
  readonly #limits: OutflowLimits;
  readonly #relentMs: number;
  readonly #ledger: Ledger;
  readonly #inbound: Inbound;
  readonly #outbound: Outbound;
  #scheduled = false;
  #turns = 0;
  #updatesSeen = 0;
  /** The window has grown, and the library has not had its part. */
  #creditDue = false;
  /** Until the socket takes more. */
  #written: ((error?: Error | null) => void) | undefined;
  /** The batch that the socket has not sent yet. */
  #batch: Buffer | undefined;
  /** Batches that were sent before `write` returned; their callbacks come later. */
  #sentAtOnce = 0;
  /** The stream that carries placeholder bytes now. */
  #carrier: MuxedBody | undefined;
  /** The turn in which the library was last credited. */
  #credited = -TURNS_TO_USE_CREDIT;
  #ownShare = false;
  /** What the session says last, once it is destroyed. */
  #destroyCode: number | undefined;
  readonly #owed = new Map<StreamWindow, number>();
  #relentTimer: NodeJS.Timeout | undefined;
  #relentAfter = 0;
  #relent = false;
  #moves = 0;

  constructor(socket: MuxSocket, options: MuxOptions) {
    super({ allowHalfOpen: true });
    this.#socket = socket;
    const { relentMs = RELENT_MS, ...limits } = options;
    this.#limits = { ...defaults, ...limits };
    this.#relentMs = relentMs;
    this.outflow = new Outflow(this.#limits);
    this.#ledger = new Ledger(this.outflow, () => this.schedule());
    this.#inbound = new Inbound(this.#ledger);
    this.#outbound = new Outbound(this.#ledger);
    socket.setNoDelay?.(true);
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("end", () => this.push(null));
    socket.on("error", (error) => this.destroy(error));
    socket.on("close", () => this.destroy());
    socket.on("drain", () => this.#drained());
  }

  /** Has `muxedBody` find this mux for the session's streams, and the session say who its peer is. */
  bind(session: ServerHttp2Session): void {
    muxes.set(session, this);
    const { destroy } = session;
    session.destroy = (error?: Error, code?: number) => {
      this.#destroyCode ??= codeOfDestroy(error, code);
      destroy.call(session, error, code);
    };
    const { remoteAddress, remotePort, remoteFamily } = this.#socket;
    // A session asks its socket, which for a stream that is no socket knows nobody.
    Object.assign(session.socket, {
      encrypted: "encrypted" in this.#socket && this.#socket.encrypted === true,
      _peername: { address: remoteAddress, port: remotePort, family: remoteFamily },
    });
  }

  /** Takes the body of `stream` over. `undefined` where that is impossible: then it is written as always. */
  handOver(
    stream: ServerHttp2Stream,
    owner: BodySinkOwner,
    maxBytes = this.#limits.streamPendingMaxBytes,
  ): BodySink | undefined {
    const window = stream.id === undefined ? undefined : this.#ledger.streams.get(stream.id);
    const gone = stream.destroyed || stream.closed || stream.writableEnded || this.destroyed || this.#ledger.dead;
    if (window === undefined || gone || !stream.headersSent || this.#ledger.bodies.has(window.id)) {
      return undefined;
    }
    const body = new MuxedBody(this, window, stream, owner, maxBytes);
    this.#ledger.bodies.set(window.id, body);
    this.outflow.bodies += 1;
    body.openWhenClear();
    return body;
  }

  schedule(): void {
    if (!this.#scheduled) {
      this.#scheduled = true;
      inThisTurn(this);
    }
  }

  detach(body: MuxedBody): void {
    this.#ledger.bodies.delete(body.window.id);
    this.outflow.bodies -= 1;
    this.#owed.delete(body.window);
    if (this.#carrier === body) {
      this.#carrier = undefined;
    }
    this.schedule();
  }

  ensureLibraryWindow(window: StreamWindow, bytes: number): void {
    if (window.library < bytes) {
      this.#owed.set(window, bytes);
      this.schedule();
    }
  }

  /** Sends what is ready, then sees to the library's part of the window. */
  turn(): void {
    this.#scheduled = false;
    if (this.destroyed) {
      return;
    }
    this.#turns += 1;
    const { connection } = this.#ledger;
    this.#creditDue ||= connection.updates !== this.#updatesSeen;
    this.#updatesSeen = connection.updates;
    // Where the window is short, whoever comes first takes everything. The library may be in want without our knowing.
    if (this.#creditDue && (connection.hungry || connection.updates % 4 === 0)) {
      this.#credit();
    }
    this.#flush();
    this.outflow.announce();
    // Only what is new is shared out while streams wait, or what is taken back would go to and fro.
    if (this.#creditDue || this.#owed.size > 0 || !this.outflow.waiting) {
      this.#credit();
    }
    this.#reclaim();
    this.#watchRestraint();
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, written: (error?: Error | null) => void): void {
    this.#send([chunk], written);
  }

  override _writev(chunks: { readonly chunk: Buffer }[], written: (error?: Error | null) => void): void {
    this.#send(
      chunks.map(({ chunk }) => chunk),
      written,
    );
  }

  override _final(ended: (error?: Error | null) => void): void {
    const code = this.#destroyCode;
    const said = this.#ledger.goawayCode;
    if (code !== undefined && (said === undefined || (said === 0 && code !== 0)) && this.#outbound.open) {
      // The library had a write under way as it was destroyed, such as the reset of a stream, and could not say this itself.
      this.#ledger.abandoned();
      this.#socket.write(goaway(this.#ledger.newest, code));
    }
    this.#socket.end(() => ended());
  }

  override _destroy(error: Error | null, destroyed: (error: Error | null) => void): void {
    clearTimeout(this.#relentTimer);
    this.#ledger.abandoned();
    this.#socket.destroy();
    destroyed(error);
  }

  #receive(chunk: Buffer): void {
    const out: Uint8Array[] = [];
    this.#inbound.push(chunk, out);
    const [first] = out;
    // In one piece, as it came: the library counts what it has to answer at once, and knows a flood by that.
    if (first !== undefined && !this.push(out.length === 1 ? first : Buffer.concat(out))) {
      this.#socket.pause();
    }
    if (this.#creditDue || this.#owed.size > 0) {
      this.schedule();
    }
  }

  #send(chunks: readonly Buffer[], written: (error?: Error | null) => void): void {
    const out: Uint8Array[] = [];
    for (const chunk of chunks) {
      this.#outbound.push(chunk, out);
    }
    const socket = this.#socket;
    if (out.length > 1) {
      socket.cork();
    }
    for (const bytes of out) {
      socket.write(bytes);
    }
    if (out.length > 1) {
      socket.uncork();
    }
    if (socket.writableNeedDrain) {
      this.#written = written;
    } else {
      written();
    }
  }

  #drained(): void {
    const written = this.#written;
    this.#written = undefined;
    this.schedule();
    written?.();
  }

  #flush(): void {
    const socket = this.#socket;
    const { connection } = this.#ledger;
    for (let batches = 0; batches < BATCHES_PER_TURN; batches += 1) {
      const blocked = this.#batch !== undefined || socket.writableNeedDrain || socket.writableEnded;
      if (blocked || !this.outflow.waiting || connection.ours <= 0 || !this.#outbound.open) {
        return;
      }
      const buffer = takeBuffer(this.outflow.batchBytes);
      const bytes = this.outflow.lay(buffer, connection, this.#relent);
      if (bytes === 0) {
        this.outflow.batchDone = this.outflow.batchBegun;
        giveBack(buffer);
        return;
      }
      this.#moves += 1;
      this.#relent = false;
      socket.write(buffer.subarray(0, bytes), this.#onSent);
      if (socket.writableLength > 0) {
        this.#batch = buffer;
        return;
      }
      this.#sentAtOnce += 1;
      this.outflow.batchDone = this.outflow.batchBegun;
      giveBack(buffer);
    }
    this.schedule();
  }

  readonly #onSent = (): void => {
    if (this.#sentAtOnce > 0) {
      this.#sentAtOnce -= 1;
      return;
    }
    if (this.#batch !== undefined) {
      giveBack(this.#batch);
      this.#batch = undefined;
      this.outflow.batchDone = this.outflow.batchBegun;
      this.schedule();
    }
  };

  /** Lets the library know of its part of the windows. */
  #credit(): void {
    if (this.#ledger.dead) {
      return;
    }
    if (!this.#inbound.open) {
      // Nothing can be put into the middle of a frame. The rest of it brings this here again.
      this.#creditDue = true;
      return;
    }
    for (const [window, bytes] of this.#owed) {
      const increment = bytes - window.library;
      if (increment > 0) {
        window.library = bytes;
        this.push(windowUpdate(window.id, increment));
      }
    }
    this.#owed.clear();
    if (this.outflow.waiting && !this.#creditDue) {
      return;
    }
    this.#creditDue = false;
    const others = this.outflow.bodies === 0 ? "none" : this.outflow.waiting ? "waiting" : "idle";
    const increment = this.#ledger.connection.credit(others);
    if (increment > 0) {
      this.#credited = this.#turns;
      this.push(windowUpdate(0, increment));
    }
  }

  /** Takes window back from the library where handed-off streams have none left; and the first time before they need it. */
  #reclaim(): void {
    const { connection, bodies } = this.#ledger;
    const wanted = this.outflow.bodies > 0 && (this.outflow.waiting || !this.#ownShare);
    if (!wanted || connection.ours > 0 || connection.library === 0 || this.#carrier !== undefined) {
      return;
    }
    if (this.#turns < this.#credited + TURNS_TO_USE_CREDIT) {
      this.schedule();
      return;
    }
    for (const body of bodies.values()) {
      if (body.canCarry) {
        const bytes = connection.returnable;
        connection.hungry = false;
        this.#ownShare = true;
        this.#carrier = body;
        body.carry(placeholder.subarray(0, bytes), () => {
          this.#carrier = undefined;
        });
        return;
      }
    }
  }

  #watchRestraint(): void {
    if (!this.outflow.restrained || this.#relentTimer !== undefined) {
      return;
    }
    this.#relentAfter = this.#moves;
    this.#relentTimer = setTimeout(() => {
      this.#relentTimer = undefined;
      this.#relent = this.outflow.restrained && this.#moves === this.#relentAfter;
      this.schedule();
    }, this.#relentMs).unref();
  }
}

/**
 * Puts a mux before `socket`. Hand it to an HTTP/2 server as its connection, and the server's session to `bind`.
 */
export function createMux(socket: MuxSocket, options: MuxOptions = {}): Mux {
  return new Mux(socket, options);
}

/**
 * Lets the body of a response be written beside the HTTP/2 session, from now on. What was written to the stream before is
 * sent first. The response's head must be on its way; for trailers, it was sent with `waitForTrailers`, as
 * `Http2ServerResponse` does. Nothing else may write to the stream or end it afterwards; `close` and `destroy` may be
 * called as always.
 *
 * @param maxBytes - from which on the body is not ready; default `streamPendingMaxBytes`
 * @returns `undefined` when the stream's connection has no mux, or the stream is over, has no head yet or is taken already
 */
export function muxedBody(stream: ServerHttp2Stream, owner: BodySinkOwner, maxBytes?: number): BodySink | undefined {
  return stream.session === undefined ? undefined : muxes.get(stream.session)?.handOver(stream, owner, maxBytes);
}
