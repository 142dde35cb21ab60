import type { ObservableResult } from "@opentelemetry/api";
import { PrometheusSerializer } from "@opentelemetry/exporter-prometheus";
import { resourceFromAttributes } from "@opentelemetry/resources";
import {
  AggregationTemporality,
  AggregationType,
  InstrumentType,
  MeterProvider,
  MetricReader,
} from "@opentelemetry/sdk-metrics";
import type { BuilderStats } from "../core/builder/built-store.ts";
import type { FeedErrorCode } from "../core/errors.ts";
import type { FeedStats } from "../core/feed/feed-stats.ts";
import type { Feed, FeedStatus } from "../core/feed.ts";
import type { Polls } from "../core/poll/polls.ts";
import type { Clock } from "../core/ports.ts";
import type { GroupStats } from "../core/subscription/group-consumers.ts";
import type { SubscriptionStats, Subscriptions } from "../core/subscription/subscriptions.ts";
import type { HttpStreams } from "../http-stream/http-streams.ts";
import type { RpcHandler } from "../rpc/handler.ts";
import type { Problem, StorageReport } from "../rpc/status.ts";
import { type MetricName, metrics } from "./metric-names.ts";
import type { ServedFeedObserver } from "./postgres-feed.ts";

/** What is measured. Everything answers from memory. */
export interface MetricsOptions {
  readonly feed: Pick<Feed, "status" | "stats">;
  readonly polls: Pick<Polls, "stats">;
  readonly subscriptions: Pick<Subscriptions, "stats" | "summary">;
  readonly httpStreams: Pick<HttpStreams, "counts">;
  readonly problems: () => readonly Problem[];
  readonly storage: () => StorageReport | undefined;
  /** Default: there are no builders. */
  readonly builders?: (() => BuilderStats | undefined) | undefined;
  /** What handed-off streams have sent. */
  readonly traffic: { readonly messages: number; readonly bytes: number };
  readonly clock: Clock;
  readonly serverVersion: string;
}

/** The metrics of one server. */
export interface Metrics {
  /** Told by the feed of each tick, and of what was restarted. */
  readonly observer: Required<ServedFeedObserver>;
  /** Answers with all of them in Prometheus' text format. */
  readonly page: RpcHandler;
  stop(): Promise<void>;
}

/** What is told of the distances of all streams, nearest first; 1 is the farthest. */
const QUANTILES = [0.5, 0.9, 0.99, 1] as const;
/** Seconds. A tick of an idle feed takes a third of a millisecond. */
const TICK_BUCKETS = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];

/** Instruments of one collection ask within this. */
const SAME_LOOK_MS = 100;

type Meter = ReturnType<MeterProvider["getMeter"]>;

/** OpenTelemetry's instruments over a feed, and the page that Prometheus scrapes. `docs/metrics.md` explains each. */
export function createMetrics(options: MetricsOptions): Metrics {
  const reader = new ScrapeReader();
  const provider = new MeterProvider({
    resource: resourceFromAttributes({ "service.name": "millrace", "service.version": options.serverVersion }),
    readers: [reader],
    views: [
      {
        instrumentName: "millrace.tick.duration.seconds",
        aggregation: { type: AggregationType.EXPLICIT_BUCKET_HISTOGRAM, options: { boundaries: TICK_BUCKETS } },
      },
    ],
  });
  const meter = provider.getMeter("millrace", options.serverVersion);
  observeFeed(meter, options);
  observeStreams(meter, options);
  observeSubscriptions(meter, options);
  const serializer = new PrometheusSerializer(undefined, false, undefined, false, true);
  return {
    observer: createObserver(meter),
    page(request, response) {
      if (request.method !== "GET") {
        response.statusCode = 405;
        response.setHeader("Allow", "GET");
        response.setHeader("Content-Type", "text/plain; charset=utf-8");
        response.end("Use GET.\n");
        return;
      }
      reader.collect().then(
        ({ resourceMetrics }) => {
          response.setHeader("Content-Type", "text/plain; version=0.0.4; charset=utf-8");
          response.setHeader("Cache-Control", "no-store");
          response.end(serializer.serialize(resourceMetrics));
        },
        (error: unknown) => {
          response.statusCode = 500;
          response.end(`The metrics could not be collected: ${String(error)}\n`);
        },
      );
    },
    stop: () => provider.shutdown(),
  };
}

/**
 * Collects when somebody scrapes. Cumulative but for gauges: of those a cumulative reader goes on telling what was observed
 * once and is not any more, such as a problem that is solved.
 */
class ScrapeReader extends MetricReader {
  constructor() {
    super({
      aggregationTemporalitySelector: (type) =>
        type === InstrumentType.OBSERVABLE_GAUGE ? AggregationTemporality.DELTA : AggregationTemporality.CUMULATIVE,
    });
  }

  protected async onForceFlush(): Promise<void> {}

  protected async onShutdown(): Promise<void> {}
}

function createObserver(meter: Meter): Required<ServedFeedObserver> {
  const { description, unit } = metrics["millrace.tick.duration.seconds"];
  const duration = meter.createHistogram("millrace.tick.duration.seconds", { description, unit });
  const errors = meter.createCounter("millrace.database.errors", {
    description: metrics["millrace.database.errors"].description,
  });
  const restarts = meter.createCounter("millrace.restarts", {
    description: metrics["millrace.restarts"].description,
  });
  const settled = { settled: true };
  const idle = { settled: false };
  return {
    advanced: (durationMs, events) => duration.record(durationMs / 1000, events > 0 ? settled : idle),
    failed: (code: FeedErrorCode) => errors.add(1, { code }),
    restarted: (part: string) => restarts.add(1, { part }),
  };
}

const ofStatus: readonly (readonly [MetricName, (status: FeedStatus) => number | undefined])[] = [
  ["millrace.feed.ready", ({ state }) => (state === "LIVE" ? 1 : 0)],
  ["millrace.feed.head", ({ head, state }) => (state === "STARTING" ? undefined : head)],
  ["millrace.feed.oldest", ({ oldest, state }) => (state === "STARTING" ? undefined : oldest)],
  ["millrace.tick.age.seconds", ({ settledAgeMs }) => (settledAgeMs === undefined ? undefined : settledAgeMs / 1000)],
  ["millrace.log.bytes", ({ logBytes }) => logBytes],
  ["millrace.log.events", ({ logEvents }) => logEvents],
  ["millrace.log.oldest", ({ logOldest, state }) => (state === "STARTING" ? undefined : logOldest)],
];

function observeFeed(meter: Meter, options: MetricsOptions): void {
  const { feed, problems, storage, clock } = options;
  for (const [name, read] of ofStatus) {
    observe(meter, name, (result) => tell(result, read(feed.status())));
  }
  observe(meter, "millrace.event.age.seconds", (result) => {
    const micros = feed.status().settledAtMicros;
    tell(result, micros === undefined ? undefined : Math.max(0, clock.now() / 1000 - micros / 1e6));
  });
  observe(meter, "millrace.outbox.bytes", (result) => tell(result, storage()?.bytes));
  observe(meter, "millrace.builder.events", (result) => {
    const stats = options.builders?.();
    if (stats === undefined) return;
    const { built, hidden, failed } = stats;
    tellEach(result, { built, hidden, failed }, "outcome");
  });
  observe(meter, "millrace.builder.seconds", (result) => {
    const ms = options.builders?.()?.ms;
    tell(result, ms === undefined ? undefined : ms / 1_000);
  });
  observe(meter, "millrace.problems", (result) => {
    const counts: Record<string, number> = {};
    for (const { code } of problems()) {
      counts[code] = (counts[code] ?? 0) + 1;
    }
    tellEach(result, counts, "code");
  });
}

const ofStats: readonly (readonly [MetricName, (stats: FeedStats) => number])[] = [
  ["millrace.streams.opened", ({ opened }) => opened],
  ["millrace.lanes", ({ lanes }) => lanes],
  ["millrace.lanes.bytes", ({ laneBytes }) => laneBytes],
  ["millrace.lanes.touched", ({ laneTouches }) => laneTouches],
  ["millrace.events.dispatched", ({ dispatched }) => dispatched],
  ["millrace.events.delivered", ({ events }) => events],
  ["millrace.events.dropped", ({ droppedEvents }) => droppedEvents],
  ["millrace.frames.delivered", ({ frames }) => frames],
  ["millrace.filter.errors", ({ filterErrors }) => filterErrors],
  ["millrace.catch.ups", ({ catchUps }) => catchUps],
  ["millrace.history.reads", ({ history }) => history.reads],
  ["millrace.history.shared", ({ history }) => history.shared],
  ["millrace.history.errors", ({ history }) => history.errors],
  ["millrace.history.waiting", ({ history }) => history.waiting],
  ["millrace.history.bytes", ({ history }) => history.cachedBytes],
];

function observeStreams(meter: Meter, options: MetricsOptions): void {
  const stats = statsOf(options);
  for (const [name, read] of ofStats) {
    observe(meter, name, (result) => tell(result, read(stats())));
  }
  observe(meter, "millrace.streams", (result) => tellEach(result, stats().streamsByPhase, "state"));
  observe(meter, "millrace.streams.policy", (result) => tellEach(result, stats().streamsByPolicy, "policy"));
  observe(meter, "millrace.streams.http", (result) => tellEach(result, options.httpStreams.counts(), "format"));
  observe(meter, "millrace.streams.ended", (result) => tellEach(result, stats().ended, "end"));
  observe(meter, "millrace.stream.lag.versions", (result) => tellQuantiles(result, stats().lagVersions));
  observe(meter, "millrace.stream.lag.seconds", (result) => {
    const seconds = stats().lagMs.map((ms) => (ms ?? Number.POSITIVE_INFINITY) / 1000);
    tellQuantiles(result, seconds);
  });
  observe(meter, "millrace.polls.waiting", (result) => tell(result, options.polls.stats().waiting));
  observe(meter, "millrace.polls.answered", (result) => tellEach(result, options.polls.stats().answered, "kind"));
  observe(meter, "millrace.sent.bytes", (result) => tell(result, options.traffic.bytes));
}

const ofSubscriptions: readonly (readonly [MetricName, (stats: SubscriptionStats) => number])[] = [
  ["millrace.subscription.streams", ({ streams }) => streams],
  ["millrace.subscription.acknowledgements", ({ acknowledgements }) => acknowledgements],
  ["millrace.subscription.redelivered", ({ redelivered }) => redelivered],
  ["millrace.subscription.fenced", ({ fenced }) => fenced],
  ["millrace.subscription.writes", ({ flushes }) => flushes],
];

const ofGroups: readonly (readonly [MetricName, (stats: GroupStats) => number])[] = [
  ["millrace.groups", ({ groups }) => groups],
  ["millrace.group.members", ({ members }) => members],
  ["millrace.group.in.flight", ({ inFlight }) => inFlight],
  ["millrace.group.acknowledged", ({ acknowledged }) => acknowledged],
  ["millrace.group.redelivered", ({ redelivered }) => redelivered],
  ["millrace.group.dead.letters", ({ deadLetters }) => deadLetters],
  ["millrace.group.fenced", ({ fenced }) => fenced],
];

function observeSubscriptions(meter: Meter, { subscriptions, feed }: MetricsOptions): void {
  for (const [name, read] of ofGroups) {
    observe(meter, name, (result) => {
      const { groups } = subscriptions.stats();
      tell(result, groups && read(groups));
    });
  }
  observe(meter, "millrace.groups.waiting", (result) => {
    const waiting = Object.entries(subscriptions.stats().groups?.waiting ?? {});
    tellEach(result, Object.fromEntries(waiting.map(([reason, count]) => [reason.toLowerCase(), count])), "reason");
  });
  for (const [name, read] of ofSubscriptions) {
    observe(meter, name, (result) => tell(result, read(subscriptions.stats())));
  }
  observe(meter, "millrace.subscriptions", (result) => {
    const summary = subscriptions.summary();
    if (summary !== undefined) {
      tellEach(result, { active: summary.active, paused: summary.paused, lost: summary.lostCount }, "state");
    }
  });
  observe(meter, "millrace.subscription.dead.letters", (result) => tell(result, subscriptions.summary()?.deadLetters));
  observe(meter, "millrace.subscription.lag.versions", (result) => {
    const oldest = subscriptions.summary()?.oldestVersion;
    tell(result, oldest === undefined ? undefined : Math.max(0, feed.status().head - oldest));
  });
}

/** Every instrument asks, and a look goes through all streams: one look answers them all. */
function statsOf({ feed, clock }: MetricsOptions): () => FeedStats {
  let last: { readonly stats: FeedStats; readonly atMs: number } | undefined;
  return () => {
    const nowMs = clock.monotonic();
    if (last === undefined || nowMs - last.atMs > SAME_LOOK_MS) {
      last = { stats: feed.stats(), atMs: nowMs };
    }
    return last.stats;
  };
}

function observe(meter: Meter, name: MetricName, callback: (result: ObservableResult) => void): void {
  const { kind, description, unit } = metrics[name];
  const instrument =
    kind === "counter"
      ? meter.createObservableCounter(name, { description, unit })
      : meter.createObservableGauge(name, { description, unit });
  instrument.addCallback(callback);
}

function tell(result: ObservableResult, value: number | undefined): void {
  if (value !== undefined) {
    result.observe(value);
  }
}

function tellEach(result: ObservableResult, values: Readonly<Record<string, number>>, attribute: string): void {
  for (const [value, count] of Object.entries(values)) {
    result.observe(count, { [attribute]: value });
  }
}

/** Of no streams nothing is told: there is no distance that is 0. */
function tellQuantiles(result: ObservableResult, values: readonly number[]): void {
  const sorted = values.toSorted((a, b) => a - b);
  for (const quantile of QUANTILES) {
    const value = sorted[Math.max(0, Math.ceil(sorted.length * quantile) - 1)];
    if (value !== undefined) {
      result.observe(value, { quantile: String(quantile) });
    }
  }
}
