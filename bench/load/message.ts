import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type EventSchema, Operation } from "../../gen/millrace/v1/event_pb.js";
import { type SubscribeResponse, SubscribeResponseSchema } from "../../gen/millrace/v1/feed_service_pb.js";

const payloadBytes = 250;

/** JSON of 250 bytes that begins with when it was due, for the sink to read. */
export function payload(stampNs: bigint): string {
  const head = `{"at":"${String(stampNs).padStart(19, "0")}","text":"`;
  return `${head.padEnd(payloadBytes - 2, "x")}"}`;
}

/** What the baselines send: the messages of Millrace, so that all of them carry the same. */
export function openedMessage(): SubscribeResponse {
  return create(SubscribeResponseSchema, { frame: { case: "opened", value: { epoch: "bench" } } });
}

export function eventsMessage(firstVersion: number, count: number, stampNs: bigint): SubscribeResponse {
  const json = payload(stampNs);
  const events = Array.from(
    { length: count },
    (_, i): MessageInitShape<typeof EventSchema> => ({
      version: BigInt(firstVersion + i),
      topic: "bench",
      key: "k",
      operation: Operation.MESSAGE,
      after: { form: { case: "json", value: json } },
      transaction: "1",
      occurredAt: { seconds: 1_700_000_000n, nanos: 0 },
    }),
  );
  return create(SubscribeResponseSchema, { frame: { case: "events", value: { events, cursor: "x".repeat(40) } } });
}

/** With gRPC's envelope before it. */
export function enveloped(message: SubscribeResponse): Buffer {
  const body = toBinary(SubscribeResponseSchema, message);
  const out = Buffer.allocUnsafeSlow(5 + body.length);
  out[0] = 0;
  out.writeUInt32BE(body.length, 1);
  out.set(body, 5);
  return out;
}
