/**
 * Where a stream is in its life. Its table of transitions is the whole truth about what may follow what; everything else
 * about a stream is data.
 */
export type StreamPhase = "opening" | "snapshot" | "catching_up" | "live" | "closing";

/** What moves a stream from one phase to another. */
export type StreamOccurrence =
  /** The start is fixed at a version. */
  | "positioned"
  /** The start is a snapshot, or a change of selectors adds rows, and its version is fixed. */
  | "snapshot_begun"
  /** All rows of the snapshot are delivered. */
  | "snapshot_done"
  /** The log no longer holds what comes next: a slow reader, or an old start. */
  | "fell_behind"
  /** The log holds what comes next, or will. */
  | "met_the_log"
  /** `closing` is the last frame. */
  | "closed";

const TRANSITIONS: Readonly<Record<StreamPhase, Readonly<Partial<Record<StreamOccurrence, StreamPhase>>>>> = {
  opening: { positioned: "live", snapshot_begun: "snapshot" },
  snapshot: { snapshot_done: "live", closed: "closing" },
  catching_up: { met_the_log: "live", snapshot_begun: "snapshot", closed: "closing" },
  live: { fell_behind: "catching_up", snapshot_begun: "snapshot", closed: "closing" },
  closing: {},
};

/** The phase that follows; the same when the occurrence means nothing in this phase. */
export function nextPhase(phase: StreamPhase, occurrence: StreamOccurrence): StreamPhase {
  return TRANSITIONS[phase][occurrence] ?? phase;
}
