/** Which transactions a `pg_snapshot` sees. Immutable. xid8 fits a safe integer for 9 * 10^15 transactions. */
export class SnapshotBounds {
  readonly #xmin: number;
  readonly #xmax: number;
  readonly #inProgress: ReadonlySet<number>;

  /** @param text xmin:xmax:xip,xip,… */
  constructor(text: string) {
    const [xmin, xmax, inProgress] = text.split(":", 3);
    this.#xmin = Number(xmin);
    this.#xmax = Number(xmax);
    this.#inProgress = new Set(inProgress ? inProgress.split(",").map(Number) : []);
  }

  /** The same answer as `pg_visible_in_snapshot`. */
  sees(xid: number): boolean {
    return xid < this.#xmin || (xid < this.#xmax && !this.#inProgress.has(xid));
  }
}
