/**
 * What one moment sees, in Postgres's terms: every transaction below `xmax` that is not in `xip` is over. (Those below
 * `xmin` are over without looking; it is kept for the reader, not for the rule.)
 */
export interface Snapshot {
  readonly xmin: number;
  readonly xmax: number;
  readonly xip: ReadonlySet<number>;
}

/** Whether the transaction was over when the snapshot was taken. If it was rolled back there is nothing of it to see. */
export function sees(snapshot: Snapshot, xid: number): boolean {
  return xid < snapshot.xmax && !snapshot.xip.has(xid);
}

/** Transactions that `now` sees and `before` did not: new ones that are over, and those of `before.xip` that have left. */
export function newlySeen(before: Snapshot, now: Snapshot): number[] {
  const xids: number[] = [];
  for (const xid of before.xip) {
    if (sees(now, xid)) {
      xids.push(xid);
    }
  }
  for (let xid = before.xmax; xid < now.xmax; xid++) {
    if (sees(now, xid)) {
      xids.push(xid);
    }
  }
  return xids;
}
