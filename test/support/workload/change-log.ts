import type { Change } from "../checker/ledger.ts";

/** What became of a transaction, as far as its writer knows. */
export type Outcome = "committed" | "rolled-back" | "unknown";

/** A transaction as its writer noted it. */
export interface Attempt {
  readonly writer: number;
  readonly number: number;
  xid: string;
  changes: Change[];
  prepared: boolean;
  outcome: Outcome;
}

/** All attempts of all writers, and who waits for their number. */
export class ChangeLog {
  readonly attempts: Attempt[] = [];
  /** Errors that no writer should meet because of Millrace: G11. */
  readonly failures: string[] = [];
  #committed = 0;
  #waiting: { readonly count: number; readonly resolve: () => void }[] = [];

  get committed(): number {
    return this.#committed;
  }

  begin(writer: number, number: number): Attempt {
    const attempt: Attempt = { writer, number, xid: "", changes: [], prepared: false, outcome: "unknown" };
    this.attempts.push(attempt);
    return attempt;
  }

  acknowledge(attempt: Attempt): void {
    attempt.outcome = "committed";
    this.#committed += 1;
    const due = this.#waiting.filter(({ count }) => count <= this.#committed);
    this.#waiting = this.#waiting.filter(({ count }) => count > this.#committed);
    for (const { resolve } of due) resolve();
  }

  /** Resolves once this many transactions have committed in all. */
  untilCommitted(count: number): Promise<void> {
    if (count <= this.#committed) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ count, resolve }));
  }

  /** Lets everybody go who waits, when no more will come. */
  end(): void {
    for (const { resolve } of this.#waiting) resolve();
    this.#waiting = [];
  }
}
