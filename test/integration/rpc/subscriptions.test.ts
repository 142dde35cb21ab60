import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { ConnectError, createClient } from "@connectrpc/connect";
import { describe, expect, it, vi } from "vitest";
import { ErrorCode, ErrorDetailSchema } from "../../../gen/millrace/v1/error_pb.js";
import { Operation, PayloadForm } from "../../../gen/millrace/v1/event_pb.js";
import {
  ClosingReason,
  FeedService,
  PolicyKind,
  type SubscribeResponse,
} from "../../../gen/millrace/v1/feed_service_pb.js";
import {
  GroupSchema,
  SubscriptionService,
  SubscriptionState,
} from "../../../gen/millrace/v1/subscription_service_pb.js";
import { systemClock, systemTimers } from "../../../src/core/clock.ts";
import { createFeed } from "../../../src/core/feed/feed-service.ts";
import { createSubscriptions } from "../../../src/core/subscription/subscription-service.ts";
import { createMemoryStore, type MemoryStore } from "../../../src/memory/store.ts";
import { serve, transports } from "./served.ts";

type Frame = SubscribeResponse["frame"];
type FeedClient = ReturnType<typeof createClient<typeof FeedService>>;
const deliveries = ["mux", "hand-off", "stock"] as const;
const signal = new AbortController().signal;

async function serveMemory(delivery: (typeof deliveries)[number] = "mux") {
  const store = createMemoryStore({ sources: ["orders"] });
  const feed = createFeed({ store, wakeUp: store.wakeUp });
  await feed.start(signal);
  const parts = { feed, store: store.subscriptions, clock: systemClock, timers: systemTimers, replica: "only" };
  const subscriptions = createSubscriptions(parts);
  await subscriptions.start(signal);
  const served = await serve(feed, { config: { delivery }, subscriptions });
  return { store, url: served.url, [Symbol.asyncDispose]: () => served[Symbol.asyncDispose]() };
}

async function put(store: MemoryStore, key: string, n: number): Promise<void> {
  const transaction = store.begin();
  await transaction.put("orders", key, JSON.stringify({ id: key, n }));
  transaction.commit();
}

/** Takes frames into a list, in the background. */
function follow(client: FeedClient, request: object) {
  const cancel = new AbortController();
  const frames: Frame[] = [];
  const ended = (async () => {
    for await (const { frame } of client.subscribe(request, { signal: cancel.signal })) frames.push(frame);
  })().catch((error: unknown) => error);
  const stop = async () => {
    cancel.abort();
    await ended;
  };
  return { frames, ended, [Symbol.asyncDispose]: stop };
}

const of = (subscriptionId: string) => ({ start: { case: "subscriptionId" as const, value: subscriptionId } });
const told = (frames: readonly Frame[]) =>
  frames.flatMap((frame) =>
    frame.case === "events"
      ? frame.value.events.map(({ key, attempt }) => `${key}${attempt ? ` ×${attempt}` : ""}`)
      : [],
  );
const cursorOf = (frames: readonly Frame[]) => {
  const batch = frames.findLast((frame) => frame.case === "events");
  return batch?.case === "events" ? batch.value.cursor : "";
};
const codeOf = async (call: Promise<unknown>) => {
  const error = ConnectError.from(
    await call.then(
      () => undefined,
      (thrown: unknown) => thrown,
    ),
  );
  return error.findDetails(ErrorDetailSchema)[0]?.code;
};

describe.each(deliveries)("subscriptions, delivered by %s", (delivery) => {
  describe.each(transports)("over $name", ({ create: transport }) => {
    it("come again with `attempt` until they are acknowledged, and belong to the newest stream", async () => {
      await using memory = await serveMemory(delivery);
      const { store, url } = memory;
      const feed = createClient(FeedService, transport(url));
      const service = createClient(SubscriptionService, transport(url));
      await service.createSubscription({ subscriptionId: "jobs", selectors: [{ topics: ["orders"] }] });
      for (const key of ["a", "b"]) await put(store, key, 1);
      await using first = follow(feed, of("jobs"));
      await vi.waitUntil(() => told(first.frames).length === 2);
      const [opened] = first.frames;
      expect(opened?.case === "opened" ? opened.value : undefined).toMatchObject({
        streamId: "",
        lease: { subscriptionId: "jobs", generation: 1n, member: "", maxInFlight: 0 },
      });
      await using second = follow(feed, of("jobs"));
      await vi.waitUntil(() => told(second.frames).length === 2);
      expect(told(second.frames)).toEqual(["a ×2", "b ×2"]);
      expect(await first.ended).toBeUndefined();
      const last = first.frames.at(-1);
      expect(last?.case === "closing" ? last.value.reason : undefined).toBe(ClosingReason.TAKEN_OVER);
      const stale = service.acknowledge({ subscriptionId: "jobs", generation: 1n, cursor: cursorOf(first.frames) });
      expect(await codeOf(stale)).toBe(ErrorCode.SUBSCRIPTION_FENCED);
      const cursor = cursorOf(second.frames);
      const acknowledged = await service.acknowledge({ subscriptionId: "jobs", generation: 2n, cursor });
      expect(acknowledged).toMatchObject({ cursor, version: 2n });
      await using third = follow(feed, of("jobs"));
      await vi.waitUntil(() => third.frames.length > 0);
      await put(store, "c", 1);
      await vi.waitUntil(() => told(third.frames).length === 1);
      expect(told(third.frames)).toEqual(["c"]);
    });
  });

  it("end with why: paused, moved, deleted", async () => {
    await using memory = await serveMemory(delivery);
    const transport = transports[0]?.create(memory.url);
    if (transport === undefined) throw new Error("there are transports");
    const feed = createClient(FeedService, transport);
    const service = createClient(SubscriptionService, transport);
    await service.createSubscription({ subscriptionId: "jobs" });
    const outcomes = [
      [ClosingReason.PAUSED, () => service.pauseSubscription({ subscriptionId: "jobs" })],
      [
        ClosingReason.MOVED,
        () => service.seekSubscription({ subscriptionId: "jobs", to: { case: "oldest", value: {} } }),
      ],
      [ClosingReason.DELETED, () => service.deleteSubscription({ subscriptionId: "jobs" })],
    ] as const;
    for (const [reason, act] of outcomes) {
      await using stream = follow(feed, of("jobs"));
      await vi.waitUntil(() => stream.frames.length > 0);
      await act();
      expect(await stream.ended).toBeUndefined();
      const last = stream.frames.at(-1);
      expect(last?.case === "closing" ? last.value.reason : undefined).toBe(reason);
      if (reason === ClosingReason.PAUSED) {
        await using refused = follow(feed, of("jobs"));
        expect(await codeOf(refused.ended.then((error) => Promise.reject(error)))).toBe(ErrorCode.SUBSCRIPTION_PAUSED);
        await service.resumeSubscription({ subscriptionId: "jobs" });
      }
    }
    await using gone = follow(feed, of("jobs"));
    expect(await codeOf(gone.ended.then((error) => Promise.reject(error)))).toBe(ErrorCode.SUBSCRIPTION_NOT_FOUND);
  });
});

describe.each(transports)("SubscriptionService over $name", ({ create: transport }) => {
  it("creates once, and answers the same request with what is there", async () => {
    await using memory = await serveMemory();
    const service = createClient(SubscriptionService, transport(memory.url));
    const request = {
      subscriptionId: "billing/eu",
      selectors: [{ topics: ["orders"], operations: [Operation.INSERT], filter: "row.n > 1", fields: ["id"] }],
      delivery: { policy: { kind: PolicyKind.LATEST, maxLagEvents: 50n }, batch: { maxEvents: 10 } },
      payloadForm: PayloadForm.JSON,
      owner: "billing",
      labels: { team: "blue", region: "eu" },
      expireAfter: durationFromMs(3_600_000),
      start: { case: "oldest" as const, value: {} },
    };
    const first = await service.createSubscription(request);
    expect(first.existed).toBe(false);
    expect(first.subscription).toMatchObject({
      subscriptionId: "billing/eu",
      state: SubscriptionState.ACTIVE,
      owner: "billing",
      labels: { team: "blue", region: "eu" },
      version: 0n,
      lagVersions: 0n,
      generation: 0n,
      deadLetters: 0n,
      expireAfter: { seconds: 3600n },
      delivery: { policy: { kind: PolicyKind.LATEST, maxLagEvents: 50n }, batch: { maxEvents: 10 } },
      selectors: [{ topics: ["orders"], operations: [Operation.INSERT], filter: "row.n > 1", fields: ["id"] }],
    });
    const { payloadForm: _default, start: _elsewhere, ...same } = request;
    expect((await service.createSubscription(same)).existed).toBe(true);
    const others = [{ owner: "sales" }, { labels: {} }, { selectors: [] }, { payloadForm: PayloadForm.NONE }];
    for (const other of others) {
      expect(await codeOf(service.createSubscription({ ...request, ...other }))).toBe(ErrorCode.SUBSCRIPTION_EXISTS);
    }
    const got = await service.getSubscription({ subscriptionId: "billing/eu" });
    expect(got.subscription?.cursor).toBe(first.subscription?.cursor);
    const named = await service.createSubscription({});
    expect(named.subscription?.subscriptionId).toMatch(/^[0-9a-f-]{36}$/);
  });

  it("lists by topic, owner and label, in pages, with a total", async () => {
    await using memory = await serveMemory();
    const service = createClient(SubscriptionService, transport(memory.url));
    for (let i = 0; i < 5; i++) {
      const topics = i === 4 ? [] : [i % 2 === 0 ? "orders.*" : "parcels.>"];
      const owner = i < 3 ? "ana" : "ben";
      await service.createSubscription({
        subscriptionId: `s${i}`,
        selectors: [{ topics }],
        owner,
        labels: { n: `${i}` },
      });
    }
    const names = async (filter: object) => {
      const { subscriptions, total } = await service.listSubscriptions(filter);
      expect(total).toBe(BigInt(subscriptions.length));
      return subscriptions.map(({ subscriptionId }) => subscriptionId);
    };
    expect(await names({})).toEqual(["s0", "s1", "s2", "s3", "s4"]);
    expect(await names({ topic: "orders.eu" })).toEqual(["s0", "s2", "s4"]);
    expect(await names({ owner: "ben" })).toEqual(["s3", "s4"]);
    expect(await names({ labels: { n: "1" }, owner: "ana" })).toEqual(["s1"]);
    const pages: string[][] = [];
    for (let pageToken = ""; ; ) {
      const page = await service.listSubscriptions({ pageSize: 2, pageToken });
      expect(page.total).toBe(5n);
      pages.push(page.subscriptions.map(({ subscriptionId }) => subscriptionId));
      pageToken = page.nextPageToken;
      if (pageToken === "") break;
    }
    expect(pages).toEqual([["s0", "s1"], ["s2", "s3"], ["s4"]]);
    expect(await codeOf(service.listSubscriptions({ pageToken: "made up" }))).toBe(ErrorCode.INVALID_REQUEST);
  });

  it("refuses what cannot be, field by field", async () => {
    await using memory = await serveMemory();
    const { store } = memory;
    const service = createClient(SubscriptionService, transport(memory.url));
    const feed = createClient(FeedService, transport(memory.url));
    await put(store, "a", 1);
    await service.createSubscription({ subscriptionId: "jobs" });
    const group = create(GroupSchema, {});
    const refusals: readonly (readonly [ErrorCode, Promise<unknown>])[] = [
      [ErrorCode.INVALID_REQUEST, service.createSubscription({ subscriptionId: "no spaces" })],
      [ErrorCode.FILTER_INVALID, service.createSubscription({ selectors: [{ filter: "row." }] })],
      [ErrorCode.INVALID_REQUEST, service.createSubscription({ group, start: { case: "snapshot", value: {} } })],
      [ErrorCode.INVALID_REQUEST, service.createSubscription({ group, delivery: { maxEventsPerSecond: 5 } })],
      [ErrorCode.CURSOR_INVALID, service.createSubscription({ start: { case: "afterCursor", value: "made up" } })],
      [ErrorCode.CURSOR_INVALID, service.createSubscription({ start: { case: "afterVersion", value: 99n } })],
      [ErrorCode.SUBSCRIPTION_NOT_FOUND, service.getSubscription({ subscriptionId: "nobody" })],
      [ErrorCode.SUBSCRIPTION_NOT_FOUND, service.acknowledge({ subscriptionId: "nobody", versions: [1n] })],
      [ErrorCode.INVALID_REQUEST, service.acknowledge({ subscriptionId: "jobs", versions: [1n] })],
      [ErrorCode.INVALID_REQUEST, service.acknowledge({ subscriptionId: "jobs" })],
      [ErrorCode.CURSOR_INVALID, service.acknowledge({ subscriptionId: "jobs", cursor: "made up" })],
      [ErrorCode.INVALID_REQUEST, service.seekSubscription({ subscriptionId: "jobs" })],
      [ErrorCode.INVALID_REQUEST, service.discardDeadLetters({ subscriptionId: "jobs" })],
      [ErrorCode.INVALID_REQUEST, service.discardDeadLetters({ subscriptionId: "jobs", all: true, versions: [1n] })],
      [ErrorCode.INVALID_REQUEST, service.listDeadLetters({ subscriptionId: "jobs", pageToken: "made up" })],
    ];
    for (const [index, [code, call]] of refusals.entries()) {
      expect(await codeOf(call), `refusal ${index}`).toBe(code);
    }
    const own = { selectors: [{ topics: ["orders"] }], delivery: {}, payloadForm: PayloadForm.NONE };
    await using stream = follow(feed, { ...of("jobs"), ...own });
    const error = ConnectError.from(await stream.ended);
    const violations = error.findDetails(ErrorDetailSchema)[0]?.violations.map(({ field }) => field);
    expect(violations).toEqual(["selectors", "delivery", "payload_form"]);
  });

  it("pauses, resumes, moves, and answers where it stood when it ends", async () => {
    await using memory = await serveMemory();
    const { store } = memory;
    const service = createClient(SubscriptionService, transport(memory.url));
    const subscriptionId = "jobs";
    await service.createSubscription({ subscriptionId });
    for (let n = 0; n < 3; n++) await put(store, "a", n);
    const paused = await service.pauseSubscription({ subscriptionId });
    expect(paused.subscription?.state).toBe(SubscriptionState.PAUSED);
    const resumed = await service.resumeSubscription({ subscriptionId });
    expect(resumed.subscription?.state).toBe(SubscriptionState.ACTIVE);
    await vi.waitUntil(async () => {
      const { subscription } = await service.getSubscription({ subscriptionId });
      return subscription?.lagVersions === 3n;
    });
    const moved = await service.seekSubscription({ subscriptionId, to: { case: "afterVersion", value: 2n } });
    expect(moved.subscription).toMatchObject({ version: 2n, lagVersions: 1n, generation: 1n });
    expect((await service.listDeadLetters({ subscriptionId })).total).toBe(0n);
    expect(await service.deleteSubscription({ subscriptionId })).toMatchObject({
      cursor: moved.subscription?.cursor,
      version: 2n,
    });
    expect((await service.listSubscriptions({})).total).toBe(0n);
  });
});
