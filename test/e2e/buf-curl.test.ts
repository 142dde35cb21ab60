import { fromBinary } from "@bufbuild/protobuf";
import { base64Decode } from "@bufbuild/protobuf/wire";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ErrorCode, ErrorDetailSchema } from "../../gen/millrace/v1/error_pb.js";
import { buf, jsonValues, run } from "./process.ts";
import { openShop, type Shop } from "./shop.ts";

let shop: Shop;
beforeAll(async () => {
  shop = await openShop();
  await shop.order("12345678901234567890.50", "2");
});
afterAll(() => shop[Symbol.asyncDispose]());

const procedure = (name: string): string => `${shop.url}/millrace.v1.FeedService/${name}`;

interface Response {
  readonly events?: { readonly events: readonly { readonly key: string; readonly after: { readonly json: string } }[] };
}

function hasFrame(value: unknown): value is Response {
  return typeof value === "object" && value !== null;
}

function eventsOf(stdout: Buffer) {
  return jsonValues(stdout.toString())
    .filter(hasFrame)
    .flatMap((response) => response.events?.events ?? []);
}

// Without `--schema`: all that buf knows of Millrace it has from reflection.
describe.each(["grpc", "grpcweb", "connect"])("buf curl --protocol %s", (protocol) => {
  const curl = (...args: string[]) => ["curl", "--http2-prior-knowledge", "--protocol", protocol, ...args];

  it("streams with nothing but the URL", async () => {
    const { stdout } = await run(
      buf,
      curl("--reflect", procedure("Subscribe"), "-d", '{"oldest":{}}'),
      (seen) => eventsOf(seen).length >= 2,
    );
    const [first, second] = eventsOf(stdout);
    expect([first, second].map((event) => [event?.key, event?.after.json.replaceAll(" ", "")])).toEqual([
      ["1", '{"id":1,"total":12345678901234567890.50}'],
      ["2", '{"id":2,"total":2}'],
    ]);
  });

  it("asks where the feed stands", async () => {
    const { code, stdout } = await run(buf, curl("--reflect", procedure("GetStatus"), "-d", "{}"));
    expect(code).toBe(0);
    expect(JSON.parse(stdout.toString())).toMatchObject({ state: "FEED_STATE_LIVE", oldestVersion: "1" });
  });

  it("publishes", async () => {
    const event = { topic: "notes", payload: { json: "[1]" } };
    const { code, stdout } = await run(
      buf,
      curl("--reflect", procedure("Publish"), "-d", JSON.stringify({ events: [event] })),
    );
    expect(code).toBe(0);
    expect(JSON.parse(stdout.toString()).transaction).toMatch(/^[0-9a-f-]{36}:\d+$/);
  });

  it("prints our errors in full", async () => {
    const { code, stderr } = await run(
      buf,
      curl("--reflect", procedure("Subscribe"), "-d", '{"selectors":[{"topics":["orders..eu"]}]}'),
    );
    expect(code).not.toBe(0);
    const [error] = jsonValues(stderr);
    expect(error).toMatchObject({ code: "invalid_argument", details: [{ type: "millrace.v1.ErrorDetail" }] });
    const [, value = ""] = /"value": "([^"]+)"/.exec(stderr) ?? [];
    expect(fromBinary(ErrorDetailSchema, base64Decode(value))).toMatchObject({
      code: ErrorCode.INVALID_REQUEST,
      violations: [{ field: "selectors[0].topics[0]" }],
    });
  });

  it("asks for health", async () => {
    const { stdout } = await run(buf, curl("--reflect", `${shop.url}/grpc.health.v1.Health/Check`, "-d", "{}"));
    expect(JSON.parse(stdout.toString())).toEqual({ status: "SERVING" });
  });
});

describe("buf curl --list-methods", () => {
  it.each(["grpc-v1", "grpc-v1alpha"])("lists everything by %s", async (version) => {
    const { code, stdout } = await run(buf, [
      "curl",
      "--http2-prior-knowledge",
      "--list-methods",
      "--reflect-protocol",
      version,
      shop.url,
    ]);
    expect(code).toBe(0);
    expect(stdout.toString().trim().split("\n").toSorted()).toEqual([
      "grpc.health.v1.Health/Check",
      "grpc.health.v1.Health/List",
      "grpc.health.v1.Health/Watch",
      "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
      "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
      "millrace.v1.FeedService/GetStatus",
      "millrace.v1.FeedService/Poll",
      "millrace.v1.FeedService/Publish",
      "millrace.v1.FeedService/Subscribe",
      "millrace.v1.FeedService/UpdateStream",
      "millrace.v1.SourceService/ListSources",
      "millrace.v1.SourceService/UnwatchSource",
      "millrace.v1.SourceService/WatchSource",
      "millrace.v1.SubscriptionService/Acknowledge",
      "millrace.v1.SubscriptionService/CreateSubscription",
      "millrace.v1.SubscriptionService/DeleteSubscription",
      "millrace.v1.SubscriptionService/DiscardDeadLetters",
      "millrace.v1.SubscriptionService/GetSubscription",
      "millrace.v1.SubscriptionService/ListDeadLetters",
      "millrace.v1.SubscriptionService/ListSubscriptions",
      "millrace.v1.SubscriptionService/PauseSubscription",
      "millrace.v1.SubscriptionService/ReplayDeadLetters",
      "millrace.v1.SubscriptionService/ResumeSubscription",
      "millrace.v1.SubscriptionService/SeekSubscription",
    ]);
  });
});
