import { cursorOfPosition, isBehind } from "./positions.ts";
import type { Advance, AdvanceOutcome, StoredPosition, SubscriptionStore } from "./subscription-store.ts";

/** What subscriptions without group come to. */
export type PlainAdvance = Pick<Advance, "id" | "generation" | "position" | "delivered">;

/** Advances of one write: the statement stays short enough for the others to take their turn. */
const MAX_BATCH = 1_000;

interface Waiting {
  advance: PlainAdvance;
  readonly done: PromiseWithResolvers<AdvanceOutcome>;
}

/**
 * Writes what subscriptions have come to, all together: while one write is under way everything that comes is collected for the
 * next one. So a write carries more the busier the database is, nobody waits for a timer, and the number of statements does not
 * depend on the number of acknowledgements.
 */
export class Advances {
  readonly #store: Pick<SubscriptionStore, "advance">;
  readonly #signal: AbortSignal;
  /** Those of one subscription one after the other: a write has one of each. */
  readonly #waiting = new Map<string, Waiting[]>();
  #writing: Promise<void> | undefined;
  #flushes = 0;

  /** @param signal - ends a write that is under way */
  constructor(store: Pick<SubscriptionStore, "advance">, signal: AbortSignal) {
    this.#store = store;
    this.#signal = signal;
  }

  /** Writes so far. */
  get flushes(): number {
    return this.#flushes;
  }

  /** Resolves once it is durable, or known to have come to nothing; rejects when nobody knows. */
  say(advance: PlainAdvance): Promise<AdvanceOutcome> {
    const before = this.#waiting.get(advance.id) ?? [];
    const last = before.at(-1);
    const joint = last === undefined ? undefined : together(last.advance, advance);
    if (last !== undefined && joint !== undefined) {
      last.advance = joint;
      return last.done.promise;
    }
    const waiting: Waiting = { advance, done: Promise.withResolvers() };
    this.#waiting.set(advance.id, [...before, waiting]);
    this.#writing ??= this.#write();
    return waiting.done.promise;
  }

  /** Resolves when nothing waits any more. */
  async settled(): Promise<void> {
    await this.#writing;
  }

  async #write(): Promise<void> {
    // What the same turn says goes together.
    await Promise.resolve();
    while (this.#waiting.size > 0) {
      const batch = this.#take();
      this.#flushes += 1;
      try {
        const outcomes = await this.#store.advance(
          batch.map(({ advance }) => advance),
          this.#signal,
        );
        for (const [index, { done }] of batch.entries()) {
          done.resolve(outcomes[index] ?? { kind: "gone" });
        }
      } catch (error) {
        for (const { done } of batch) {
          done.reject(error);
        }
      }
    }
    this.#writing = undefined;
  }

  #take(): readonly Waiting[] {
    const batch: Waiting[] = [];
    for (const [id, [first, ...rest]] of this.#waiting) {
      if (batch.length === MAX_BATCH) {
        break;
      }
      if (first !== undefined) {
        batch.push(first);
      }
      if (rest.length === 0) {
        this.#waiting.delete(id);
      } else {
        this.#waiting.set(id, rest);
      }
    }
    return batch;
  }
}

/** `undefined` for two that cannot be said at once: of two generations, or with positions of two epochs. */
function together(first: PlainAdvance, second: PlainAdvance): PlainAdvance | undefined {
  if (first.generation !== second.generation) {
    return undefined;
  }
  const position = later(first.position, second.position);
  return position === "unordered" ? undefined : { ...second, position, delivered: second.delivered ?? first.delivered };
}

function later(
  first: StoredPosition | undefined,
  second: StoredPosition | undefined,
): StoredPosition | undefined | "unordered" {
  if (first === undefined || second === undefined) {
    return second ?? first;
  }
  if (first.epoch !== second.epoch) {
    return "unordered";
  }
  if (first.version !== second.version) {
    return first.version < second.version ? second : first;
  }
  return isBehind(cursorOfPosition(second), cursorOfPosition(first)) ? first : second;
}
