/** What is known of a subscription without asking for it. */
export interface Remembered {
  /** As `subscribe_changes` stored them. `undefined` for subscriptions that others made. */
  readonly pollingIntervalSeconds?: number | undefined;
  readonly batchSize?: number | undefined;
  /** What the last page was given under. */
  readonly lease?: { readonly generation: bigint; readonly member: string } | undefined;
}

const MOST = 1_000;

/**
 * What one process remembers of the subscriptions that it polls, the thousand used last. Only a shortcut: what it has forgotten,
 * or never knew because another replica served the poll before, is asked for.
 */
export class ConsumerMemory {
  readonly #known = new Map<string, Remembered>();

  get(subscriptionId: string): Remembered | undefined {
    return this.#known.get(subscriptionId);
  }

  /** Adds to what is known. */
  add(subscriptionId: string, news: Remembered): void {
    const known = { ...this.#known.get(subscriptionId), ...news };
    this.#known.delete(subscriptionId);
    this.#known.set(subscriptionId, known);
    const oldest = this.#known.keys().next();
    if (this.#known.size > MOST && oldest.done !== true) this.#known.delete(oldest.value);
  }

  forget(subscriptionId: string): void {
    this.#known.delete(subscriptionId);
  }
}
