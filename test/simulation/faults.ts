import type { Frame } from "../../src/core/frame.ts";
import { Lane } from "../../src/core/lane/lane.ts";
import { LaneMemory } from "../../src/core/lane/lane-memory.ts";
import { Log } from "../../src/core/log/log.ts";
import { Parked } from "../../src/core/wake-set.ts";
import type { FrameFilter } from "./client.ts";

/** Something wrong in the core, to see whether the checker sees it. */
export interface PlantedFault {
  readonly name: string;
  /** One of these is complained of. */
  readonly seenAs: readonly string[];
  /** `spoil` is for what streams say; everything else is put into the core's own classes until it is removed. */
  readonly plant: () => { readonly spoil: FrameFilter | undefined; readonly remove: () => void };
}

/** In what streams say. */
function said(name: string, seenAs: readonly string[], spoil: FrameFilter): PlantedFault {
  return { name, seenAs, plant: () => ({ spoil, remove: () => undefined }) };
}

/** In one method of the core. */
function done<T extends object, K extends keyof T>(
  name: string,
  seenAs: readonly string[],
  within: T,
  method: K,
  make: (original: T[K]) => T[K],
): PlantedFault {
  const plant = () => {
    const original = within[method];
    within[method] = make(original);
    const remove = () => {
      within[method] = original;
    };
    return { spoil: undefined, remove };
  };
  return { name, seenAs, plant };
}

function every(nth: number): () => boolean {
  let count = 0;
  return () => {
    count += 1;
    return count % nth === 0;
  };
}

const moved = (frame: Extract<Frame, { kind: "checkpoint" }>, by: number): Frame => {
  const version = Math.max(0, frame.version + by);
  return { ...frame, version, cursor: { ...frame.cursor, version } };
};

const atASeam: PlantedFault = {
  name: "an event is skipped where a stream meets the log again",
  seenAs: ["G8"],
  plant: () => {
    const logs = new Set<Log>();
    const { append } = Log.prototype;
    const { next } = Lane.prototype;
    Log.prototype.append = function (page) {
      logs.add(this);
      append.call(this, page);
    };
    Lane.prototype.next = function (progress, page) {
      const step = next.call(this, progress, page);
      const seam = step !== undefined && page !== undefined && [...logs].some((log) => log.oldest === step.scanned + 1);
      return seam ? { ...step, scanned: step.scanned + 1 } : step;
    };
    const remove = () => {
      Log.prototype.append = append;
      Lane.prototype.next = next;
    };
    return { spoil: undefined, remove };
  },
};

export const FAULTS: readonly PlantedFault[] = [
  atASeam,
  said("a gap is one short", ["G5", "G8", "G10"], (frame) => {
    return [frame.kind === "gap" ? { ...frame, lastVersion: frame.lastVersion - 1 } : frame];
  }),
  said("a gap counts one too few", ["G10"], (frame) => {
    return [frame.kind === "gap" && frame.dropped !== undefined ? { ...frame, dropped: frame.dropped - 1 } : frame];
  }),
  said("a checkpoint is of one version too early", ["G5"], (frame) => {
    return [frame.kind === "checkpoint" && frame.state !== "SNAPSHOT" ? moved(frame, -1) : frame];
  }),
  said("a checkpoint is of one version too late", ["G5", "G8", "G10"], (frame) => {
    return [frame.kind === "checkpoint" && frame.state !== "SNAPSHOT" ? moved(frame, 1) : frame];
  }),
  said("a lag is hidden", ["G10"], (frame) => {
    return [frame.kind === "checkpoint" && frame.lagVersions !== undefined ? { ...frame, lagVersions: 0 } : frame];
  }),
  said("nobody is told that the feed is stale", ["G10"], (frame) => {
    return frame.kind === "checkpoint" && frame.state === "STALE" ? [] : [frame];
  }),
  done("an event comes again behind the cut of a full batch", ["G3", "G8"], Lane.prototype, "next", (next) => {
    return function (this: Lane, progress, page) {
      const step = next.call(this, progress, page);
      const full = step?.frame?.events.length === this.terms.batch.maxEvents;
      return full && step !== undefined ? { ...step, scanned: step.scanned - 1, boundary: undefined } : step;
    };
  }),
  done("a lane hands out what it remembers of the position behind", ["G8"], LaneMemory.prototype, "get", (get) => {
    return function (this: LaneMemory, after) {
      return get.call(this, after) ?? get.call(this, after + 1);
    };
  }),
  done("a stream that waits is forgotten, and sleeps", ["G9", "G8", "G10"], Parked.prototype, "add", (add) => {
    const forgets = every(40);
    return function (this: Parked, waiter) {
      if (!forgets()) {
        add.call(this, waiter);
      }
    };
  }),
];
