import { HIDDEN_TOPIC, type Version } from "../event.ts";
import { type FeedLimits, tooManyLanes } from "../feed/feed-limits.ts";
import type { Page } from "../page.ts";
import type { AlarmClock } from "../stream/alarm-clock.ts";
import { Lane, type LaneMeans, type LaneTerms, type LaneView, laneIdentity } from "./lane.ts";
import { LaneBudget } from "./lane-budget.ts";
import { LaneIndex, type Shelf } from "./lane-index.ts";

/** What lanes may take. */
export type LaneLimits = Pick<FeedLimits, "maxLanes" | "maxLaneBytes" | "maxLanesBytes">;

interface Held {
  readonly lane: Lane;
  streams: number;
}

/** The lanes of a feed, and which of them an event may concern. */
export class LaneTable {
  readonly #view: LaneView;
  readonly #limits: LaneLimits;
  readonly #means: LaneMeans;
  readonly #lanes = new Map<string, Held>();
  readonly #index = new LaneIndex();
  #touches = 0;

  constructor(view: LaneView, limits: LaneLimits, alarms: AlarmClock) {
    this.#view = view;
    this.#limits = limits;
    const { maxLaneBytes, maxLanesBytes } = limits;
    this.#means = { maxLaneBytes, budget: new LaneBudget(maxLanesBytes), alarms };
  }

  get size(): number {
    return this.#lanes.size;
  }

  /** Bytes that all of them remember. */
  get bytes(): number {
    return this.#means.budget.bytes;
  }

  /** How often an event was shown to a lane, so far. */
  get touches(): number {
    return this.#touches;
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
    const { maxLanes } = this.#limits;
    if (this.#lanes.size >= maxLanes) {
      throw tooManyLanes(maxLanes);
    }
    const lane = new Lane(terms, this.#view, this.#means);
    this.#lanes.set(identity, { lane, streams: 1 });
    this.#index.add(lane);
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
      this.#index.delete(lane);
      lane.close();
    }
  }

  /**
   * Shows a page that the log has just got to the lanes that may want something of it. Each event is shown to all of them
   * before the next, and all events before anybody is woken: who is woken may do anything.
   */
  dispatch(page: Page, nowMs: number): void {
    if (this.#lanes.size === 0) {
      return;
    }
    const before: Version = page.firstVersion - 1;
    const touched: Lane[] = [];
    let topic: string | undefined;
    let shelves: readonly Shelf[] = [];
    for (const event of page.events) {
      if (event.topic !== topic) {
        topic = event.topic;
        shelves = topic === HIDDEN_TOPIC ? [] : this.#index.shelvesOf(topic);
      }
      for (const shelf of shelves) {
        this.#touches += shelf.offer(event, touched);
      }
    }
    for (const lane of touched) {
      lane.settle(before, nowMs);
    }
    this.#means.budget.enforce();
  }
}
