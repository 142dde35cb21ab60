import { fromBinary } from "@bufbuild/protobuf";
import { base64Decode } from "@bufbuild/protobuf/wire";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ErrorCode, ErrorDetailSchema } from "../../../gen/millrace/v1/error_pb.js";
import { Operation } from "../../../gen/millrace/v1/event_pb.js";
import { FeedService } from "../../../gen/millrace/v1/feed_service_pb.js";
import { createScriptedFeed } from "./scripted-feed.ts";
import { type Served, serve, transports } from "./served.ts";

let served: Served;
beforeAll(async () => {
  served = await serve(createScriptedFeed({}), { config: { maxRequestBytes: 65_536 } });
});
afterAll(() => served[Symbol.asyncDispose]());

type SubscribeInit = Parameters<ReturnType<typeof createClient<typeof FeedService>>["subscribe"]>[0];
type PublishInit = Parameters<ReturnType<typeof createClient<typeof FeedService>>["publish"]>[0];

/** Of no enum. */
const stranger: number = 77;

const badSubscriptions: readonly (readonly [string, SubscribeInit, readonly string[]])[] = [
  ["a malformed pattern", { selectors: [{ topics: ["orders", "orders..eu"] }] }, ["selectors[0].topics[1]"]],
  ["a wildcard in a word", { selectors: [{}, { topics: ["ord*"] }] }, ["selectors[1].topics[0]"]],
  [
    "an unknown operation",
    { selectors: [{ operations: [Operation.INSERT, stranger] }] },
    ["selectors[0].operations[1]"],
  ],
  ["an unspecified operation", { selectors: [{ operations: [0] }] }, ["selectors[0].operations[0]"]],
  ["an empty cursor", { start: { case: "afterCursor", value: "" } }, ["after_cursor"]],
  ["a version beyond all feeds", { start: { case: "afterVersion", value: 2n ** 63n } }, ["after_version"]],
  ["an interval too short", { delivery: { checkpointInterval: { nanos: 1 } } }, ["delivery.checkpoint_interval"]],
  ["a message limit too small", { maxMessageBytes: 100 }, ["max_message_bytes"]],
  ["an epoch that is none", { epoch: "yesterday" }, ["epoch"]],
  ["a transaction that is none", { afterTransaction: "42" }, ["after_transaction"]],
  ["an unknown payload form", { payloadForm: stranger }, ["payload_form"]],
  ["two at once", { epoch: "x", maxMessageBytes: 1 }, ["epoch", "max_message_bytes"]],
];

const badPublications: readonly (readonly [string, PublishInit, readonly string[]])[] = [
  ["no event", {}, ["events"]],
  ["a topic with a wildcard", { events: [{ topic: "a" }, { topic: "orders.*" }] }, ["events[1].topic"]],
  ["no topic", { events: [{}] }, ["events[0].topic", "events[0].topic"]],
  ["a snapshot row", { events: [{ topic: "a", operation: Operation.SNAPSHOT }] }, ["events[0].operation"]],
  [
    "payloads that are not JSON",
    {
      events: ["{}", "{", ""].map((value) => ({ topic: "a", payload: { form: { case: "json" as const, value } } })),
    },
    ["events[1].payload.json", "events[2].payload.json"],
  ],
];

async function violationsOf(call: Promise<unknown>): Promise<readonly string[]> {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof ConnectError)) throw new Error(`expected a ConnectError, got ${String(error)}`);
  expect(error.code).toBe(Code.InvalidArgument);
  const [detail] = error.findDetails(ErrorDetailSchema);
  expect(detail?.code).toBe(ErrorCode.INVALID_REQUEST);
  for (const violation of detail?.violations ?? []) expect(violation.message).not.toBe("");
  expect(error.rawMessage).toContain(detail?.violations[0]?.field);
  return detail?.violations.map(({ field }) => field) ?? [];
}

async function firstFrame(frames: AsyncIterable<unknown>): Promise<unknown> {
  for await (const frame of frames) return frame;
  return undefined;
}

describe.each(transports)("a wrong request by $name", ({ create }) => {
  it.each(badSubscriptions)("Subscribe with %s names the field", async (_what, request, fields) => {
    const client = createClient(FeedService, create(served.url));
    expect(await violationsOf(firstFrame(client.subscribe(request)))).toEqual(fields);
  });

  it.each(badPublications)("Publish with %s names the field", async (_what, request, fields) => {
    const client = createClient(FeedService, create(served.url));
    expect(await violationsOf(client.publish(request))).toEqual(fields);
  });
});

describe("a request that cannot be read", () => {
  const post = (method: string, type: string, body: string | Uint8Array<ArrayBuffer>) =>
    fetch(`${served.url}/millrace.v1.FeedService/${method}`, {
      method: "POST",
      headers: { "content-type": type },
      body,
    });

  /** One message in the envelope of Connect's streaming requests. */
  function enveloped(message: Uint8Array): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(5 + message.length);
    new DataView(bytes.buffer).setUint32(1, message.length);
    bytes.set(message, 5);
    return bytes;
  }

  interface ErrorJson {
    readonly code: string;
    readonly message: string;
    readonly details: readonly [{ readonly type: string; readonly value: string }];
  }

  function detailOf(error: ErrorJson) {
    expect(error.details[0].type).toBe("millrace.v1.ErrorDetail");
    return fromBinary(ErrorDetailSchema, base64Decode(error.details[0].value));
  }

  it.each([
    ["broken JSON", "application/json", "{"],
    ["an unknown field", "application/json", '{"event":[]}'],
    ["a value of the wrong type", "application/json", '{"events":7}'],
    ["a broken binary message", "application/proto", new Uint8Array([0x0a, 0xff])],
  ])("has the shape of all errors: unary, %s", async (_what, type, body) => {
    const response = await post("Publish", type, body);
    expect(response.headers.get("content-type")).toBe("application/json");
    const error: ErrorJson = JSON.parse(await response.text());
    expect(response.status).toBe(400);
    expect(error.code).toBe("invalid_argument");
    expect(detailOf(error).code).toBe(ErrorCode.INVALID_REQUEST);
    expect(detailOf(error).violations).toHaveLength(1);
  });

  it.each([
    ["broken JSON", "application/connect+json", new TextEncoder().encode("{")],
    ["an unknown field", "application/connect+json", new TextEncoder().encode('{"selector":[{"topics":["a"]}]}')],
    ["a broken binary message", "application/connect+proto", new Uint8Array([0x0a, 0xff])],
  ])("has the shape of all errors: streaming, %s", async (_what, type, body) => {
    const response = await post("Subscribe", type, enveloped(body));
    const end = Buffer.from(await response.arrayBuffer()).subarray(5);
    const { error }: { error: ErrorJson } = JSON.parse(end.toString());
    expect(error.code).toBe("invalid_argument");
    expect(detailOf(error).code).toBe(ErrorCode.INVALID_REQUEST);
  });

  it("names the misspelt field", async () => {
    const response = await post("Publish", "application/json", '{"evnts":[]}');
    expect(await response.text()).toContain("evnts");
  });

  it("says which limit a request that is too large breaks", async () => {
    const response = await post("Publish", "application/json", `{"idempotencyKey":"${"x".repeat(70_000)}"}`);
    const error: ErrorJson = JSON.parse(await response.text());
    expect(error.code).toBe("resource_exhausted");
    expect(detailOf(error).code).toBe(ErrorCode.LIMIT_EXCEEDED);
  });

  it("answers an unknown method with Connect's own code", async () => {
    const response = await post("Frobnicate", "application/json", "{}");
    expect(response.status).toBe(404);
    expect(await response.text()).toContain(served.url);
  });
});
