import { FeedError } from "./errors.ts";
import type { Version } from "./event.ts";
import { Lane, type LaneTerms, type LaneView, laneIdentity } from "./lane.ts";
import type { Page } from "./page.ts";

/** What lanes may take. */
export interface LaneLimits {
  /** Different lanes at once. Beyond it: LIMIT_EXCEEDED. */
  readonly maxLanes: number;
  /** Bytes of frames that each lane remembers. */
  readonly maxLaneBytes: number;
}

interface Held {
  readonly lane: Lane;
  streams: number;
}

/** Topics whose lanes are remembered. */
const CACHED_TOPICS = 4_096;

/** The lanes of a feed, and which of them an event may concern. */
export class LaneTable {
  readonly #view: LaneView;
  readonly #limits: LaneLimits;
  readonly #lanes = new Map<string, Held>();
  readonly #byTopic = new Map<string, readonly Lane[]>();

  constructor(view: LaneView, limits: LaneLimits) {
    this.#view = view;
    this.#limits = limits;
  }

  get size(): number {
    return this.#lanes.size;
  }

  /** Bytes of frames that all of them remember. */
  get bytes(): number {
    let sum = 0;
    for (const { lane } of this.#lanes.values()) {
      sum += lane.bytes;
    }
    return sum;
  }

  /**
   * The lane of these terms, to be released by whoever got it.
   *
   * @throws FeedError LIMIT_EXCEEDED when it would be one too many
   */
  acquire(terms: LaneTerms): Lane {
    const identity = laneIdentity(terms);
    const held = this.#lanes.get(identity);
    if (held !== undefined) {
      held.streams += 1;
      return held.lane;
    }
    const { maxLanes, maxLaneBytes } = this.#limits;
    if (this.#lanes.size >= maxLanes) {
      throw new FeedError(
        "LIMIT_EXCEEDED",
        `This server delivers in ${maxLanes} different ways already, which is its limit (maxLanes).`,
        "Use selectors, payload forms and batch sizes that other streams use too, try another replica, or raise the limit.",
        { retryAfterMs: 1_000 },
      );
    }
    const lane = new Lane(terms, this.#view, maxLaneBytes);
    this.#lanes.set(identity, { lane, streams: 1 });
    this.#byTopic.clear();
    return lane;
  }

  release(lane: Lane): void {
    const held = this.#lanes.get(lane.identity);
    if (held?.lane !== lane) {
      return;
    }
    held.streams -= 1;
    if (held.streams === 0) {
      this.#lanes.delete(lane.identity);
      this.#byTopic.clear();
    }
  }

  /** Tells the lanes that may want something of a page that the log has just got. */
  dispatch(page: Page): void {
    if (this.#lanes.size === 0) {
      return;
    }
    const before: Version = page.firstVersion - 1;
    const touched = new Set<Lane>();
    let topic: string | undefined;
    for (const event of page.events) {
      if (event.topic !== topic) {
        topic = event.topic;
        for (const lane of this.#lanesOf(topic)) {
          touched.add(lane);
        }
      }
    }
    for (const lane of touched) {
      lane.touch(before);
    }
  }

  #lanesOf(topic: string): readonly Lane[] {
    const known = this.#byTopic.get(topic);
    if (known !== undefined) {
      return known;
    }
    if (this.#byTopic.size >= CACHED_TOPICS) {
      this.#byTopic.clear();
    }
    const found = [...this.#lanes.values()].map(({ lane }) => lane).filter((lane) => lane.matcher.wantsSource(topic));
    this.#byTopic.set(topic, found);
    return found;
  }
}
