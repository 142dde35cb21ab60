import type { Version } from "../event.ts";
import type { AlarmClock, Sleeper } from "../stream/alarm-clock.ts";
import type { BatchLimits } from "./lane.ts";
import type { LaneTrail } from "./lane-trail.ts";

/**
 * Holds a lane's newest events back until there are enough for a frame, or the first of them has waited long enough. For all
 * streams of the lane alike, so that they take the same frames. Checkpoints do not wait: they are about what was delivered.
 */
export class LaneHold implements Sleeper {
  ringsAtMs = Number.POSITIVE_INFINITY;
  ringsAs = -1;
  readonly #batch: BatchLimits;
  readonly #alarms: AlarmClock;
  readonly #onRelease: () => void;
  #from: Version | undefined;
  #untilMs = 0;
  #released: Version = 0;

  /** `onRelease` is called when time releases them. */
  constructor(batch: BatchLimits, alarms: AlarmClock, onRelease: () => void) {
    this.#batch = batch;
    this.#alarms = alarms;
    this.#onRelease = onRelease;
  }

  /** The first event that waits. */
  get from(): Version | undefined {
    return this.#from;
  }

  /** The trail has got more, up to `head`: whether that is to wait. */
  hold(trail: LaneTrail, head: Version, nowMs: number): boolean {
    const { maxBytes, maxEvents, maxDelayMs = 0 } = this.#batch;
    if (maxDelayMs <= 0) {
      return false;
    }
    const first = trail.indexAfter(this.#released);
    if (first === trail.end || (this.#from !== undefined && trail.from >= this.#from)) {
      // Some of what waits is forgotten, or all of it before it could wait: whoever was woken before this lane may have had
      // lanes forget. It is not known any more how much there is.
      this.release(head);
      return false;
    }
    if (this.#from === undefined) {
      this.#from = trail.versionAt(first);
      this.#untilMs = nowMs + maxDelayMs;
      this.#alarms.setFor(this, this.#untilMs);
    }
    let bytes = 0;
    for (let at = first; at < trail.end; at++) {
      bytes += trail.sizeAt(at);
      if (bytes >= maxBytes || at - first + 1 >= maxEvents) {
        this.release(head);
        return false;
      }
    }
    return true;
  }

  /** Nothing up to the head waits any more. */
  release(head: Version): void {
    this.#released = head;
    this.#from = undefined;
    this.#alarms.stop(this);
  }

  ring(nowMs: number): void {
    if (this.#from === undefined) {
      return;
    }
    if (nowMs < this.#untilMs) {
      this.#alarms.setFor(this, this.#untilMs);
    } else {
      this.#onRelease();
    }
  }
}
