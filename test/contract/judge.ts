import type { Event } from "../../src/core/event.ts";
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
  /** Version of the rows that come. */
  let snapshot: number | undefined;
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
    } else if (frame.kind === "snapshot_started") {
      snapshot = frame.version;
    } else if (frame.kind === "snapshot_complete") {
      snapshot = undefined;
      version = frame.version;
      told = frame.version;
    } else if (frame.kind === "events") {
      for (const event of frame.events) {
        found.push(...misplaced(event, version, snapshot));
        version = event.version;
        if (snapshot === undefined) {
          open.set(event.transaction, (open.get(event.transaction) ?? 0) + 1);
        }
      }
      if (frame.events.length === 0) {
        found.push("a batch is empty");
      }
      if (frame.cursor.version < version || (frame.cursor.snapshot === undefined) !== (snapshot === undefined)) {
        found.push(`the cursor at ${frame.cursor.version} does not cover version ${version}`);
      }
      if (frame.complete) {
        found.push(...split(open, transactions, `the complete batch at ${version}`));
      }
      told = Math.max(told, frame.cursor.version);
    } else if (frame.kind === "checkpoint") {
      if (
        (frame.state === "SNAPSHOT") !== (snapshot !== undefined) ||
        (frame.progress === undefined) !== (snapshot === undefined)
      ) {
        found.push(`the checkpoint at ${frame.version} says ${frame.state}`);
      }
      if (frame.version < told || frame.cursor.version !== frame.version) {
        found.push(`the checkpoint at ${frame.version} is behind ${told}`);
      }
      told = frame.version;
      version = Math.max(version, frame.version);
      if (snapshot === undefined) {
        found.push(...split(open, transactions, `the checkpoint at ${frame.version}`));
        open = new Map();
      }
    }
  });
  return found;
}

/** Versions rise; but all rows of a snapshot have its version, and no event before them a later one. */
function misplaced(event: Event, last: number, snapshot: number | undefined): string[] {
  const isRow = event.operation === "SNAPSHOT";
  const fits = isRow
    ? event.version === snapshot
    : event.version > last && event.version <= (snapshot ?? event.version);
  return fits ? [] : [`version ${event.version} comes after ${last}, in a snapshot at ${snapshot}`];
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
