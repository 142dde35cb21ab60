import { durationMs } from "@bufbuild/protobuf/wkt";
import type { Event as WireEvent } from "../../../gen/millrace/v1/event_pb.js";
import { ClosingReason, StreamState, type SubscribeResponse } from "../../../gen/millrace/v1/feed_service_pb.js";
import { decodeCursor } from "../../core/cursor.ts";
import type { Event } from "../../core/event.ts";
import type * as core from "../../core/frame.ts";
import { operationFromWire, transitionFromWire } from "../event-fields.ts";

const encoder = new TextEncoder();

const states: Readonly<Partial<Record<StreamState, core.StreamState>>> = {
  [StreamState.CATCHING_UP]: "CATCHING_UP",
  [StreamState.LIVE]: "LIVE",
  [StreamState.STALE]: "STALE",
};

const reasons: Readonly<Partial<Record<ClosingReason, core.ClosingReason>>> = {
  [ClosingReason.DRAINING]: "DRAINING",
  [ClosingReason.DEADLINE]: "DEADLINE",
  [ClosingReason.MAX_AGE]: "MAX_AGE",
  [ClosingReason.TAKEN_OVER]: "TAKEN_OVER",
  [ClosingReason.PAUSED]: "PAUSED",
  [ClosingReason.MOVED]: "MOVED",
  [ClosingReason.DELETED]: "DELETED",
};

/** What another replica says to a member of a group; `undefined` for what it does not say to any. */
export function frameFromResponse({ frame }: SubscribeResponse): core.Frame | undefined {
  switch (frame.case) {
    case "opened": {
      const { epoch, version, cursor, headVersion, oldestVersion, lease } = frame.value;
      return {
        kind: "opened",
        epoch,
        version: Number(version),
        cursor: decodeCursor(cursor),
        head: Number(headVersion),
        oldest: Number(oldestVersion),
        streamId: "",
        lease: lease && {
          subscriptionId: lease.subscriptionId,
          generation: Number(lease.generation),
          member: lease.member,
          maxInFlight: lease.maxInFlight,
        },
      };
    }
    case "events": {
      const { events, cursor, complete } = frame.value;
      return { kind: "events", events: events.map(eventFromWire), cursor: decodeCursor(cursor), complete };
    }
    case "checkpoint": {
      const { cursor, version, state, lagVersions, lag } = frame.value;
      return {
        kind: "checkpoint",
        cursor: decodeCursor(cursor),
        version: Number(version),
        state: states[state] ?? "LIVE",
        lagVersions: lagVersions === undefined ? undefined : Number(lagVersions),
        lagMs: lag === undefined ? undefined : durationMs(lag),
        timeMicros: undefined,
        progress: undefined,
      };
    }
    case "closing": {
      const { reason, cursor, retryAfter } = frame.value;
      const retryAfterMs = retryAfter === undefined ? 0 : durationMs(retryAfter);
      return { kind: "closing", reason: reasons[reason] ?? "DRAINING", cursor: decodeCursor(cursor), retryAfterMs };
    }
    default:
      return undefined;
  }
}

function eventFromWire(event: WireEvent): Event {
  const { occurredAt, headers, transition, attempt } = event;
  const names = Object.keys(headers);
  const crossed = transitionFromWire(transition);
  return {
    version: Number(event.version),
    topic: event.topic,
    key: event.key,
    operation: operationFromWire(event.operation) ?? "MESSAGE",
    before: event.before === undefined ? undefined : encoder.encode(event.before.form.value),
    after: event.after === undefined ? undefined : encoder.encode(event.after.form.value),
    transaction: event.transaction,
    occurredAtMicros: occurredAt === undefined ? 0 : Number(occurredAt.seconds) * 1e6 + occurredAt.nanos / 1000,
    headers: names.length === 0 ? undefined : encoder.encode(JSON.stringify(headers)),
    ...(crossed === undefined ? {} : { transition: crossed }),
    ...(attempt === undefined || attempt === 0 ? {} : { attempt }),
  };
}
