import { backOffMs } from "../back-off.ts";
import { FeedError } from "../errors.ts";
import type { Lane } from "../lane/lane.ts";
import { EpochOver } from "../lineage.ts";
import type { Clock, Timers } from "../ports.ts";
import type { SnapshotStarted } from "../snapshot/snapshot-run.ts";
import type { SelectorChange } from "./selector-change.ts";
import type { SelectorChangeRun } from "./selector-change-run.ts";

/** What a change is made with. */
export interface DeliveryChangeOptions {
  readonly change: SelectorChange;
  /** The stream's own until then. */
  readonly before: Lane;
  /** The rows that it adds; `undefined` when it adds none. Called again when they could not be had. */
  readonly open: ((signal: AbortSignal) => SelectorChangeRun) | undefined;
  /** Gives the lane back, of a change that does not come to be. */
  readonly release: () => void;
  readonly clock: Clock;
  readonly timers: Timers;
}

/** Whoever waits for the rows of a change. */
export interface ChangeConsumer {
  /** They begin; `undefined` when they are to be asked for again. */
  supplyChange(started: SnapshotStarted | undefined): void;
  /** They cannot be had. */
  fail(error: unknown): void;
}

/** The I/O of a change that is ahead of its stream. A database that does not answer, or has no room, is asked again. */
export class DeliveryChange {
  readonly #options: DeliveryChangeOptions;
  #run: SelectorChangeRun | undefined;
  #ending: AbortController | undefined;
  #cancelRetry: (() => void) | undefined;
  #failures = 0;
  #over = false;

  constructor(options: DeliveryChangeOptions) {
    this.#options = options;
  }

  get change(): SelectorChange {
    return this.#options.change;
  }

  get before(): Lane {
    return this.#options.before;
  }

  open(consumer: ChangeConsumer): void {
    const ending = new AbortController();
    const run = this.#options.open?.(ending.signal);
    if (run === undefined) {
      return;
    }
    this.#ending = ending;
    this.#run = run;
    run.start().then(
      (started) => {
        if (!this.#over) {
          consumer.supplyChange(started);
        }
      },
      (error: unknown) => {
        run.close().catch(() => undefined);
        if (!this.#over) {
          this.#failed(error, consumer);
        }
      },
    );
  }

  /** The stream has changed: whoever gets the rows closes them. */
  take(): { readonly run: SelectorChangeRun; readonly ending: AbortController } | undefined {
    this.#over = true;
    return this.#run === undefined || this.#ending === undefined ? undefined : { run: this.#run, ending: this.#ending };
  }

  /** It does not come to be. */
  withdraw(reason: FeedError): void {
    if (this.#over) {
      return;
    }
    this.#over = true;
    this.#cancelRetry?.();
    this.#ending?.abort(reason);
    this.#run?.close().catch(() => undefined);
    this.#options.release();
  }

  #failed(error: unknown, consumer: ChangeConsumer): void {
    // An epoch that is over ends the stream by the feed's failure, which knows more about it.
    const passes = error instanceof EpochOver || (error instanceof FeedError && isPassing(error));
    if (!passes) {
      consumer.fail(error);
      return;
    }
    const { clock, timers } = this.#options;
    this.#failures += 1;
    this.#cancelRetry = timers.after(backOffMs(this.#failures, clock), () => consumer.supplyChange(undefined));
  }
}

function isPassing({ code, detail }: FeedError): boolean {
  return code === "DATABASE_UNAVAILABLE" || detail.retryAfterMs !== undefined;
}
