import { FeedError } from "../core/errors.ts";

/** Keys of one statement. */
const MAX_KEYS = 1_000;
/** An answer that has not come after so many beats will not come. */
const PATIENCE_BEATS = 20;
const BEAT_MS = 500;

interface Asker<K, V> {
  readonly key: K;
  readonly resolve: (value: V | undefined) => void;
  readonly reject: (reason: unknown) => void;
}

/** One statement on its way. */
interface Asked<K, V> {
  readonly askers: Set<Asker<K, V>>;
  readonly controller: AbortController;
}

/**
 * Asks the database many questions of a kind at once: what is asked while an answer is under way goes into the next
 * statement, so that ten thousand streams that come back together cost a dozen statements, on one connection.
 *
 * The next, and never the one under way: an answer is no older than its question. A statement that nobody waits for any
 * more is given up, and so is one that takes too long, for all that come later stand behind it.
 */
export class GatheredQuestions<K, V> {
  readonly #ask: (keys: readonly K[], signal: AbortSignal) => Promise<ReadonlyMap<K, V>>;
  readonly #waiting = new Set<Asker<K, V>>();
  #asked: Asked<K, V> | undefined;
  #asking = false;

  /** `ask` answers for each key that has an answer, in one statement. */
  constructor(ask: (keys: readonly K[], signal: AbortSignal) => Promise<ReadonlyMap<K, V>>) {
    this.#ask = ask;
  }

  /** `undefined` when there is no answer. Rejects with what `ask` rejects with. */
  async about(key: K, signal: AbortSignal): Promise<V | undefined> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<V | undefined>();
    const asker = { key, resolve, reject };
    const abort = () => {
      reject(signal.reason);
      this.#leave(asker);
    };
    signal.addEventListener("abort", abort, { once: true });
    this.#waiting.add(asker);
    if (!this.#asking) void this.#askAll();
    try {
      return await promise;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  #leave(asker: Asker<K, V>): void {
    this.#waiting.delete(asker);
    if (this.#asked?.askers.delete(asker) && this.#asked.askers.size === 0) {
      this.#asked.controller.abort(tooLate());
    }
  }

  async #askAll(): Promise<void> {
    this.#asking = true;
    // Those who ask in the same breath go into the first statement.
    await Promise.resolve();
    while (this.#waiting.size > 0) await this.#askOnce();
    this.#asking = false;
  }

  async #askOnce(): Promise<void> {
    const keys = new Set<K>();
    const askers = new Set<Asker<K, V>>();
    for (const asker of this.#waiting) {
      if (keys.size >= MAX_KEYS && !keys.has(asker.key)) break;
      keys.add(asker.key);
      askers.add(asker);
      this.#waiting.delete(asker);
    }
    const controller = new AbortController();
    this.#asked = { askers, controller };
    // Beats and not one long time: while this process is too busy to listen, no answer is late.
    let beats = 0;
    const timer = setInterval(() => {
      beats += 1;
      if (beats === PATIENCE_BEATS) controller.abort(tooLate());
    }, BEAT_MS);
    try {
      const answers = await this.#ask([...keys], controller.signal);
      for (const { key, resolve } of askers) resolve(answers.get(key));
    } catch (error) {
      for (const { reject } of askers) reject(error);
    } finally {
      clearInterval(timer);
      this.#asked = undefined;
    }
  }
}

function tooLate(): FeedError {
  return new FeedError(
    "DATABASE_UNAVAILABLE",
    "The database does not answer.",
    "Try again once the database answers; a running server reconnects by itself.",
    { retryAfterMs: 1000 },
  );
}
