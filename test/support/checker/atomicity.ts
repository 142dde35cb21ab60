import type { Complaint, Recording, SeenEvent, SeenFrame } from "./seen.ts";
import { describeEvent, framesOf } from "./seen.ts";

/**
 * G5: all events of a transaction lie between two successive boundaries. A boundary is a checkpoint, a batch that says it
 * is complete, and the end of a snapshot; within one there is none, and its checkpoints say so by their state. A resumed
 * call is none: a cursor may point into a tick.
 */
export function checkAtomicity(recording: Recording): readonly Complaint[] {
  const complaints: Complaint[] = [];
  const say = (text: string) => complaints.push({ guarantee: "G5", client: recording.client, text });
  const segmentOf = new Map<string, { readonly segment: number; readonly event: SeenEvent }>();
  let segment = 0;
  let open = false;
  let inSnapshot = false;
  for (const frame of framesOf(recording)) {
    if (frame.kind === "snapshot_started") inSnapshot = true;
    if (frame.kind === "snapshot_complete") inSnapshot = false;
    if (frame.kind === "checkpoint" && (frame.state === "SNAPSHOT") !== inSnapshot)
      say(`the checkpoint at v${frame.version} says ${frame.state} ${inSnapshot ? "in" : "outside of"} a snapshot`);
    if (isBoundary(frame) && inSnapshot) say(`a ${frame.kind} frame in a snapshot says that it is a boundary`);
    if (frame.kind === "checkpoint" && isBoundary(frame) && open)
      say(`the checkpoint at v${frame.version} cuts a tick that is not complete`);
    if (frame.kind === "events") {
      for (const event of frame.events) {
        if (event.operation === "SNAPSHOT") continue;
        const first = segmentOf.get(event.transaction);
        if (first === undefined) segmentOf.set(event.transaction, { segment, event });
        else if (first.segment !== segment) {
          say(`${describeEvent(event)} lies behind a boundary that ${describeEvent(first.event)} lies before`);
        }
      }
      open = !frame.complete;
    }
    if (isBoundary(frame)) {
      segment += 1;
      open = false;
    }
  }
  return complaints;
}

function isBoundary(frame: SeenFrame): boolean {
  if (frame.kind === "checkpoint") return frame.state !== "SNAPSHOT";
  return frame.kind === "snapshot_complete" || (frame.kind === "events" && frame.complete);
}

/**
 * What a checkpoint promises: everything at or below its version was delivered, so that nothing at or below it comes later,
 * also when the stream selects little (G6 as seen inside one stream). Those of a snapshot promise nothing.
 */
export function checkCheckpoints(recording: Recording): readonly Complaint[] {
  const complaints: Complaint[] = [];
  const say = (text: string) => complaints.push({ guarantee: "G6", client: recording.client, text });
  let promised = -1;
  let delivered = -1;
  for (const frame of framesOf(recording)) {
    if (frame.kind === "checkpoint" && isBoundary(frame)) {
      if (frame.version < delivered) say(`the checkpoint at v${frame.version} came after event v${delivered}`);
      if (frame.version < promised) say(`the checkpoint at v${frame.version} came after the one at v${promised}`);
      promised = Math.max(promised, frame.version);
    }
    if (frame.kind !== "events") continue;
    for (const event of frame.events) {
      if (event.operation === "SNAPSHOT") continue;
      if (event.version <= promised) say(`${describeEvent(event)} came after the checkpoint at v${promised}`);
      delivered = Math.max(delivered, event.version);
    }
  }
  return complaints;
}
