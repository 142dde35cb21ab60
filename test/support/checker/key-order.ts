import type { Ledger } from "./ledger.ts";
import { nameOfChange } from "./ledger.ts";
import type { Complaint, Recording, SeenEvent } from "./seen.ts";
import { describeEvent, eventsOf } from "./seen.ts";
import { nameOfEvent, stampBefore, stampOf } from "./stamp.ts";

/**
 * G4 for a story that holds everything since the first version: per key, counters run without jumps within a life, lives
 * follow one another as their writers saw it, each before-image is the previous after-image to the byte, and the last
 * image is the table's row.
 */
export function checkKeyOrder(recording: Recording, ledger: Ledger): readonly Complaint[] {
  const complaints: Complaint[] = [];
  const say = (text: string) => complaints.push({ guarantee: "G4", client: recording.client, text });
  const predecessors = livesBefore(ledger);
  const keys = new Map<string, SeenEvent[]>();
  for (const event of eventsOf(recording)) {
    if (event.operation === "MESSAGE") continue;
    const place = `${event.topic}/${event.key ?? ""}`;
    const chain = keys.get(place);
    if (chain === undefined) keys.set(place, [event]);
    else chain.push(event);
  }
  for (const chain of keys.values()) {
    let last: SeenEvent | undefined;
    for (const event of chain) {
      const fault = faultAfter(last, event, predecessors);
      if (fault !== undefined) say(`${describeEvent(event)} ${fault}`);
      last = event;
    }
  }
  checkLastImages(keys, ledger, say);
  checkWriterOrder(recording, ledger, say);
  return complaints;
}

/** What is wrong with `event` as the successor of `last` at its key. */
function faultAfter(
  last: SeenEvent | undefined,
  event: SeenEvent,
  predecessors: ReadonlyMap<string, string | undefined>,
): string | undefined {
  const own = stampOf(event);
  if (own === undefined) return "bears no stamp";
  const gone = last === undefined || last.operation === "DELETE";
  if (event.operation === "INSERT") {
    if (!gone) return `but the row was there: ${describeEvent(last)}`;
    if (own.counter !== 1) return `begins life ${own.life} at ${own.counter}`;
    const previous = last === undefined ? undefined : stampOf(last)?.life;
    const wanted = predecessors.get(`${event.topic}/${event.key ?? ""} ${own.life}`);
    return wanted === previous ? undefined : `begins a life after ${wanted}, but ${previous} was the last to end`;
  }
  if (gone) return `but there was no row: ${last === undefined ? "nothing yet" : describeEvent(last)}`;
  if (event.before !== last.after) return `changes\n  ${event.before}\nbut the row was\n  ${last.after}`;
  const step = event.operation === "UPDATE" ? 1 : 0;
  const before = stampBefore(event);
  if (before === undefined || own.life !== before.life || own.counter !== before.counter + step) {
    return `goes from ${before?.life}#${before?.counter} to ${own.life}#${own.counter}`;
  }
  return undefined;
}

function checkLastImages(
  keys: ReadonlyMap<string, readonly SeenEvent[]>,
  ledger: Ledger,
  say: (text: string) => void,
): void {
  for (const [topic, rows] of ledger.tables) {
    for (const [key, row] of rows) {
      const last = keys.get(`${topic}/${key}`)?.at(-1)?.after;
      if (!sameJson(last, row)) say(`the last image of ${topic}/${key} is ${last}, the table has ${row}`);
    }
  }
  for (const [place, chain] of keys) {
    const [topic = "", key = ""] = place.split("/");
    const last = chain.at(-1);
    if (last?.after !== undefined && ledger.tables.get(topic)?.has(key) !== true) {
      say(`the last image of ${place} is ${last.after}, the table has no such row`);
    }
  }
}

/**
 * A writer's one-phase transactions follow one another, so their events do; and the events of one transaction come in the
 * order of its statements.
 */
function checkWriterOrder(recording: Recording, ledger: Ledger, say: (text: string) => void): void {
  const place = new Map<string, number>();
  for (const event of eventsOf(recording)) place.set(`${event.transaction} ${nameOfEvent(event)}`, event.version);
  const lastOfWriter = new Map<number, number>();
  const inOrder = [...ledger.committed].sort((a, b) => a.writer - b.writer || a.number - b.number);
  for (const { writer, number, xid, changes, prepared } of inOrder) {
    let last = prepared ? 0 : (lastOfWriter.get(writer) ?? 0);
    for (const change of changes) {
      const version = place.get(`${xid} ${nameOfChange(change)}`);
      if (version === undefined) continue;
      if (version < last)
        say(`writer ${writer}, transaction ${number}: ${nameOfChange(change)} at v${version} after v${last}`);
      last = Math.max(last, version);
    }
    if (!prepared) lastOfWriter.set(writer, last);
  }
}

function livesBefore(ledger: Ledger): ReadonlyMap<string, string | undefined> {
  const lives = new Map<string, string | undefined>();
  for (const { changes } of ledger.committed) {
    for (const change of changes) {
      if (change.operation === "INSERT") {
        lives.set(`${change.topic}/${change.key} ${change.life}`, change.previousLife);
      }
    }
  }
  return lives;
}

/** The same values under the same names, however the text is spaced. */
export function sameJson(a: string | undefined, b: string | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return canonical(JSON.parse(a)) === canonical(JSON.parse(b));
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}
