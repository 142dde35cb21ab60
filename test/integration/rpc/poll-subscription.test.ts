import type { MessageInitShape } from "@bufbuild/protobuf";
import { ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { describe, expect, it, vi } from "vitest";
import { ErrorCode, ErrorDetailSchema } from "../../../gen/millrace/v1/error_pb.js";
import { PayloadForm } from "../../../gen/millrace/v1/event_pb.js";
import { FeedService, type PollRequestSchema, type PollResponse } from "../../../gen/millrace/v1/feed_service_pb.js";
import { SubscriptionService } from "../../../gen/millrace/v1/subscription_service_pb.js";
import { systemClock, systemTimers } from "../../../src/core/clock.ts";
import { createFeed } from "../../../src/core/feed/feed-service.ts";
import { createSubscriptions } from "../../../src/core/subscription/subscription-service.ts";
import { createMemoryStore } from "../../../src/memory/store.ts";
import { serve, transports } from "./served.ts";

type Request = MessageInitShape<typeof PollRequestSchema>;

const signal = new AbortController().signal;
const byName = { start: { case: "subscriptionId", value: "s" } } as const satisfies Request;

async function serveMemory() {
  const store = createMemoryStore({ sources: ["orders"] });
  const feed = createFeed({ store, wakeUp: store.wakeUp });
  await feed.start(signal);
  const parts = { feed, store: store.subscriptions, clock: systemClock, timers: systemTimers, replica: "only" };
  const subscriptions = createSubscriptions(parts);
  await subscriptions.start(signal);
  const served = await serve(feed, { subscriptions });
  const put = async (...keys: readonly string[]) => {
    const transaction = store.begin();
    for (const key of keys) await transaction.put("orders", key, JSON.stringify({ id: key }));
    transaction.commit();
    const { head } = await store.bounds(signal);
    await vi.waitUntil(() => feed.status().head >= head + keys.length, { timeout: 10_000 });
  };
  return { put, feed, url: served.url, [Symbol.asyncDispose]: () => served[Symbol.asyncDispose]() };
}

const told = ({ events }: PollResponse) =>
  events.map(({ key, attempt }) => (attempt === 0 ? key : `${key}×${attempt}`));
const next = ({ cursor, lease }: PollResponse) =>
  ({ ...byName, acknowledgeCursor: cursor, generation: lease?.generation ?? 0n }) satisfies Request;

/** A client that makes GETs of what has no side effects is refused: see below. */
const posting = transports.filter(({ name }) => !name.endsWith("GET"));

describe.each(posting)("a poll by subscription, by $name", ({ create }) => {
  it("acknowledges what was polled, waits, and keeps what was not for the next stream", async () => {
    await using set = await serveMemory();
    const feed = createClient(FeedService, create(set.url));
    const subscriptions = createClient(SubscriptionService, create(set.url));
    await subscriptions.createSubscription({
      subscriptionId: "s",
      selectors: [{ topics: ["orders"] }],
      start: { case: "oldest", value: {} },
    });
    await set.put("a", "b", "c");
    const first = await feed.poll({ ...byName, maxEvents: 2 });
    expect(told(first)).toEqual(["a", "b"]);
    expect(first).toMatchObject({ hasMore: true, subscriptionActive: true, headVersion: 3n });
    expect(first.lease).toMatchObject({ subscriptionId: "s", member: "", maxInFlight: 0 });
    const second = await feed.poll(next(first));
    expect(told(second)).toEqual(["c"]);
    expect(second.lease?.generation).toBe(first.lease?.generation);
    const waiting = feed.poll({ ...next(second), timeout: { seconds: 60n } });
    await vi.waitUntil(() => set.feed.status().streams === 1, { timeout: 10_000 });
    await set.put("d");
    const third = await waiting;
    expect(told(third)).toEqual(["d"]);
    const { subscription } = await subscriptions.getSubscription({ subscriptionId: "s" });
    expect(subscription).toMatchObject({ version: 3n });
    const stop = new AbortController();
    for await (const { frame } of feed.subscribe(byName, { signal: stop.signal })) {
      if (frame.case !== "events") continue;
      expect(frame.value.events).toMatchObject([{ key: "d", attempt: 2 }]);
      break;
    }
    stop.abort();
    await expect(feed.poll(next(third)).catch(codeOf)).resolves.toBe(ErrorCode.SUBSCRIPTION_FENCED);
  });

  it("is refused with what belongs to the subscription, and with an acknowledgement of nobody", async () => {
    await using set = await serveMemory();
    const { poll } = createClient(FeedService, create(set.url));
    const fields = (request: Request) => poll(request).then(() => [], fieldsOf);
    expect(
      await fields({
        ...byName,
        selectors: [{ topics: ["a"] }],
        payloadForm: PayloadForm.NONE,
        epoch: "0b61a2d6-7c0c-4b5e-9d52-4c1f3d0e7a11",
      }),
    ).toEqual(["selectors", "payload_form", "epoch"]);
    expect(await fields({ ...byName, acknowledgeCursor: "x" })).toEqual(["generation"]);
    await expect(poll(byName).catch(codeOf)).resolves.toBe(ErrorCode.SUBSCRIPTION_NOT_FOUND);
  });
});

describe("a poll by subscription, by GET", () => {
  it("is refused: it changes where the subscription stands", async () => {
    await using set = await serveMemory();
    const transport = createConnectTransport({ baseUrl: set.url, httpVersion: "2", useHttpGet: true });
    expect(
      await createClient(FeedService, transport)
        .poll(byName)
        .then(() => [], fieldsOf),
    ).toEqual(["subscription_id"]);
  });
});

function detailOf(error: unknown) {
  return ConnectError.from(error).findDetails(ErrorDetailSchema)[0];
}

function codeOf(error: unknown): ErrorCode | undefined {
  return detailOf(error)?.code;
}

function fieldsOf(error: unknown): readonly string[] | undefined {
  return detailOf(error)?.violations.map(({ field }) => field);
}
