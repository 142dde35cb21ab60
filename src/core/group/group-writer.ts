import { backOffMs } from "../back-off.ts";
import type { Clock, Timers } from "../ports.ts";
import { storedPosition } from "../subscription/positions.ts";
import type { Advance, AdvanceOutcome, StoredPosition, SubscriptionStore } from "../subscription/subscription-store.ts";
import { groupGone } from "./group-failures.ts";
import type { GroupHost } from "./group-host.ts";

/** Between the beginnings of two writes: what is said meanwhile shares the next one. */
const SOON_MS = 10;
/** What nobody waits for is written so long after it happened. */
const LATE_MS = 1_000;
/** Groups of one write: the statement stays short enough for others to take their turn. */
const MAX_BATCH = 500;
/** And as much of dead letters, unless one group has more: a statement is one text. */
const MAX_BATCH_BYTES = 32 * 1024 * 1024;

/** What groups are written with. */
export interface GroupWriterOptions {
  readonly store: Pick<SubscriptionStore, "advance">;
  readonly clock: Clock;
  readonly timers: Timers;
  readonly signal: AbortSignal;
  readonly report: (message: string, error?: unknown) => void;
  /** Somebody else has it, or it is not there any more. */
  readonly lost: (host: GroupHost) => void;
}

/** What one write says of one group. */
interface Said {
  readonly host: GroupHost;
  readonly advance: Advance;
  readonly revision: number;
  readonly position: StoredPosition;
  /** Nothing comes after it. */
  readonly isLast: boolean;
}

/**
 * Writes what groups have come to, all that have something in one call, one call at a time. However many events are acknowledged,
 * the database gets one transaction every few milliseconds at most.
 */
export class GroupWriter {
  readonly #options: GroupWriterOptions;
  readonly #late = new Set<GroupHost>();
  readonly #soon = new Set<GroupHost>();
  readonly #last = new Map<GroupHost, PromiseWithResolvers<void>>();
  #writing: Promise<void> | undefined;
  #beganAtMs = Number.NEGATIVE_INFINITY;
  #cancelLate: (() => void) | undefined;
  #cancelSoon: (() => void) | undefined;
  #failures = 0;
  #writes = 0;

  constructor(options: GroupWriterOptions) {
    this.#options = options;
  }

  /** Calls so far. */
  get writes(): number {
    return this.#writes;
  }

  /** There is something to write. */
  add(host: GroupHost, soon: boolean): void {
    if (soon) {
      this.#soon.add(host);
      this.#schedule();
      return;
    }
    this.#late.add(host);
    this.#cancelLate ??= this.#options.timers.after(LATE_MS, () => {
      this.#cancelLate = undefined;
      for (const waiting of this.#late) {
        this.#soon.add(waiting);
      }
      this.#late.clear();
      this.#schedule();
    });
  }

  /** Writes it for the last time. Resolves when that has been tried. */
  async finish(host: GroupHost): Promise<void> {
    const done = this.#last.get(host) ?? Promise.withResolvers<void>();
    this.#last.set(host, done);
    this.#soon.add(host);
    this.#schedule();
    await done.promise;
  }

  /** It is nobody's to write any more. */
  forget(host: GroupHost): void {
    this.#soon.delete(host);
    this.#late.delete(host);
    this.#last.get(host)?.resolve();
    this.#last.delete(host);
  }

  /** Resolves when nothing is being written. */
  async stop(): Promise<void> {
    this.#cancelLate?.();
    this.#cancelSoon?.();
    await this.#writing;
  }

  #schedule(): void {
    if (this.#writing !== undefined || this.#cancelSoon !== undefined || this.#options.signal.aborted) {
      return;
    }
    const { clock, timers } = this.#options;
    const gapMs = this.#failures > 0 ? backOffMs(this.#failures, clock) : SOON_MS;
    const waitMs = Math.max(0, this.#beganAtMs + gapMs - clock.monotonic());
    this.#cancelSoon = timers.after(waitMs, () => {
      this.#cancelSoon = undefined;
      this.#writing = this.#write().finally(() => {
        this.#writing = undefined;
        if (this.#soon.size > 0) {
          this.#schedule();
        }
      });
    });
  }

  async #write(): Promise<void> {
    const { clock, store, signal, report } = this.#options;
    const batch = this.#take();
    this.#beganAtMs = clock.monotonic();
    this.#writes += 1;
    try {
      const outcomes = await store.advance(
        batch.map(({ advance }) => advance),
        signal,
      );
      this.#failures = 0;
      for (const [index, said] of batch.entries()) {
        this.#settle(said, outcomes[index] ?? { kind: "gone" });
      }
    } catch (error) {
      this.#failures += 1;
      if (this.#failures === 1 && !signal.aborted) {
        report("What groups have come to could not be written down; it is tried again.", error);
      }
      for (const { host } of batch) {
        host.notWritten(error);
        if (host.hasEnded) {
          this.forget(host);
        } else {
          this.#soon.add(host);
        }
      }
    }
  }

  #take(): readonly Said[] {
    const batch: Said[] = [];
    let bytes = 0;
    for (const host of this.#soon) {
      bytes += host.machine.ledger.letters.unwrittenBytes;
      if (batch.length === MAX_BATCH || (batch.length > 0 && bytes > MAX_BATCH_BYTES)) {
        break;
      }
      this.#soon.delete(host);
      this.#late.delete(host);
      const { cursor, revision, ...written } = host.machine.ledger.write();
      const position = storedPosition(cursor);
      batch.push({
        host,
        revision,
        position,
        isLast: this.#last.has(host),
        advance: { id: host.id, generation: host.generation, position, ...written },
      });
    }
    return batch;
  }

  #settle({ host, revision, position, isLast }: Said, outcome: AdvanceOutcome): void {
    if (outcome.kind === "advanced") {
      host.written(revision, position);
      if (host.hasEnded && (isLast || !this.#last.has(host))) {
        this.forget(host);
      } else if (host.mustWrite) {
        this.#soon.add(host);
      }
    } else {
      host.notWritten(groupGone(host.id));
      this.forget(host);
      this.#options.lost(host);
    }
  }
}
