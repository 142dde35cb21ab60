import { create } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { PayloadForm } from "../../gen/millrace/v1/event_pb.js";
import {
  type Delivery,
  DeliverySchema,
  NowSchema,
  OldestSchema,
  type Policy,
  PolicyKind,
  PolicySchema,
  SnapshotSchema,
  type SubscribeRequest,
  SubscribeRequestSchema,
} from "../../gen/millrace/v1/feed_service_pb.js";
import { SelectorSchema } from "../../gen/millrace/v1/selector_pb.js";
import { policyKinds } from "../rpc/delivery-terms.ts";
import { invalidRequest } from "../rpc/errors.ts";
import { operationNumbers } from "../rpc/event-fields.ts";
import { type Parameter, QueryReader } from "./query-reader.ts";
import { NDJSON, SSE, type TextForm } from "./text-form.ts";

/** What one request asks for. */
export interface EventsQuery {
  readonly form: TextForm;
  /** As the RPC would have it. Not validated. */
  readonly request: SubscribeRequest;
  /** The stream ends after so many; `undefined` for never. */
  readonly maxEvents: number | undefined;
  /** Whether `opened` and checkpoints are told. */
  readonly checkpoints: boolean;
  /** What a browser that was cut waits before it comes again; `undefined` when nobody said. */
  readonly retryMs: number | undefined;
  /** Bytes of comment before the first event. */
  readonly paddingBytes: number;
}

/** What a query is read from. */
export interface EventsQuerySource {
  readonly parameters: URLSearchParams;
  /** `Last-Event-ID`. */
  readonly lastEventId: string | undefined;
  readonly accept: string | undefined;
}

/** What a subscription says for itself. */
const ofSubscription: readonly Parameter[] = [
  ...(["topic", "key", "operation", "filter", "fields", "from", "epoch", "payload"] as const),
  ...(["policy", "max_lag", "rate", "heartbeat"] as const),
];
const MAX_PADDING_BYTES = 65_536;

/**
 * Reads the parameters of `/v1/events`.
 *
 * @throws FeedError INVALID_REQUEST with every parameter that is wrong: one that is ignored could be a selector
 */
export function readQuery(source: EventsQuerySource): EventsQuery {
  const reader = new QueryReader(source.parameters);
  const query = eventsQuery(reader, source);
  if (reader.violations.length > 0) {
    throw invalidRequest(reader.violations);
  }
  return query;
}

function eventsQuery(reader: QueryReader, { lastEventId, accept }: EventsQuerySource): EventsQuery {
  const subscription = reader.text("subscription");
  if (subscription !== undefined) {
    reader.refuse(ofSubscription, "must be left out: it is the subscription's own");
  } else {
    reader.refuse(["member"], "must be left out where there is no `subscription`");
  }
  const delivery = deliveryOf(reader);
  const request = create(SubscribeRequestSchema, {
    start:
      subscription === undefined
        ? startOf(reader, lastEventId)
        : { case: "subscriptionId" as const, value: subscription },
    selectors: subscription === undefined ? [selectorOf(reader)] : [],
    payloadForm: reader.one("payload", { json: PayloadForm.JSON, none: PayloadForm.NONE }) ?? PayloadForm.UNSPECIFIED,
    epoch: reader.text("epoch") ?? "",
    member: reader.text("member") ?? "",
    maxMessageBytes: reader.count("max_message_bytes", 4_096, 67_108_864) ?? 0,
    ...(delivery === undefined ? {} : { delivery }),
  });
  return {
    form: reader.one("format", { sse: SSE, ndjson: NDJSON }) ?? (wantsNdjson(accept) ? NDJSON : SSE),
    request,
    maxEvents: reader.count("max_events", 1, Number.MAX_SAFE_INTEGER),
    checkpoints: reader.one("checkpoints", { true: true, false: false }) ?? true,
    retryMs: reader.duration("retry", 0, 3_600_000),
    paddingBytes: reader.count("padding", 0, MAX_PADDING_BYTES) ?? 0,
  };
}

function selectorOf(reader: QueryReader) {
  return create(SelectorSchema, {
    topics: reader.list("topic"),
    // A key may hold a comma.
    keys: reader.all("key"),
    operations: reader.list("operation").flatMap((name) => reader.named("operation", name, operationNumbers) ?? []),
    filter: reader.text("filter") ?? "",
    fields: reader.list("fields"),
  });
}

/** A browser that comes back knows best where it was; whoever sent it there first only where it began. */
function startOf(reader: QueryReader, lastEventId: string | undefined): SubscribeRequest["start"] {
  const from = reader.text("from") ?? "now";
  const resumed = [lastEventId, reader.text("lastEventId")].find((id) => id !== undefined && id !== "");
  if (resumed !== undefined) {
    return { case: "afterCursor", value: resumed };
  }
  switch (from) {
    case "now":
      return { case: "now", value: create(NowSchema) };
    case "oldest":
      return { case: "oldest", value: create(OldestSchema) };
    case "snapshot":
      return { case: "snapshot", value: create(SnapshotSchema) };
    default:
      return position(reader, from);
  }
}

/** A version, a time, or else a cursor, which the feed alone can judge. */
function position(reader: QueryReader, from: string): SubscribeRequest["start"] {
  const version = /^(?:version:)?(\d{1,16})$/.exec(from)?.[1];
  if (version !== undefined) {
    return { case: "afterVersion", value: BigInt(version) };
  }
  // A `+` that was not escaped has become a space.
  const time = /^(?:time:)?(\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+ -]\d\d:\d\d))$/i.exec(from)?.[1]?.replace(" ", "+");
  if (time !== undefined) {
    const date = new Date(time);
    if (!Number.isNaN(date.getTime())) {
      return { case: "atTime", value: timestampFromDate(date) };
    }
    reader.violate("from", `must be a time such as 2026-01-31T08:30:00Z, and \`${from}\` is none`);
  }
  if (/[^\w-]/.test(from) || from === "") {
    reader.violate("from", "must be now, oldest, snapshot, a cursor, a version number or a time in RFC 3339");
  }
  return { case: "afterCursor", value: from };
}

function deliveryOf(reader: QueryReader): Delivery | undefined {
  const policy = policyOf(reader);
  const rate = reader.count("rate", 1, 2 ** 32 - 1);
  const heartbeatMs = reader.duration("heartbeat", 100, 300_000);
  if (policy === undefined && rate === undefined && heartbeatMs === undefined) {
    return undefined;
  }
  return create(DeliverySchema, {
    maxEventsPerSecond: rate ?? 0,
    ...(policy === undefined ? {} : { policy }),
    ...(heartbeatMs === undefined ? {} : { checkpointInterval: durationFromMs(heartbeatMs) }),
  });
}

function policyOf(reader: QueryReader): Policy | undefined {
  const text = reader.text("policy");
  const maxLag = reader.count("max_lag", 1, 1_000_000_000);
  if (text === undefined) {
    reader.refuse(["max_lag"], "means nothing without `policy`");
    return undefined;
  }
  const [, name = "", every] = /^([a-z-]+)(?::(\d{1,9}))?$/.exec(text.toLowerCase().replaceAll("_", "-")) ?? [];
  const kind = Object.hasOwn(policyKinds, name) ? policyKinds[name] : undefined;
  const sampleEvery = Number(every ?? 0);
  if (kind === undefined || (every !== undefined && (kind !== PolicyKind.SAMPLE || sampleEvery < 2))) {
    reader.violate(
      "policy",
      `must be one of ${Object.keys(policyKinds).join(", ")}; sample:N keeps one of N, at least 2`,
    );
    return undefined;
  }
  return create(PolicySchema, { kind, sampleEvery, maxLagEvents: BigInt(maxLag ?? 0) });
}

/** Whoever asks for lines gets lines; everybody else, browsers' address bars and curl among them, gets server-sent events. */
function wantsNdjson(accept: string | undefined): boolean {
  const lines = /\bapplication\/(?:x-ndjson|ndjson|jsonl|x-jsonlines|json)\b/i.exec(accept ?? "")?.index;
  const events = /\btext\/event-stream\b/i.exec(accept ?? "")?.index;
  return lines !== undefined && (events === undefined || lines < events);
}
