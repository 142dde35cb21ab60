import { backOffMs } from "../back-off.ts";
import { FeedError } from "../errors.ts";
import type { Version } from "../event.ts";
import { EpochOver } from "../lineage.ts";
import type { Page } from "../page.ts";
import type { Clock, Timers } from "../ports.ts";

/** Where a stream's history comes from. */
export interface History {
  /** As `FeedStore.readAfter`; `reader` tells whose turn it is. */
  readAfter(after: Version, reader: object, signal: AbortSignal): Promise<Page | undefined>;
}

/** Whoever wants history. */
export interface HistoryConsumer {
  /** The page that was asked for; `undefined` when it is to be asked for again. */
  supply(page: Page | undefined): void;
  /** Nothing will come. */
  fail(error: unknown): void;
}

/** What history is read with. */
export interface HistoryMeans {
  readonly history: History;
  readonly clock: Clock;
  readonly timers: Timers;
}

/** The reads of one stream, one at a time: made when a stream reads for the first time, and most never do. */
export class DeliveryHistory {
  readonly #means: HistoryMeans;
  readonly #consumer: HistoryConsumer;
  #reading: AbortController | undefined;
  #cancelRetry: (() => void) | undefined;
  #failures = 0;
  /** Where a read has failed for good: once more, and it is the stream's end. */
  #failedAfter: Version | undefined;
  #stopped = false;

  constructor(means: HistoryMeans, consumer: HistoryConsumer) {
    this.#means = means;
    this.#consumer = consumer;
  }

  get reading(): boolean {
    return this.#reading !== undefined;
  }

  read(after: Version): void {
    this.#reading = new AbortController();
    this.#means.history.readAfter(after, this.#consumer, this.#reading.signal).then(
      (page) => this.#came(page),
      (error: unknown) => this.#failed(error, after),
    );
  }

  stop(reason: FeedError): void {
    this.#stopped = true;
    this.#cancelRetry?.();
    this.#reading?.abort(reason);
  }

  #came(page: Page | undefined): void {
    this.#reading = undefined;
    if (page === undefined) {
      this.#retry();
    } else if (!this.#stopped) {
      this.#failures = 0;
      this.#consumer.supply(page);
    }
  }

  #failed(error: unknown, after: Version): void {
    this.#reading = undefined;
    const code = error instanceof FeedError ? error.code : undefined;
    if (code === "DRAINING") {
      // Nobody reads any more; the stream says `closing` as soon as its client comes for it.
      return;
    }
    // An epoch that is over ends the stream by the feed's failure, which knows more about it.
    if (error instanceof EpochOver || code === "DATABASE_UNAVAILABLE") {
      this.#retry();
    } else if (!this.#stopped && this.#failedAfter !== after) {
      // Its policy may have led the stream past it meanwhile: then what is lost there is not lost to it.
      this.#failedAfter = after;
      this.#consumer.supply(undefined);
    } else if (!this.#stopped) {
      this.#consumer.fail(error);
    }
  }

  #retry(): void {
    if (!this.#stopped) {
      const { clock, timers } = this.#means;
      this.#failures += 1;
      this.#cancelRetry = timers.after(backOffMs(this.#failures, clock), () => this.#consumer.supply(undefined));
    }
  }
}
