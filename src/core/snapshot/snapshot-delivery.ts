import type { Event } from "../event.ts";
import type { SnapshotProgress } from "../frame.ts";
import { Batch, type ScanOptions } from "../stream/scan.ts";
import { type SnapshotStarted, type SnapshotState, type SnapshotStep, stateAfter } from "./snapshot-run.ts";

/** Characters that one UTF-16 unit of a key takes in a cursor, at most: three bytes, four thirds of that in base64. */
const CURSOR_SHARE = 4;

/** The steps of one snapshot on their way into frames. It holds one step at a time. */
export class SnapshotDelivery {
  readonly #scan: ScanOptions;
  #state: SnapshotState;
  #step: SnapshotStep;
  #estimatedRows: number | undefined;
  #next = 0;
  #maxBytes: number;
  #pulling = false;
  #complete = false;

  constructor(started: SnapshotStarted, scan: ScanOptions) {
    this.#scan = scan;
    this.#maxBytes = scan.maxBatchBytes;
    this.#state = started.state;
    this.#step = started;
    this.#estimatedRows = started.estimatedRows;
  }

  /** How far the frames have come. */
  get state(): SnapshotState {
    return this.#state;
  }

  get progress(): SnapshotProgress {
    const { rows } = this.#state;
    const estimated = this.#estimatedRows;
    return { rows, estimatedRows: estimated === undefined ? undefined : Math.max(estimated, rows) };
  }

  /** Everything is delivered. */
  get complete(): boolean {
    return this.#complete;
  }

  /** Once for each step that is needed: whoever is told gets it. */
  pull(): boolean {
    const pulls = !this.#pulling;
    this.#pulling = true;
    return pulls;
  }

  /** `undefined` says that there are no more. */
  supply(step: SnapshotStep | undefined): void {
    this.#pulling = false;
    if (step === undefined) {
      this.#complete = true;
      return;
    }
    this.#step = step;
    this.#next = 0;
    if (step.kind === "started") {
      this.#estimatedRows = step.estimatedRows;
      this.#state = step.state;
    } else {
      // The cursor of a frame holds a key, beside the events that were measured.
      this.#maxBytes = this.#scan.maxBatchBytes - CURSOR_SHARE * longestKey(step);
    }
  }

  /** Whether some of the step's events are not delivered. */
  get holdsEvents(): boolean {
    return this.#step.kind !== "started" && this.#next < this.#step.events.length;
  }

  /** The events of the next frame, of so many at most; `undefined` when the step is delivered. */
  take(maxEvents: number): readonly Event[] | undefined {
    const events = this.#step.kind === "started" ? [] : this.#step.events;
    const batch = new Batch(this.#maxBytes, Math.min(maxEvents, this.#scan.maxBatchEvents));
    for (; this.#next < events.length; this.#next++) {
      const event = events[this.#next];
      if (event !== undefined && !batch.add(event, this.#scan.measure(event))) {
        break;
      }
    }
    this.#state = stateAfter(this.#step, this.#state, this.#next);
    return batch.empty ? undefined : batch.events;
  }
}

function longestKey({ events, state }: Exclude<SnapshotStep, SnapshotStarted>): number {
  let longest = state.place === "anew" ? 0 : (state.place.key?.length ?? 0);
  for (const { key } of events) {
    longest = Math.max(longest, key?.length ?? 0);
  }
  return longest;
}
