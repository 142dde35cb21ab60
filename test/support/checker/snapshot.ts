import { sameJson } from "./key-order.ts";
import type { Ledger } from "./ledger.ts";
import type { Complaint, Recording, SeenEvent, SeenFrame } from "./seen.ts";
import { describeEvent, eventsAfterSnapshot, eventsOf, framesOf } from "./seen.ts";

type Rows = Map<string, string>;
type Say = (text: string) => void;

/**
 * G7: the rows of a snapshot with the events after it are the tables, each row and each change exactly once. A snapshot that
 * was cut may go on at a later version: then each event in between must change the very row that is held, so that an event
 * too many is seen at once and one too few by the next image. When it begins again, what came before is dropped. With
 * `reference`, a story from the first version on, the state when the snapshot is complete is also compared with what the
 * reference's events up to its version make, and messages must be the reference's, each once.
 */
export function checkSnapshot(recording: Recording, ledger: Ledger, reference?: Recording): readonly Complaint[] {
  const complaints: Complaint[] = [];
  const say = (text: string) => complaints.push({ guarantee: "G7", client: recording.client, text });
  const snapshot = takeSnapshot(recording, say);
  if (snapshot.complete === undefined) {
    say("no snapshot was completed");
    return complaints;
  }
  const { rows, complete, began } = snapshot;
  if (reference !== undefined) {
    const replayed: Rows = new Map();
    for (const event of eventsOf(reference)) if (event.version <= complete) apply(replayed, event, () => {});
    compare(rows, replayed, `at v${complete} the events make`, say);
    compareMessages(recording, reference, began, say);
  }
  for (const event of eventsAfterSnapshot(recording)) {
    if (event.version <= complete) say(`${describeEvent(event)} is in the snapshot at v${complete}`);
    apply(rows, event, say);
  }
  const tables: Rows = new Map();
  for (const [topic, ofTopic] of ledger.tables) for (const [key, row] of ofTopic) tables.set(`${topic}/${key}`, row);
  compare(rows, tables, "the tables have", say);
  return complaints;
}

/** What a client holds while a snapshot comes. */
class HeldSnapshot {
  rows: Rows = new Map();
  /** Version of the first rows: what came before is not this story's. */
  began = -1;
  /** Of the rows that come now; -1 before the first snapshot. */
  version = -1;
  /** What is held is as of this. */
  asOf = -1;
  /** Rows that came, since the last restart. */
  count = 0;
  complete: number | undefined;
}

function takeSnapshot(recording: Recording, say: Say): HeldSnapshot {
  const held = new HeldSnapshot();
  for (const frame of framesOf(recording)) {
    // Whoever is cut after this frame goes on as after any other.
    if (frame.kind === "opened" && held.asOf < 0) held.asOf = held.began = frame.version;
    if (frame.kind === "snapshot_started") start(held, frame, say);
    if (frame.kind === "events" && held.version >= 0) takeEvents(held, frame.events, say);
    if (frame.kind === "snapshot_complete") {
      if (frame.version !== held.version) say(`started at v${held.version}, completed at v${frame.version}`);
      if (frame.rows !== held.count) say(`the snapshot says ${frame.rows} rows, ${held.count} came`);
      held.complete = frame.version;
      return held;
    }
  }
  return held;
}

function start(held: HeldSnapshot, frame: SeenFrame & { kind: "snapshot_started" }, say: Say): void {
  const { version, restart, resumed } = frame;
  if (restart && resumed) say(`the snapshot at v${version} says both that it begins again and that it goes on`);
  if (resumed && held.asOf < 0) say(`the snapshot at v${version} goes on, and there was none before`);
  if (resumed && version < held.asOf)
    say(`what is held is as of v${held.asOf}, and the snapshot goes on at v${version}`);
  if (!resumed) {
    if (held.count > 0 && !restart) say("rows came, and the snapshot started again without saying so");
    held.rows = new Map();
    held.count = 0;
    held.asOf = version;
    held.began = version;
  }
  held.version = version;
}

function takeEvents(held: HeldSnapshot, events: readonly SeenEvent[], say: Say): void {
  const { rows, version } = held;
  for (const event of events) {
    if (event.operation !== "SNAPSHOT") {
      if (event.version <= held.asOf) say(`${describeEvent(event)} came when all that is held was as of v${held.asOf}`);
      if (event.version > version) say(`${describeEvent(event)} came before the rows of v${version}`);
      held.asOf = event.version;
      apply(rows, event, say);
      continue;
    }
    const place = `${event.topic}/${event.key ?? ""}`;
    if (event.version !== version) say(`${describeEvent(event)} is a row of the snapshot at v${version}`);
    if (rows.has(place)) say(`${describeEvent(event)}: the same row twice in one snapshot`);
    if (event.after === undefined) say(`${describeEvent(event)} has no image`);
    else rows.set(place, event.after);
    held.asOf = version;
    held.count += 1;
  }
}

function apply(rows: Rows, event: SeenEvent, say: Say): void {
  if (event.operation === "MESSAGE") return;
  if (event.operation === "TRUNCATE") {
    for (const place of rows.keys()) if (place.startsWith(`${event.topic}/`)) rows.delete(place);
    return;
  }
  const place = `${event.topic}/${event.key ?? ""}`;
  const row = rows.get(place);
  if (event.operation === "INSERT" ? row !== undefined : row === undefined || row !== event.before) {
    say(`${describeEvent(event)} changes ${event.before}, but the row was ${row}`);
  }
  if (event.after === undefined) rows.delete(place);
  else rows.set(place, event.after);
}

/** Messages belong to no table: a snapshot that goes on must deliver those in between, too. */
function compareMessages(recording: Recording, reference: Recording, began: number, say: Say): void {
  const messages = (of: Recording, last: number) =>
    eventsOf(of)
      .filter(({ operation, version }) => operation === "MESSAGE" && version > began && version <= last)
      .map(({ version }) => version);
  const last = eventsOf(recording).at(-1)?.version ?? began;
  const [got, wanted] = [messages(recording, last), messages(reference, last)];
  const differs = wanted.findIndex((version, at) => got[at] !== version);
  if (differs >= 0 || got.length !== wanted.length) {
    const at = differs < 0 ? wanted.length : differs;
    say(`message ${at} after v${began} is v${got[at]}, an uninterrupted stream has v${wanted[at]} there`);
  }
}

function compare(rows: Rows, wanted: Rows, whose: string, say: Say): void {
  for (const place of new Set([...rows.keys(), ...wanted.keys()])) {
    if (!sameJson(rows.get(place), wanted.get(place))) {
      say(`${place} is ${rows.get(place)}, ${whose} ${wanted.get(place)}`);
    }
  }
}
