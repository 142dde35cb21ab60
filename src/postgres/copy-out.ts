import type pg from "pg";

/** Takes one CopyData message, bytes `start` to `end` of the chunk; answers whether it wants more. */
export type CopySink = (chunk: Buffer, start: number, end: number) => boolean;

/**
 * Runs a message that begins with `COPY … TO STDOUT` and hands every CopyData message to the sink, synchronously, where it
 * lies in the chunk that the socket gave: nothing is copied but a message that two chunks share.
 *
 * The driver would emit an event per row, and pg-copy-streams takes each out of its frame, joins them again and passes them
 * through a stream: copies that nobody needs. Like it, this stands in for the driver's
 * own reader between CopyOutResponse and CopyDone, and hands the socket back with whatever it has not looked at.
 *
 * There is no flow control: the caller bounds what it asks for. Resolves with true when the connection is ready again.
 * When the sink has had enough it resolves with false, and the connection must be destroyed: the copy is still coming.
 */
export function copyOut(client: pg.ClientBase, sql: string, sink: CopySink): Promise<boolean> {
  return new Promise((resolve, reject) => {
    client.query(new CopyOut(sql, sink, resolve, reject));
  });
}

/** First bytes of the backend's messages. */
const copyData = 0x64;
const copyDone = 0x63;
const errorResponse = 0x45;
/** Of a message's head: its letter, and its length, which counts itself. */
const headBytes = 5;

class CopyOut implements pg.Submittable {
  readonly #sql: string;
  readonly #sink: CopySink;
  readonly #resolve: (complete: boolean) => void;
  readonly #reject: (error: unknown) => void;
  /** Gives the socket back to the driver, with what it has to read first. */
  #handBack: (rest: Buffer) => void = () => undefined;
  /** Chunks of a message that has not come whole; joined once it has. */
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #needed = 0;
  #stopped = false;

  constructor(sql: string, sink: CopySink, resolve: (complete: boolean) => void, reject: (error: unknown) => void) {
    this.#sql = sql;
    this.#sink = sink;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  submit(connection: pg.Connection): void {
    const [driver, ...others] = connection.stream.listeners("data");
    if (driver === undefined || others.length > 0) {
      throw new Error(`the driver reads its socket with ${others.length} listeners more than this can stand in for`);
    }
    const { stream } = connection;
    stream.off("data", driver as (chunk: Buffer) => void);
    stream.on("data", this.#read);
    this.#handBack = (rest) => {
      stream.off("data", this.#read);
      stream.on("data", driver as (chunk: Buffer) => void);
      if (rest.length > 0) Reflect.apply(driver, stream, [rest]);
    };
    connection.query(this.#sql);
  }

  handleError(error: unknown): void {
    this.#reject(error);
  }

  handleCommandComplete(): void {}

  handleReadyForQuery(): void {
    this.#resolve(true);
  }

  readonly #read = (chunk: Buffer): void => {
    if (this.#stopped) return;
    try {
      this.#messages(this.#join(chunk));
    } catch (error) {
      this.#stopped = true;
      this.#reject(error);
    }
  };

  #join(chunk: Buffer): Buffer | undefined {
    if (this.#waitingBytes === 0) return chunk;
    this.#waiting.push(chunk);
    this.#waitingBytes += chunk.length;
    if (this.#waitingBytes < this.#needed) return undefined;
    const whole = Buffer.concat(this.#waiting, this.#waitingBytes);
    this.#waiting = [];
    this.#waitingBytes = 0;
    return whole;
  }

  #messages(chunk: Buffer | undefined): void {
    if (chunk === undefined) return;
    let at = 0;
    while (at + headBytes <= chunk.length) {
      const kind = chunk[at];
      const end = at + 1 + chunk.readUInt32BE(at + 1);
      if (kind === errorResponse || (kind === copyDone && end <= chunk.length)) {
        // An error is the driver's to report, and whatever follows it to read.
        this.#handBack(chunk.subarray(kind === errorResponse ? at : end));
        return;
      }
      if (end > chunk.length) {
        this.#wait(chunk, at, end - at);
        return;
      }
      if (kind === copyData && !this.#sink(chunk, at + headBytes, end)) {
        this.#stopped = true;
        this.#resolve(false);
        return;
      }
      at = end;
    }
    if (at < chunk.length) this.#wait(chunk, at, headBytes);
  }

  #wait(chunk: Buffer, at: number, needed: number): void {
    this.#waiting = [chunk.subarray(at)];
    this.#waitingBytes = chunk.length - at;
    this.#needed = needed;
  }
}
