import { startOf } from "./order.ts";
import type { Complaint, Recording, SeenCall } from "./seen.ts";
import { eventsAfterSnapshot, eventsOf, identityOf } from "./seen.ts";

/**
 * G8: every call but the first was opened with the last cursor of the one before, begins at that place, and the calls
 * strung together are what a client that was never cut saw (`reference`, which must reach as far).
 */
export function checkResume(
  recording: Recording,
  reference: Recording,
  selects: (topic: string) => boolean = () => true,
): readonly Complaint[] {
  const complaints: Complaint[] = [];
  const say = (text: string) => complaints.push({ guarantee: "G8", client: recording.client, text });
  recording.calls.forEach((call, index) => {
    const previous = recording.calls.slice(0, index).findLast((earlier) => lastCursor(earlier) !== undefined);
    if (previous !== undefined) checkHandOver(previous, call, index, say);
  });
  const start = startOf(recording) ?? 0;
  const got = eventsAfterSnapshot(recording);
  const end = got.at(-1)?.version ?? start;
  const wanted = eventsOf(reference).filter(
    (event) => event.version > start && event.version <= end && selects(event.topic),
  );
  const length = Math.max(got.length, wanted.length);
  for (let i = 0; i < length; i += 1) {
    const [here, there] = [got[i], wanted[i]];
    if (here !== undefined && there !== undefined && identityOf(here) === identityOf(there)) continue;
    say(`event ${i} is v${here?.version}, an uninterrupted stream has v${there?.version} there`);
    break;
  }
  return complaints;
}

function checkHandOver(previous: SeenCall, call: SeenCall, index: number, say: (text: string) => void): void {
  if (call.from !== lastCursor(previous)) say(`call ${index} was not opened with the last cursor received`);
  const opened = call.frames[0];
  if (opened === undefined) return;
  if (opened.kind !== "opened") {
    say(`call ${index} began with ${opened.kind}`);
    return;
  }
  const next = call.frames[1];
  // It begins elsewhere, and says so.
  if (next?.kind === "snapshot_started" && next.restart) return;
  const place = lastVersion(previous);
  if (place !== undefined && opened.version !== place) {
    say(`call ${index} resumed at v${opened.version}, the cursor was of v${place}`);
  }
}

/** The cursor of the last frame that carries one. */
export function lastCursor(call: SeenCall): string | undefined {
  return call.frames.map(({ cursor }) => cursor).findLast((cursor) => cursor !== "");
}

/** The version that the last cursor stands for; `undefined` where a snapshot was brought up to date, which only it knows. */
function lastVersion(call: SeenCall): number | undefined {
  const frame = call.frames.findLast((candidate) => candidate.kind !== "closing");
  if (frame === undefined || frame.kind === "snapshot_started" || frame.kind === "gap") return undefined;
  if (frame.kind !== "events") return frame.version;
  const last = frame.events.at(-1);
  const started = call.frames.findLastIndex(({ kind }) => kind === "snapshot_started");
  const inSnapshot = started > call.frames.findLastIndex(({ kind }) => kind === "snapshot_complete");
  return inSnapshot && last?.operation !== "SNAPSHOT" ? undefined : last?.version;
}
