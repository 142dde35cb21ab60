import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ErrorCode, ErrorDetailSchema } from "../../../gen/millrace/v1/error_pb.js";
import { FeedService } from "../../../gen/millrace/v1/feed_service_pb.js";
import { SubscriptionService } from "../../../gen/millrace/v1/subscription_service_pb.js";
import { ask } from "../http-stream/http-client.ts";
import { type MemoryShop, openMemoryShop } from "../http-stream/memory-shop.ts";
import { transports } from "./served.ts";

let shop: MemoryShop;
beforeAll(async () => {
  shop = await openMemoryShop();
});
afterAll(() => shop[Symbol.asyncDispose]());

/** What gRPC clients with the smallest common limit take of headers. */
const HEADER_BYTES = 8_192;

describe("a request with thousands of faults", () => {
  it.each(transports.filter(({ name }) => !name.includes("GET")))(
    "is told of the first, over $name",
    async ({ create }) => {
      const client = createClient(FeedService, create(shop.served.url));
      const selectors = Array.from({ length: 64 }, () => ({ topics: Array<string>(256).fill("!") }));
      const error: unknown = await client.poll({ selectors }).catch((reason: unknown) => reason);
      if (!(error instanceof ConnectError)) throw new Error(`expected a ConnectError, got ${String(error)}`);
      expect(error.code).toBe(Code.InvalidArgument);
      expect(error.rawMessage).toContain("(and 16383 more)");
      const [detail] = error.findDetails(ErrorDetailSchema);
      expect(detail?.code).toBe(ErrorCode.INVALID_REQUEST);
      expect(detail?.violations).toHaveLength(16);
      expect(detail?.action).toContain("first 16");
      expect(JSON.stringify(detail?.violations).length).toBeLessThan(HEADER_BYTES / 2);
    },
  );

  it("gets no more back than that over plain HTTP", async () => {
    const query = Array.from({ length: 1_500 }, (_, at) => `x${at}=1`).join("&");
    const refused = await ask(shop.events(query));
    expect(refused.status).toBe(400);
    expect(JSON.parse(refused.text).violations).toHaveLength(16);
    expect(refused.text.length).toBeLessThan(HEADER_BYTES);
  });
});

describe("a fault that is as large as a request", () => {
  const post = (service: string, method: string, body: string) =>
    fetch(`${shop.served.url}/millrace.v1.${service}/${method}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
    });

  it("is told in short", async () => {
    const long = "\u{1f600}".repeat(100_000);
    const answer = await post("FeedService", "Poll", JSON.stringify({ [long]: 1 }));
    const text = await answer.text();
    expect(answer.status).toBe(400);
    expect(text).toContain("INVALID_REQUEST");
    expect(text.length).toBeLessThan(HEADER_BYTES);
    expect(JSON.parse(text).message.isWellFormed()).toBe(true);
  });

  it.each(["GetSubscription", "DeleteSubscription", "PauseSubscription", "ResumeSubscription"])(
    "is refused as a name, by %s",
    async (method) => {
      const answer = await post(
        "SubscriptionService",
        method,
        JSON.stringify({ subscriptionId: "x".repeat(1_000_000) }),
      );
      expect(answer.status).toBe(400);
      expect(await answer.text()).toContain("at most 255 bytes");
    },
  );
});

describe("a GET whose message is not what it says", () => {
  it.each(["message=!!!&base64=1&encoding=json", "message=A&base64=1&encoding=proto", "message=%&encoding=json"])(
    "is the client's fault: %s",
    async (query) => {
      const answer = await ask(`${shop.served.url}/millrace.v1.FeedService/Poll?connect=v1&${query}`);
      expect([answer.status, answer.text]).toEqual([400, expect.stringContaining("INVALID_REQUEST")]);
    },
  );
});

describe("an expiry that no clock reaches", () => {
  const clientOf = () => {
    const [transport] = transports;
    if (transport === undefined) throw new Error("no transport");
    return createClient(SubscriptionService, transport.create(shop.served.url));
  };

  it("is refused", async () => {
    await expect(
      clientOf().createSubscription({ subscriptionId: "ever", expireAfter: { seconds: 315_576_000_000n } }),
    ).rejects.toMatchObject({ code: Code.InvalidArgument, rawMessage: expect.stringContaining("expire_after") });
  });

  it("spoils no list where it is kept already", async () => {
    await clientOf().createSubscription({ subscriptionId: "now-and-then" });
    const { signal } = new AbortController();
    const { subscriptions } = shop.store;
    const known = await subscriptions.get("now-and-then", signal);
    await subscriptions.create({ ...known, id: "for-ages", expireAfterMs: 3e14 }, signal);
    const answer = await fetch(`${shop.served.url}/millrace.v1.SubscriptionService/ListSubscriptions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
    });
    expect([answer.status, await answer.text()]).toEqual([200, expect.stringContaining("for-ages")]);
  });
});
