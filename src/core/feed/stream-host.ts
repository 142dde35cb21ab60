import type { FeedError } from "../errors.ts";
import type { OpenStream, StreamRequest } from "../feed.ts";
import type { History } from "../history/delivery-history.ts";
import type { Lane } from "../lane/lane.ts";
import { LaneTable } from "../lane/lane-table.ts";
import type { Page } from "../page.ts";
import type { PolicyKind } from "../policy/policy.ts";
import type { Clock, FeedStore, Timers } from "../ports.ts";
import type { Matcher } from "../selector/selector.ts";
import { AlarmClock } from "../stream/alarm-clock.ts";
import { type DeliveredSnapshot, Delivery, type DeliveryContext } from "../stream/delivery.ts";
import { DeliveryChange } from "../stream/delivery-change.ts";
import { RunQueue } from "../stream/run-queue.ts";
import { additionOf } from "../stream/selector-addition.ts";
import { SelectorChange } from "../stream/selector-change.ts";
import { SelectorChangeRun } from "../stream/selector-change-run.ts";
import type { ResolvedStart } from "../stream/start.ts";
import { type FeedView, Stream } from "../stream/stream.ts";
import { type RandomBytes, StreamDirectory } from "../stream/stream-directory.ts";
import type { StreamLife } from "../stream/stream-life.ts";
import { Parked, WakeSet } from "../wake-set.ts";
import { type FeedLimits, tooManyStreams, tooManyStreamsOfPeer } from "./feed-limits.ts";
import { DeliveryTotals, type FeedStats, NO_STATS } from "./feed-stats.ts";

/** What streams see of their feed. */
export interface HostView extends FeedView {
  /** What has made the feed unusable for streams; they end with it. */
  readonly failure: FeedError | undefined;
  /** Whether the feed has noticed that its epoch is over. */
  readonly over: boolean;
}

type SnapshotStore = Pick<FeedStore, "snapshot" | "readAfter" | "tickOf">;

/** What streams are driven with. */
export interface StreamHostOptions {
  /** What changes of selectors copy rows from. */
  readonly store: SnapshotStore;
  readonly history: History;
  readonly randomBytes: RandomBytes;
  readonly limits: FeedLimits;
  readonly clock: Clock;
  readonly timers: Timers;
}

/** What one stream is opened with, its start resolved. */
export interface StreamTerms {
  readonly request: StreamRequest;
  readonly matcher: Matcher;
  readonly start: ResolvedStart;
  /** Ends what its snapshot reads. */
  readonly ending: AbortController;
  readonly life: StreamLife;
}

/** The open streams of a feed, and all that they share. */
export class StreamHost implements DeliveryContext {
  readonly history: History;
  readonly queue: RunQueue;
  readonly alarms: AlarmClock;
  readonly clock: Clock;
  readonly timers: Timers;
  readonly totals = new DeliveryTotals();
  readonly everyAppend = new Parked();
  readonly directory: StreamDirectory<Delivery>;
  appendingAtMs: number | undefined;
  readonly #view: HostView;
  readonly #store: SnapshotStore;
  readonly #limits: FeedLimits;
  readonly #lanes: LaneTable;
  readonly #deliveries = new Set<Delivery>();
  readonly #peers = new Map<string, number>();
  readonly #left = new WakeSet();
  #size = 0;
  #dispatched = 0;

  constructor(view: HostView, { store, history, randomBytes, limits, clock, timers }: StreamHostOptions) {
    this.#view = view;
    this.#store = store;
    this.directory = new StreamDirectory(randomBytes);
    this.#limits = limits;
    this.history = history;
    this.clock = clock;
    this.timers = timers;
    this.queue = new RunQueue(clock, timers);
    this.alarms = new AlarmClock(clock, timers);
    this.#lanes = new LaneTable(view, limits, this.alarms);
  }

  get failure(): FeedError | undefined {
    return this.#view.failure;
  }

  get over(): boolean {
    return this.#view.over;
  }

  /** Streams that have entered and not left. */
  get size(): number {
    return this.#size;
  }

  /** Woken when a stream leaves. */
  get left(): WakeSet {
    return this.#left;
  }

  /**
   * Counts a stream, before anything is done for it; `leave` takes it back.
   *
   * @throws FeedError LIMIT_EXCEEDED
   */
  enter(peer: string | undefined): void {
    const { maxStreams, maxStreamsPerPeer } = this.#limits;
    if (this.#size >= maxStreams) {
      throw tooManyStreams(this.#limits);
    }
    if (peer !== undefined && maxStreamsPerPeer > 0) {
      const streams = this.#peers.get(peer) ?? 0;
      if (streams >= maxStreamsPerPeer) {
        throw tooManyStreamsOfPeer(this.#limits);
      }
      this.#peers.set(peer, streams + 1);
    }
    this.#size += 1;
  }

  leave(peer: string | undefined): void {
    const streams = peer === undefined ? undefined : this.#peers.get(peer);
    if (peer !== undefined && streams !== undefined) {
      if (streams > 1) {
        this.#peers.set(peer, streams - 1);
      } else {
        this.#peers.delete(peer);
      }
    }
    this.#size -= 1;
    this.#left.wakeAll();
  }

  /**
   * A stream that has entered begins, and leaves when it ends.
   *
   * @throws FeedError LIMIT_EXCEEDED; then it has not begun, and is still in
   */
  open({ request, matcher, start, ending, life }: StreamTerms): OpenStream {
    const { codec, maxBatchBytes, maxBatchEvents, maxBatchDelayMs } = request;
    const { policy, maxEventsPerSecond, checkpointIntervalMs, checkpointEveryTick } = request;
    const batch = {
      maxBytes: maxBatchBytes,
      maxEvents: maxBatchEvents ?? Number.POSITIVE_INFINITY,
      maxDelayMs: maxBatchDelayMs ?? 0,
    };
    const lane = this.#lanes.acquire({ matcher, codec, batch });
    const { position, thinned } = start;
    const options = { lane, life, policy, maxEventsPerSecond, checkpointIntervalMs, checkpointEveryTick, thinned };
    const streamId = this.directory.name();
    const stream = new Stream(position, this.#view, { ...options, streamId }, this.clock);
    let snapshot: DeliveredSnapshot | undefined;
    if (start.snapshot === undefined) {
      stream.begin();
    } else {
      const { run, started } = start.snapshot;
      snapshot = { run, ending };
      stream.beginSnapshot(started);
    }
    const delivery = new Delivery(this, {
      stream,
      snapshot,
      streamId,
      principal: request.principal ?? "",
      peer: request.peer,
      policy: policy?.kind ?? "BLOCK",
    });
    this.#deliveries.add(delivery);
    this.directory.add(delivery);
    this.totals.opened += 1;
    return {
      opened: delivery.first(),
      maxBytes: this.#limits.maxStreamBytes,
      attach(outlet) {
        delivery.attach(outlet);
        return delivery;
      },
      close: () => delivery.cancel(undefined),
    };
  }

  /**
   * Other selectors for a stream; answers the number of the change.
   *
   * @throws FeedError LIMIT_EXCEEDED; then nothing has changed
   */
  change(delivery: Delivery, matcher: Matcher): number {
    const { lane: before } = delivery;
    const lane = this.#lanes.acquire({ ...before.terms, matcher });
    const addition = additionOf(matcher, before.matcher);
    const number = delivery.nextChange();
    const { clock, timers } = this;
    const { log } = this.#view;
    const store = this.#store;
    delivery.change(
      new DeliveryChange({
        change: new SelectorChange({ number, lane, adds: addition !== undefined }),
        before,
        open: addition && ((signal) => new SelectorChangeRun({ store, log, matcher, addition, signal })),
        release: () => this.#lanes.release(lane),
        clock,
        timers,
      }),
    );
    return number;
  }

  changed(lane: Lane): void {
    this.#lanes.release(lane);
  }

  ended(delivery: Delivery): void {
    this.directory.delete(delivery);
    this.#deliveries.delete(delivery);
    this.#lanes.release(delivery.lane);
    this.leave(delivery.peer);
  }

  /** The log has got a page. Does not throw. */
  appended(page: Page): void {
    if (this.#deliveries.size === 0) {
      return;
    }
    this.#dispatched += page.events.length;
    this.appendingAtMs = this.clock.monotonic();
    this.#lanes.dispatch(page, this.appendingAtMs);
    this.everyAppend.wakeAll();
    this.appendingAtMs = undefined;
  }

  /** What streams see of the feed beside the log has changed. */
  wakeAll(): void {
    for (const delivery of this.#deliveries) {
      delivery.wake();
    }
  }

  /** What the feed adds to it: how far in time, and how history is read. */
  stats(): Omit<FeedStats, "lagMs" | "history"> {
    const streamsByPhase = { ...NO_STATS.streamsByPhase };
    const streamsByPolicy: Partial<Record<PolicyKind, number>> = {};
    const lagVersions: number[] = [];
    const head = this.#size === 0 ? 0 : this.#view.log.head;
    for (const delivery of this.#deliveries) {
      streamsByPhase[delivery.stream.phase] += 1;
      streamsByPolicy[delivery.policy] = (streamsByPolicy[delivery.policy] ?? 0) + 1;
      lagVersions.push(delivery.lagAt(head));
    }
    const { ended, ...totals } = this.totals;
    return {
      streamsByPhase,
      streamsByPolicy,
      lagVersions,
      lanes: this.#lanes.size,
      laneBytes: this.#lanes.bytes,
      ...totals,
      ended: { ...ended },
      dispatched: this.#dispatched,
      laneTouches: this.#lanes.touches,
    };
  }
}
