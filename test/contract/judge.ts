import type { Frame } from "../../src/core/frame.ts";

/**
 * What must hold for any stream, whatever was written: judged from its frames alone. Answers the broken rules.
 *
 * `transactions` knows how many events each transaction has that the stream's selectors match, for those that the test
 * wants judged as whole.
 */
export function objections(frames: readonly Frame[], transactions: ReadonlyMap<string, number> = new Map()): string[] {
  const found: string[] = [];
  let version = 0;
  let told = 0;
  let inSnapshot = false;
  let open = new Map<string, number>();
  if (frames[0]?.kind !== "opened") {
    found.push("the first frame is not opened");
  }
  frames.forEach((frame, i) => {
    if (frame.kind === "opened") {
      version = frame.version;
      told = frame.version;
      if (i > 0) {
        found.push("opened comes twice");
      }
    } else if (frame.kind === "snapshot_started" || frame.kind === "snapshot_complete") {
      inSnapshot = frame.kind === "snapshot_started";
    } else if (frame.kind === "events") {
      for (const event of frame.events) {
        if (inSnapshot ? event.version !== version : event.version <= version) {
          found.push(`version ${event.version} comes after ${version}`);
        }
        version = event.version;
        open.set(event.transaction, (open.get(event.transaction) ?? 0) + 1);
      }
      if (frame.events.length === 0) {
        found.push("a batch is empty");
      }
      if (frame.cursor.version < version || (frame.cursor.snapshot !== undefined) !== inSnapshot) {
        found.push(`the cursor at ${frame.cursor.version} does not cover version ${version}`);
      }
      if (frame.complete) {
        found.push(...split(open, transactions, `the complete batch at ${version}`));
      }
      told = Math.max(told, frame.cursor.version);
    } else if (frame.kind === "checkpoint") {
      found.push(...split(open, transactions, `the checkpoint at ${frame.version}`));
      if (frame.version < told || frame.cursor.version !== frame.version) {
        found.push(`the checkpoint at ${frame.version} is behind ${told}`);
      }
      told = frame.version;
      version = Math.max(version, frame.version);
      open = new Map();
    }
  });
  return found;
}

function split(seen: ReadonlyMap<string, number>, transactions: ReadonlyMap<string, number>, where: string): string[] {
  const found: string[] = [];
  for (const [xid, count] of seen) {
    const whole = transactions.get(xid);
    if (whole !== undefined && count !== whole) {
      found.push(`${where} has ${count} of ${whole} events of transaction ${xid}`);
    }
  }
  return found;
}
