import { once } from "node:events";
import { connect, type Socket } from "node:net";
import {
  type Frame,
  FrameReader,
  flags,
  ping,
  preface,
  request,
  settings,
  settingsAck,
  type,
  windowUpdate,
} from "./frames.ts";
import { WireJudge } from "./wire-judge.ts";

/** How a client grants window. */
export interface FrameClientOptions {
  /** SETTINGS_INITIAL_WINDOW_SIZE. Default: not sent, so 65,535. */
  readonly streamWindow?: number;
  /** Added to the connection's 65,535 at once. Default 0. */
  readonly connectionWindow?: number;
  /**
   * What is acknowledged. `all`: every DATA frame at once, for stream and connection; `connection`: for the connection
   * only; `none`. Default `none`.
   */
  readonly acknowledge?: "all" | "connection" | "none";
}

/** What has come for one stream. */
export interface Received {
  headers: Buffer[];
  bytes: Buffer[];
  length: number;
  ended: boolean;
  reset: number | undefined;
}

/** An HTTP/2 client that sends what it is told, frame by frame, and judges every frame that it gets. */
export class FrameClient implements AsyncDisposable {
  readonly frames: Frame[] = [];
  readonly streams = new Map<number, Received>();
  readonly judge: WireJudge;
  /** Streams whose DATA is not acknowledged, whatever the options say. */
  readonly mute = new Set<number>();
  goaway: { readonly lastId: number; readonly code: number } | undefined;
  closed = false;
  readonly #socket: Socket;
  readonly #acknowledge: "all" | "connection" | "none";
  readonly #wakeUps = new Set<() => void>();
  #pings = 0;

  constructor(socket: Socket, options: FrameClientOptions) {
    this.#socket = socket;
    this.#acknowledge = options.acknowledge ?? "none";
    this.judge = new WireJudge();
    const reader = new FrameReader();
    socket.on("data", (chunk: Buffer) => {
      for (const frame of reader.push(chunk)) this.#take(frame);
      this.#wake();
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      this.closed = true;
      this.#wake();
    });
  }

  /** Sends frames, in one write. */
  send(...parts: readonly Buffer[]): void {
    for (const part of parts) this.judge.sent(part);
    this.#socket.write(Buffer.concat(parts));
  }

  /** Bytes that are no whole frames, unseen by the judge. */
  sendRaw(bytes: Buffer): void {
    this.#socket.write(bytes);
  }

  /** Frames, in pieces that are cut anywhere. */
  sendPieces(frames: Buffer, nextSize: () => number): void {
    this.judge.sent(frames);
    for (let at = 0; at < frames.length; ) {
      const end = Math.min(frames.length, at + nextSize());
      this.#socket.write(frames.subarray(at, end));
      at = end;
    }
  }

  request(id: number, path: string, options?: Parameters<typeof request>[2]): void {
    this.send(request(id, path, options));
  }

  /** What has come for a stream so far. */
  stream(id: number): Received {
    const before = this.streams.get(id);
    if (before !== undefined) return before;
    const fresh: Received = { headers: [], bytes: [], length: 0, ended: false, reset: undefined };
    this.streams.set(id, fresh);
    return fresh;
  }

  body(id: number): Buffer {
    return Buffer.concat(this.stream(id).bytes);
  }

  /** Resolves once it holds; whoever waits for what never happens runs into the test's own limit. */
  async until(holds: () => boolean): Promise<void> {
    while (!holds()) {
      if (this.closed) throw new Error("the connection was closed before that");
      await new Promise<void>((resolve) => this.#wakeUps.add(resolve));
    }
  }

  async untilClosed(): Promise<void> {
    while (!this.closed) await new Promise<void>((resolve) => this.#wakeUps.add(resolve));
  }

  /** Resolves once the server has handled everything that was sent before, and all that it sent meanwhile is here. */
  async settled(): Promise<void> {
    // The mux answers in the next turn, what it asks of the library in the one after that.
    for (let round = 0; round < 4; round += 1) {
      if (!(await this.survives(Buffer.alloc(0)))) throw new Error("the connection was closed before that");
    }
  }

  /** Sends frames, and a ping in the same write. Whether it is answered before the connection is closed. */
  async survives(frames: Buffer): Promise<boolean> {
    this.#pings += 1;
    const text = `p${this.#pings}`.padEnd(8);
    this.send(frames, ping(text));
    const answered = (frame: Frame) =>
      frame.type === type.ping && (frame.flags & flags.ack) !== 0 && frame.payload.toString("latin1") === text;
    while (!this.closed) {
      if (this.frames.some(answered)) return true;
      await new Promise<void>((resolve) => this.#wakeUps.add(resolve));
    }
    return false;
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.closed) {
      const closed = once(this.#socket, "close");
      this.#socket.destroy();
      await closed;
    }
  }

  #take(frame: Frame): void {
    this.frames.push(frame);
    this.judge.received(frame);
    const stream = frame.id === 0 ? undefined : this.stream(frame.id);
    switch (frame.type) {
      case type.data:
        stream?.bytes.push(frame.payload);
        if (stream !== undefined) {
          stream.length += frame.payload.length;
          stream.ended ||= (frame.flags & flags.endStream) !== 0;
        }
        this.#grant(frame.id, frame.payload.length);
        break;
      case type.headers:
      case type.continuation:
        stream?.headers.push(frame.payload);
        if (stream !== undefined && frame.type === type.headers) stream.ended ||= (frame.flags & flags.endStream) !== 0;
        break;
      case type.rstStream:
        if (stream !== undefined) stream.reset = frame.payload.readUInt32BE(0);
        break;
      case type.settings:
        if ((frame.flags & flags.ack) === 0) this.send(settingsAck());
        break;
      case type.goaway:
        this.goaway = { lastId: frame.payload.readUInt32BE(0), code: frame.payload.readUInt32BE(4) };
        break;
      default:
    }
  }

  #grant(id: number, length: number): void {
    if (length === 0 || this.#acknowledge === "none" || this.mute.has(id)) return;
    const updates = [windowUpdate(0, length)];
    if (this.#acknowledge === "all" && !this.stream(id).ended) updates.push(windowUpdate(id, length));
    this.send(...updates);
  }

  #wake(): void {
    const waiting = [...this.#wakeUps];
    this.#wakeUps.clear();
    for (const wake of waiting) wake();
  }
}

/** Connects, with preface and settings sent. */
export async function connectFrames(port: number, options: FrameClientOptions = {}): Promise<FrameClient> {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  await once(socket, "connect");
  const client = new FrameClient(socket, options);
  client.sendRaw(preface);
  client.send(
    settings(options.streamWindow === undefined ? {} : { initialWindowSize: options.streamWindow }),
    ...(options.connectionWindow === undefined ? [] : [windowUpdate(0, options.connectionWindow)]),
  );
  return client;
}
