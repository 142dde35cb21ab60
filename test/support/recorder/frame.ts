import type { SeenEvent, SeenFrame } from "../checker/seen.ts";

/** A message as the proto loader decodes it: fields by their proto names, 64-bit numbers as numbers, enums as names. */
export type Decoded = Readonly<Record<string, unknown>>;

/** The frame that a decoded `SubscribeResponse` holds. */
export function seenFrame(message: Decoded): SeenFrame {
  const kind = String(message.frame);
  const body = asDecoded(message[kind]);
  const version = numberOf(body.version);
  const cursor = textOf(body.cursor);
  switch (kind) {
    case "opened":
      return { kind, epoch: textOf(body.epoch), version, cursor };
    case "events":
      return { kind, events: listOf(body.events).map(seenEvent), cursor, complete: body.complete === true };
    case "checkpoint":
      return { kind, version, cursor, state: textOf(body.state).replace("STREAM_STATE_", "") };
    case "gap":
      return {
        kind,
        firstVersion: numberOf(body.first_version),
        lastVersion: numberOf(body.last_version),
        dropped: typeof body.dropped === "number" ? body.dropped : undefined,
        reason: textOf(body.reason).replace("GAP_REASON_", ""),
        cursor,
      };
    case "snapshot_started":
      return { kind, version, restart: body.restart === true, resumed: body.resumed === true, cursor };
    case "snapshot_complete":
      return { kind, version, cursor, rows: numberOf(body.rows) };
    case "closing":
      return { kind, cursor };
    default:
      throw new Error(`No such frame: ${kind}`);
  }
}

function seenEvent(message: Decoded): SeenEvent {
  const time = asDecoded(message.occurred_at);
  const headers = asDecoded(message.headers);
  return {
    version: numberOf(message.version),
    topic: textOf(message.topic),
    key: typeof message.key === "string" ? message.key : undefined,
    operation: textOf(message.operation).replace("OPERATION_", ""),
    before: payloadOf(message.before),
    after: payloadOf(message.after),
    transaction: textOf(message.transaction),
    occurredAtMicros: numberOf(time.seconds) * 1e6 + Math.floor(numberOf(time.nanos) / 1000),
    headers: Object.keys(headers).length === 0 ? undefined : JSON.stringify(headers),
    transition: textOf(message.transition).replace("TRANSITION_", "") || undefined,
  };
}

function payloadOf(value: unknown): string | undefined {
  const json = asDecoded(value).json;
  return typeof json === "string" ? json : undefined;
}

function asDecoded(value: unknown): Decoded {
  return typeof value === "object" && value !== null ? (value as Decoded) : {};
}

function listOf(value: unknown): readonly Decoded[] {
  return Array.isArray(value) ? value.map(asDecoded) : [];
}

function numberOf(value: unknown): number {
  return typeof value === "number" ? value : 0;
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}
