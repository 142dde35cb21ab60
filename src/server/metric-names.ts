/** One metric as OpenTelemetry names it. Prometheus has `_` for the dots, and `_total` behind counters. */
export interface MetricDefinition {
  readonly kind: "gauge" | "counter" | "histogram";
  /** UCUM; in braces what is counted. */
  readonly unit: string;
  readonly description: string;
}

const gauge = (unit: string, description: string): MetricDefinition => ({ kind: "gauge", unit, description });
const counter = (unit: string, description: string): MetricDefinition => ({ kind: "counter", unit, description });

/** Every metric of a server. `docs/metrics.md` says what to make of each, and a test holds page, table and server together. */
export const metrics = {
  "millrace.feed.ready": gauge("", "1 while commits become versions, else 0: what /readyz says"),
  "millrace.feed.head": gauge("", "Last settled version"),
  "millrace.feed.oldest": gauge("", "Oldest version that the database keeps"),
  "millrace.tick.duration.seconds": {
    kind: "histogram",
    unit: "s",
    description: "Time that the database took for one tick, by whether it settled anything",
  },
  "millrace.tick.age.seconds": gauge(
    "s",
    "Time since the database last answered a tick; absent before its first answer",
  ),
  "millrace.event.age.seconds": gauge("s", "Time since the newest event was settled"),
  "millrace.database.errors": counter("", "Ticks that failed, by error code"),
  "millrace.restarts": counter("", "Parts that stood still and were restarted, by part"),
  "millrace.log.bytes": gauge("By", "Memory of the recent events"),
  "millrace.log.events": gauge("", "Recent events in memory"),
  "millrace.log.oldest": gauge("", "Oldest version in memory: streams behind it read the table"),
  "millrace.outbox.bytes": gauge("By", "Size of the outbox in the database, as of the last look"),
  "millrace.problems": gauge(
    "",
    "What is wrong beside the feed, by code: capture that is off or degraded, holds, storage",
  ),
  "millrace.streams": gauge("", "Open streams, by where they are in their life"),
  "millrace.streams.policy": gauge("", "Open streams, by policy"),
  "millrace.streams.http": gauge("", "Open streams of /v1/events, by format"),
  "millrace.subscriptions": gauge("", "Durable subscriptions in the database, by state, as of the last look"),
  "millrace.subscription.lag.versions": gauge(
    "",
    "Settled versions that the subscription farthest behind has yet to acknowledge, as of the last look",
  ),
  "millrace.subscription.dead.letters": gauge("", "Events that groups gave up, as of the last look"),
  "millrace.subscription.streams": gauge("", "Open streams of subscriptions without group"),
  "millrace.subscription.acknowledgements": counter(
    "",
    "Acknowledgements that are durable, of subscriptions without group",
  ),
  "millrace.subscription.redelivered": counter("", "Events that subscriptions without group were given again"),
  "millrace.subscription.fenced": counter(
    "",
    "What came too late: acknowledgements of an older generation, and streams that were taken over",
  ),
  "millrace.subscription.writes": counter("", "Writes that carried all that subscriptions without group had to say"),
  "millrace.groups": gauge("", "Groups that this server holds"),
  "millrace.groups.waiting": gauge("", "Of these, groups that give nothing new out, by the reason"),
  "millrace.group.members": gauge("", "Members of the groups that this server holds"),
  "millrace.group.in.flight": gauge("", "Events that these members have and have not acknowledged"),
  "millrace.group.acknowledged": counter("", "Events that members acknowledged"),
  "millrace.group.redelivered": counter("", "Events that were given to members again"),
  "millrace.group.dead.letters": counter("", "Events that groups gave up"),
  "millrace.group.fenced": counter("", "Acknowledgements of members that came too late"),
  "millrace.streams.opened": counter("", "Streams whose start was fixed"),
  "millrace.streams.ended": counter("", "Streams that ended, by how"),
  "millrace.stream.lag.versions": gauge(
    "",
    "Settled versions that streams have yet to pass, by quantile over open streams",
  ),
  "millrace.stream.lag.seconds": gauge(
    "s",
    "Age of the oldest version that streams have yet to pass, by quantile over open streams; +Inf when it is not in memory",
  ),
  "millrace.polls.waiting": gauge(
    "",
    "Polls that wait because there is nothing for them yet; each is an open stream too",
  ),
  "millrace.polls.answered": counter("", "Polls that were answered, by kind"),
  "millrace.lanes": gauge("", "Different ways of delivery: streams that want the same bytes share one"),
  "millrace.lanes.bytes": gauge(
    "By",
    "Memory of frames that are kept for streams that come later to the same position",
  ),
  "millrace.lanes.touched": counter("", "Times that an event was shown to a lane: the work of dispatch"),
  "millrace.events.dispatched": counter("", "Events that came in while there were streams"),
  "millrace.events.delivered": counter("", "Events handed to streams; one that two get counts twice"),
  "millrace.events.dropped": counter("", "Events that policies left out, as far as gaps could count them"),
  "millrace.frames.delivered": counter("", "Frames of all kinds handed to streams"),
  "millrace.sent.bytes": counter("By", "Bytes of messages written to clients, with their prefixes"),
  "millrace.filter.errors": counter("", "Filters that failed on an event, which counts as no match"),
  "millrace.catch.ups": counter("", "Times that a stream fell behind the memory and went on from the table"),
  "millrace.history.reads": counter("", "Pages that were read from the table for streams"),
  "millrace.history.shared": counter("", "Requests for pages that another's read answered"),
  "millrace.history.errors": counter("", "Reads of the table that failed"),
  "millrace.builder.events": counter("", "Times that a builder was run on an event, by what came of it"),
  "millrace.builder.seconds": counter("s", "Time that was spent in builders"),
  "millrace.history.waiting": gauge("", "Requests for pages that wait"),
  "millrace.history.bytes": gauge("By", "Memory of pages kept for other streams"),
} as const satisfies Readonly<Record<string, MetricDefinition>>;

/** The names in the table. */
export type MetricName = keyof typeof metrics;
