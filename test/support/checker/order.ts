import type { Complaint, Recording, SeenEvent } from "./seen.ts";
import { describeEvent, eventsOf, framesOf, identityOf } from "./seen.ts";

/**
 * G3: versions strictly rise; in a stream that selects everything they are dense, but for the events within a snapshot, which
 * concern only what was delivered of it.
 */
export function checkOrder(recording: Recording, options: { readonly dense: boolean }): readonly Complaint[] {
  const complaints: Complaint[] = [];
  const say = (text: string) => complaints.push({ guarantee: "G3", client: recording.client, text });
  const opened = recording.calls[0]?.frames.find((frame) => frame.kind === "opened");
  if (opened === undefined) {
    say("the first call was never opened");
    return complaints;
  }
  let last = opened.version;
  let inSnapshot = false;
  for (const frame of framesOf(recording)) {
    if (frame.kind === "snapshot_started") inSnapshot = true;
    if (frame.kind === "snapshot_complete") {
      inSnapshot = false;
      last = Math.max(last, frame.version);
    }
    for (const event of frame.kind === "events" ? frame.events : []) {
      if (event.operation === "SNAPSHOT") continue;
      if (event.version === last) say(`${describeEvent(event)} repeats version ${last}`);
      else if (event.version < last) say(`${describeEvent(event)} came after version ${last}`);
      else if (options.dense && !inSnapshot && event.version !== last + 1) {
        say(`${describeEvent(event)} follows version ${last}: ${event.version - last - 1} missing between`);
      }
      last = Math.max(last, event.version);
    }
  }
  return complaints;
}

/** Where the events of a story begin: after its first complete snapshot if it began with one, else where it was opened. */
export function startOf(recording: Recording): number | undefined {
  let start: number | undefined;
  for (const call of recording.calls) {
    for (const frame of call.frames) {
      if (frame.kind === "opened") start ??= frame.version;
      if (frame.kind === "snapshot_started") start = frame.version;
      if (frame.kind === "snapshot_complete") return frame.version;
    }
  }
  return start;
}

/** Versions as clients saw them, so that every later sight of one can be compared: G3 across clients, G6 across time. */
export class VersionBook {
  readonly #seen = new Map<number, { readonly identity: string; readonly client: string }>();

  /** Notes every event of a story and complains of those that differ from what somebody saw at their version. */
  note(recording: Recording, guarantee: "G3" | "G6"): readonly Complaint[] {
    return eventsOf(recording).flatMap((event) => this.#noteEvent(recording.client, event, guarantee));
  }

  #noteEvent(client: string, event: SeenEvent, guarantee: "G3" | "G6"): readonly Complaint[] {
    const identity = identityOf(event);
    const known = this.#seen.get(event.version);
    if (known === undefined) {
      this.#seen.set(event.version, { identity, client });
      return [];
    }
    if (known.identity === identity) return [];
    const text = `version ${event.version} differs from what ${known.client} saw:\n  ${known.identity}\n  ${identity}`;
    return [{ guarantee, client, text }];
  }
}
