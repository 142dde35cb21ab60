import { sameJson } from "./key-order.ts";
import type { Ledger } from "./ledger.ts";
import type { Complaint, Recording, SeenEvent } from "./seen.ts";
import { describeEvent, eventsOf } from "./seen.ts";

type Rows = Map<string, string>;

/**
 * G7: the rows of a snapshot with the events after it are the tables, each row and each change exactly once. Rows of a
 * snapshot that was cut are dropped when it starts again. With `reference`, a story from the first version on, the rows
 * are also compared with the state that its events up to the snapshot's version make.
 */
export function checkSnapshot(recording: Recording, ledger: Ledger, reference?: Recording): readonly Complaint[] {
  const complaints: Complaint[] = [];
  const say = (text: string) => complaints.push({ guarantee: "G7", client: recording.client, text });
  const snapshot = rowsOfSnapshot(recording, say);
  if (snapshot === undefined) {
    say("no snapshot was completed");
    return complaints;
  }
  if (reference !== undefined) {
    const replayed: Rows = new Map();
    for (const event of eventsOf(reference)) if (event.version <= snapshot.version) apply(replayed, event, () => {});
    compare(snapshot.rows, replayed, `at v${snapshot.version} the events make`, say);
  }
  for (const event of eventsOf(recording)) {
    if (event.version <= snapshot.version) say(`${describeEvent(event)} is in the snapshot at v${snapshot.version}`);
    apply(snapshot.rows, event, say);
  }
  const tables: Rows = new Map();
  for (const [topic, rows] of ledger.tables) for (const [key, row] of rows) tables.set(`${topic}/${key}`, row);
  compare(snapshot.rows, tables, "the tables have", say);
  return complaints;
}

function rowsOfSnapshot(
  recording: Recording,
  say: (text: string) => void,
): { readonly version: number; readonly rows: Rows } | undefined {
  let rows: Rows = new Map();
  let version = -1;
  let count = 0;
  for (const call of recording.calls) {
    for (const frame of call.frames) {
      if (frame.kind === "snapshot_started") {
        if (count > 0 && !frame.restart) say(`rows came, and the snapshot started again without saying so`);
        rows = new Map();
        count = 0;
        version = frame.version;
      }
      if (frame.kind === "events") count += takeRows(frame.events, version, rows, say);
      if (frame.kind === "snapshot_complete") {
        if (frame.version !== version) say(`started at v${version}, completed at v${frame.version}`);
        if (frame.rows !== count) say(`the snapshot says ${frame.rows} rows, ${count} came`);
        return { version, rows };
      }
    }
  }
  return undefined;
}

function takeRows(events: readonly SeenEvent[], version: number, rows: Rows, say: (text: string) => void): number {
  for (const event of events) {
    const place = `${event.topic}/${event.key ?? ""}`;
    if (event.operation !== "SNAPSHOT") say(`${describeEvent(event)} came amid the rows of a snapshot`);
    if (event.version !== version) say(`${describeEvent(event)} is a row of the snapshot at v${version}`);
    if (rows.has(place)) say(`${describeEvent(event)}: the same row twice in one snapshot`);
    if (event.after === undefined) say(`${describeEvent(event)} has no image`);
    else rows.set(place, event.after);
  }
  return events.length;
}

function apply(rows: Rows, event: SeenEvent, say: (text: string) => void): void {
  if (event.operation === "MESSAGE") return;
  const place = `${event.topic}/${event.key ?? ""}`;
  const row = rows.get(place);
  if (event.operation === "INSERT" ? row !== undefined : row === undefined || row !== event.before) {
    say(`${describeEvent(event)} changes ${event.before}, but the row was ${row}`);
  }
  if (event.after === undefined) rows.delete(place);
  else rows.set(place, event.after);
}

function compare(rows: Rows, wanted: Rows, whose: string, say: (text: string) => void): void {
  for (const place of new Set([...rows.keys(), ...wanted.keys()])) {
    if (!sameJson(rows.get(place), wanted.get(place))) {
      say(`${place} is ${rows.get(place)}, ${whose} ${wanted.get(place)}`);
    }
  }
}
