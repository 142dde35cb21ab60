import type { OutgoingHttpHeaders } from "node:http";
import { constants, Http2ServerResponse, type ServerHttp2Stream } from "node:http2";
import type { NodeResponse } from "../node-call.ts";
import type { BodySink, BodySinkOwner } from "./body-sink.ts";
import type { Trailers } from "./call-end.ts";
import type { Exchange } from "./exchange.ts";
import { ConnectionInFlight, type InFlightLimits } from "./in-flight.ts";

/** Copying so much costs less than another buffer on its way through Node's streams. */
const JOIN_BYTES = 16_384;

/** What `ServerResponse` and `ServerHttp2Stream` have in common. */
interface Target {
  readonly writableLength: number;
  write(bytes: Uint8Array, written: (error?: Error | null) => void): boolean;
  cork(): void;
  uncork(): void;
  on(name: "close", listener: () => void): unknown;
}

/** Bodies over Node's own responses of HTTP/1.1 and HTTP/2. What is written to one in a turn goes to Node in one piece. */
export class NodeBodies {
  readonly #limits: InFlightLimits;
  readonly #connections = new WeakMap<object, ConnectionInFlight>();
  /** Those with something to write at the end of this turn. */
  #waiting: NodeBody[] = [];
  readonly #flush = () => {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const body of waiting) {
      body.flush();
    }
  };

  constructor(limits: InFlightLimits) {
    this.#limits = limits;
  }

  /**
   * The rest of the body of a response whose head has been written.
   *
   * @param maxBytes - of which the stream takes no more in flight
   */
  of(exchange: Exchange, owner: BodySinkOwner, maxBytes: number): BodySink {
    const { stream, closing } = exchange;
    const response = stream === closing ? undefined : exchange.response();
    const inFlight = this.#inFlight(stream?.session ?? response?.socket ?? closing);
    const options = { owner, maxBytes, bodies: this, inFlight };
    return stream === undefined || response !== undefined
      ? new ResponseBody(response ?? exchange.response(), options)
      : new StreamBody(stream, options);
  }

  /** It has something to write, and will be flushed once the others of this turn have been heard. */
  add(body: NodeBody): void {
    if (this.#waiting.push(body) === 1) {
      queueMicrotask(this.#flush);
    }
  }

  #inFlight(connection: object): ConnectionInFlight {
    const known = this.#connections.get(connection);
    if (known !== undefined) {
      return known;
    }
    const made = new ConnectionInFlight(this.#limits);
    this.#connections.set(connection, made);
    return made;
  }
}

interface NodeBodyOptions {
  readonly owner: BodySinkOwner;
  readonly maxBytes: number;
  readonly bodies: NodeBodies;
  readonly inFlight: ConnectionInFlight;
}

abstract class NodeBody implements BodySink {
  readonly #target: Target;
  readonly #owner: BodySinkOwner;
  readonly #maxBytes: number;
  readonly #bodies: NodeBodies;
  readonly #inFlight: ConnectionInFlight;
  /** Gathered in this turn: as a rule one piece, for which there is no array. */
  #first: Uint8Array | undefined;
  #others: Uint8Array[] | undefined;
  #gathered = 0;
  /** What its connection has been told. */
  #counted = 0;
  #blocked = false;
  #state: "open" | "ended" | "closed" = "open";

  constructor(target: Target, { owner, maxBytes, bodies, inFlight }: NodeBodyOptions) {
    this.#target = target;
    this.#owner = owner;
    this.#maxBytes = maxBytes;
    this.#bodies = bodies;
    this.#inFlight = inFlight;
    target.on("close", () => this.#close());
  }

  get pending(): number {
    return this.#state === "closed" ? 0 : this.#gathered + this.#target.writableLength;
  }

  get ready(): boolean {
    if (this.pending < this.#inFlight.share(this.#maxBytes)) {
      return true;
    }
    this.#blocked = true;
    return false;
  }

  write(bytes: Uint8Array): void {
    if (this.#state !== "open") {
      return;
    }
    if (this.#first === undefined) {
      this.#first = bytes;
      this.#bodies.add(this);
    } else {
      this.#others ??= [this.#first];
      this.#others.push(bytes);
    }
    this.#gathered += bytes.length;
    this.#count(this.#counted + bytes.length);
  }

  end(last: Uint8Array | undefined, trailers: Trailers | undefined): void {
    if (last !== undefined) {
      this.write(last);
    }
    if (this.#state === "open") {
      this.flush();
      this.#state = "ended";
      this.finish(trailers && Object.fromEntries(trailers));
    }
  }

  abort(): void {
    if (this.#state !== "closed") {
      this.#state = "ended";
      this.cut();
    }
  }

  /** Ends the response. */
  protected abstract finish(trailers: OutgoingHttpHeaders | undefined): void;

  /** Breaks the response off. */
  protected abstract cut(): void;

  /** Gives Node what was gathered. */
  flush(): void {
    const first = this.#first;
    const others = this.#others;
    const bytes = this.#gathered;
    this.#first = undefined;
    this.#others = undefined;
    this.#gathered = 0;
    if (first === undefined || this.#state !== "open") {
      return;
    }
    if (others === undefined) {
      this.#target.write(first, this.#written);
    } else if (bytes <= JOIN_BYTES) {
      this.#target.write(Buffer.concat(others, bytes), this.#written);
    } else {
      this.#writeAll(others);
    }
  }

  #writeAll(pieces: readonly Uint8Array[]): void {
    this.#target.cork();
    for (const piece of pieces) {
      this.#target.write(piece, this.#written);
    }
    this.#target.uncork();
  }

  readonly #written = (): void => {
    if (this.#state === "closed") {
      return;
    }
    const { pending } = this;
    this.#count(pending);
    if (this.#blocked && pending <= this.#inFlight.share(this.#maxBytes) / 2) {
      this.#blocked = false;
      this.#owner.onReady();
    }
  };

  #count(bytes: number): void {
    this.#inFlight.add(bytes - this.#counted);
    this.#counted = bytes;
  }

  #close(): void {
    if (this.#state === "closed") {
      return;
    }
    this.#state = "closed";
    this.#first = undefined;
    this.#others = undefined;
    this.#count(0);
    this.#owner.onClosed();
  }
}

/** Of a response of either of Node's request listeners. */
class ResponseBody extends NodeBody {
  readonly #response: NodeResponse;

  constructor(response: NodeResponse, options: NodeBodyOptions) {
    super(response instanceof Http2ServerResponse ? response.stream : response, options);
    this.#response = response;
    // What is written after the client has gone.
    response.on("error", ignore);
  }

  protected override finish(trailers: OutgoingHttpHeaders | undefined): void {
    if (trailers !== undefined) {
      this.#response.addTrailers(trailers);
    }
    this.#response.end();
  }

  protected override cut(): void {
    if (this.#response instanceof Http2ServerResponse) {
      this.#response.stream.close(constants.NGHTTP2_INTERNAL_ERROR);
    } else {
      this.#response.destroy();
    }
  }
}

/** Of a bare HTTP/2 stream. */
class StreamBody extends NodeBody {
  readonly #stream: ServerHttp2Stream;

  constructor(stream: ServerHttp2Stream, options: NodeBodyOptions) {
    super(stream, options);
    this.#stream = stream;
  }

  protected override finish(trailers: OutgoingHttpHeaders | undefined): void {
    if (trailers !== undefined) {
      this.#stream.once("wantTrailers", () => this.#stream.sendTrailers(trailers));
    }
    this.#stream.end();
  }

  protected override cut(): void {
    this.#stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  }
}

function ignore(): void {}
