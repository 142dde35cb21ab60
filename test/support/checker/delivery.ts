import type { Change, Ledger } from "./ledger.ts";
import { nameOfChange } from "./ledger.ts";
import type { Complaint, Recording, SeenEvent } from "./seen.ts";
import { describeEvent, eventsOf } from "./seen.ts";
import { nameOfEvent } from "./stamp.ts";

interface Expected {
  readonly change: Change;
  readonly xid: string;
  seen: number;
}

/**
 * G1 and G2 for a story that holds everything since the first version: each committed change came exactly once, under the
 * transaction that made it; nothing else came.
 */
export function checkDelivery(recording: Recording, ledger: Ledger): readonly Complaint[] {
  const complaints: Complaint[] = [];
  const expected = expectedChanges(ledger);
  const say = (guarantee: Complaint["guarantee"], text: string) =>
    complaints.push({ guarantee, client: recording.client, text });
  for (const event of eventsOf(recording)) {
    const wanted = expected.get(nameOfEvent(event) ?? "");
    if (wanted === undefined || wanted.xid !== event.transaction) {
      say("G2", strangerText(event, ledger, wanted));
      continue;
    }
    wanted.seen += 1;
    if (wanted.seen === 2) say("G3", `${describeEvent(event)} is ${nameOfEvent(event)} once more`);
  }
  for (const [name, { seen, xid }] of expected) {
    if (seen === 0) say("G1", `${name} of committed transaction ${xid} never came`);
  }
  return complaints;
}

function strangerText(event: SeenEvent, ledger: Ledger, wanted: Expected | undefined): string {
  const stamp = nameOfEvent(event) ?? "without a stamp";
  if (ledger.rolledBack.has(event.transaction))
    return `${describeEvent(event)}: its transaction rolled back (${stamp})`;
  if (wanted !== undefined) return `${describeEvent(event)} belongs to transaction ${wanted.xid} (${stamp})`;
  return `${describeEvent(event)}: no committed transaction made it (${stamp})`;
}

function expectedChanges(ledger: Ledger): Map<string, Expected> {
  const expected = new Map<string, Expected>();
  for (const { xid, changes } of ledger.committed) {
    for (const change of changes) {
      const name = nameOfChange(change);
      if (expected.has(name)) throw new Error(`The ledger itself is wrong: ${name} committed twice.`);
      expected.set(name, { change, xid, seen: 0 });
    }
  }
  return expected;
}
