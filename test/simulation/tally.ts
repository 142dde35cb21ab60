import type { Complaint } from "../support/checker/seen.ts";

/** What a run has done and found, and a digest of everything that streams said, in order and with its time. */
export class Tally {
  readonly complaints: Complaint[] = [];
  /** The step at which the first complaint came up. */
  firstAt: number | undefined;
  readonly counts: Record<string, number> = {};
  readonly #steps: () => number;
  #digest = 0x811c9dc5;

  constructor(steps: () => number) {
    this.#steps = steps;
  }

  get digest(): string {
    return (this.#digest >>> 0).toString(16).padStart(8, "0");
  }

  count(what: string, by = 1): void {
    this.counts[what] = (this.counts[what] ?? 0) + by;
  }

  object(guarantee: Complaint["guarantee"], client: string, text: string): void {
    this.firstAt ??= this.#steps();
    this.complaints.push({ guarantee, client, text });
  }

  mix(values: readonly number[]): void {
    for (const value of values) {
      this.#digest = Math.imul(this.#digest ^ Math.floor(value), 0x01000193) ^ (this.#digest >>> 13);
    }
  }
}
