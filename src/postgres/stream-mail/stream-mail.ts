import { setTimeout as pause } from "node:timers/promises";
import type pg from "pg";
import { FeedError } from "../../core/errors.ts";
import type { StreamMail } from "../../core/stream/stream-mail.ts";
import { withLease } from "../lease.ts";
import { queryError } from "../query-error.ts";
import { answerMail, collectMail, sendMail, takeMail } from "./statements.ts";

/** What letters go through. */
export interface PostgresStreamMailOptions {
  readonly pool: pg.Pool;
  /** Whether notifications are heard at present. */
  readonly listening: () => boolean;
  /** Milliseconds within which a letter is to be taken, and as many more for its answer. */
  readonly timeoutMs: number;
}

/** How often the sender looks for the answer, in milliseconds: doubling between these. */
const firstLookMs = 10;
const longestLookMs = 250;
/** How often a receiver looks that hears no notifications, or could not look. */
const deafLookMs = 1_000;

type Answer = (letter: Uint8Array) => Promise<Uint8Array>;

interface Sent {
  /** Null, as is the answer, when the letter is not there. */
  readonly taken: boolean | null;
  readonly answer: Buffer | null;
}

/**
 * Letters in a table. Who waits for some is told by a notification; only where none can be heard, behind a pooler, or while
 * the connection that listens is away, is the table looked at every second.
 */
export class PostgresStreamMail implements StreamMail {
  readonly #options: PostgresStreamMailOptions;
  readonly #receivers = new Map<string, Receiver>();

  constructor(options: PostgresStreamMailOptions) {
    this.#options = options;
  }

  /** There is a letter for this replica; for any, perhaps, when nobody has listened for a while. */
  heard(replica: string | undefined): void {
    for (const [name, receiver] of this.#receivers) {
      if (replica === undefined || replica === name) receiver.look();
    }
  }

  receive(replica: string, answer: Answer): () => void {
    const receiver = new Receiver(replica, answer, this.#options);
    this.#receivers.set(replica, receiver);
    return () => {
      this.#receivers.delete(replica);
      receiver.stop();
    };
  }

  async send(replica: string, letter: Uint8Array, signal: AbortSignal): Promise<Uint8Array | undefined> {
    const { timeoutMs } = this.#options;
    try {
      const [sent] = await this.#ask<{ readonly id: string }>(
        sendMail,
        [replica, Buffer.from(letter), timeoutMs],
        signal,
      );
      if (sent === undefined) throw new FeedError("INTERNAL", "send_stream_mail() gave no answer.", "Report it.");
      return await this.#answerTo(sent.id, signal);
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw queryError(error, "reach the stream's replica");
    }
  }

  async #answerTo(id: string, signal: AbortSignal): Promise<Uint8Array | undefined> {
    const { timeoutMs } = this.#options;
    const sentAt = performance.now();
    for (let waitMs = firstLookMs; ; waitMs = Math.min(longestLookMs, waitMs * 2)) {
      await pause(waitMs, undefined, { signal });
      const passedMs = performance.now() - sentAt;
      const [state] = await this.#ask<Sent>(collectMail, [id, false], signal);
      const over = passedMs > (state?.taken === true ? 2 : 1) * timeoutMs;
      if (over || (state?.answer ?? null) !== null) return await this.#withdraw(id, signal);
    }
  }

  /** What the row says as it is deleted is the truth: it may have been taken a moment before. */
  async #withdraw(id: string, signal: AbortSignal): Promise<Uint8Array | undefined> {
    const [last] = await this.#ask<Sent>(collectMail, [id, true], signal);
    if (last?.answer != null) return last.answer;
    if (last?.taken !== true) return undefined;
    throw new FeedError(
      "DATABASE_UNAVAILABLE",
      "The stream's replica has the request and does not answer: the stream may change or not.",
      "Watch for `selectors_changed`, or send the request again: the last one is what counts.",
      { retryAfterMs: 1_000 },
    );
  }

  #ask<R extends pg.QueryResultRow>(
    sql: string,
    values: readonly unknown[],
    signal: AbortSignal,
  ): Promise<readonly R[]> {
    return withLease(this.#options.pool, signal, (lease) => lease.rows<R>(sql, values));
  }
}

/** Takes and answers the letters for one replica, one look at a time. */
class Receiver {
  readonly #replica: string;
  readonly #answer: Answer;
  readonly #options: PostgresStreamMailOptions;
  readonly #stopping = new AbortController();
  readonly #timer: NodeJS.Timeout;
  #looking = false;
  #again = false;
  #failed = false;

  constructor(replica: string, answer: Answer, options: PostgresStreamMailOptions) {
    this.#replica = replica;
    this.#answer = answer;
    this.#options = options;
    this.#timer = setInterval(() => {
      if (this.#failed || !options.listening()) this.look();
    }, deafLookMs);
    this.#timer.unref();
  }

  look(): void {
    this.#again = true;
    if (this.#looking) return;
    this.#looking = true;
    void this.#lookWhileAsked().finally(() => {
      this.#looking = false;
    });
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#stopping.abort(new FeedError("INTERNAL", "The feed has ended.", "Open another one."));
  }

  async #lookWhileAsked(): Promise<void> {
    const { signal } = this.#stopping;
    while (this.#again && !signal.aborted) {
      this.#again = false;
      try {
        await this.#takeAll(signal);
        this.#failed = false;
      } catch {
        // The sender tells its caller; here it is tried again.
        this.#failed = true;
      }
    }
  }

  async #takeAll(signal: AbortSignal): Promise<void> {
    const { pool } = this.#options;
    const letters = await withLease(pool, signal, (lease) =>
      lease.rows<{ readonly id: string; readonly letter: Buffer }>(takeMail, [this.#replica]),
    );
    for (const { id, letter } of letters) {
      const answer = Buffer.from(await this.#answer(letter));
      await withLease(pool, signal, (lease) => lease.rows(answerMail, [id, answer]));
    }
    this.#again ||= letters.length > 0;
  }
}
