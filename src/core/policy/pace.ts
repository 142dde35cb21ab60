/** Share of a second's events that is worth a frame: a stream at its limit delivers ten times a second, not one by one. */
const WORTH_SENDING = 0.1;
/** So that whoever waited until `readyAtMs` is not told to wait for what was lost in adding. */
const ROUNDING = 1e-6;

/** How fast a stream may deliver: a bucket that holds one second's worth and begins full. */
export class Pace {
  readonly #perSecond: number;
  #tokens: number;
  #atMs: number;

  /** `perSecond` is at least 1; `nowMs` is monotonic. */
  constructor(perSecond: number, nowMs: number) {
    this.#perSecond = perSecond;
    this.#tokens = perSecond;
    this.#atMs = nowMs;
  }

  /** Events that may be delivered now: none, as long as there are few and more soon. */
  allowance(nowMs: number): number {
    this.#fill(nowMs);
    const tokens = this.#tokens + ROUNDING;
    return tokens >= this.#worth ? Math.floor(tokens) : 0;
  }

  /** So many were delivered. */
  spend(events: number, nowMs: number): void {
    this.#fill(nowMs);
    this.#tokens -= events;
  }

  /** When there is an allowance again; monotonic milliseconds. */
  readyAtMs(): number {
    return this.#atMs + (Math.max(0, this.#worth - this.#tokens) / this.#perSecond) * 1000;
  }

  get #worth(): number {
    return Math.max(1, this.#perSecond * WORTH_SENDING);
  }

  #fill(nowMs: number): void {
    const gained = (Math.max(0, nowMs - this.#atMs) / 1000) * this.#perSecond;
    this.#tokens = Math.min(this.#perSecond, this.#tokens + gained);
    this.#atMs = Math.max(this.#atMs, nowMs);
  }
}
