import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { Operation } from "../../../gen/millrace/v1/event_pb.js";
import { PolicyKind } from "../../../gen/millrace/v1/feed_service_pb.js";
import { CreateSubscriptionRequestSchema } from "../../../gen/millrace/v1/subscription_service_pb.js";
import { createMemoryStore, type Frame, openMemoryFeed, type SubscriptionOptions } from "../../../src/index.ts";
import { definitionText } from "../../../src/rpc/subscription-definition.ts";

async function fill(store: ReturnType<typeof createMemoryStore>, count: number): Promise<void> {
  for (let n = 0; n < count; n++) {
    const transaction = store.begin();
    transaction.emit({ topic: "notes", key: `${n}`, operation: "MESSAGE", payload: "{}", headers: {} });
    transaction.commit();
  }
}

/** Takes frames until so many events have come, then leaves. */
async function take(frames: AsyncIterable<Frame>, count: number) {
  const taken: Frame[] = [];
  let events = 0;
  for await (const frame of frames) {
    taken.push(frame);
    events += frame.kind === "events" ? frame.events.length : 0;
    if (events >= count) break;
  }
  const [opened] = taken;
  return {
    told: taken.flatMap((frame) =>
      frame.kind === "events" ? frame.events.map(({ version, attempt }) => [version, attempt]) : [],
    ),
    cursor: taken.at(-1)?.cursor,
    generation: opened?.kind === "opened" ? (opened.lease?.generation ?? 0) : 0,
  };
}

describe("subscriptions of a feed in this process", () => {
  it("go on after what was acknowledged, asked for or called", async () => {
    const store = createMemoryStore();
    await using feed = await openMemoryFeed(store);
    const { subscriptions } = feed;
    expect((await subscriptions.create("jobs", { selectors: [{ topics: ["notes"] }] })).existed).toBe(false);
    expect((await subscriptions.create("jobs", { selectors: [{ topics: ["notes"] }] })).existed).toBe(true);
    await expect(subscriptions.create("jobs")).rejects.toMatchObject({ code: "SUBSCRIPTION_EXISTS" });
    await fill(store, 3);
    const first = await take(subscriptions.frames("jobs"), 3);
    expect(first.told.map(([version]) => version)).toEqual([1, 2, 3]);
    const second = await take(subscriptions.frames("jobs"), 3);
    expect(second.told).toEqual([
      [1, 2],
      [2, 2],
      [3, 2],
    ]);
    const cursor = second.cursor ?? "";
    await expect(subscriptions.acknowledge("jobs", cursor, first.generation)).rejects.toMatchObject({
      code: "SUBSCRIPTION_FENCED",
    });
    expect(await subscriptions.acknowledge("jobs", cursor, second.generation)).toMatchObject({ version: 3 });
    const called: number[] = [];
    const more = Promise.withResolvers<void>();
    await using following = await subscriptions.follow("jobs", (frame) => {
      if (frame.kind !== "events") return;
      called.push(...frame.events.map(({ version }) => version));
      if (called.length >= 2) more.resolve();
    });
    await fill(store, 2);
    await more.promise;
    expect(called).toEqual([4, 5]);
    await subscriptions.pause("jobs");
    await following.ended;
    expect(await subscriptions.list({ topic: "notes" })).toMatchObject([{ id: "jobs", state: "PAUSED" }]);
    await subscriptions.resume("jobs");
    expect((await subscriptions.seek("jobs", "oldest")).position.version).toBe(0);
    expect((await subscriptions.delete("jobs")).id).toBe("jobs");
    await expect(subscriptions.get("jobs")).rejects.toMatchObject({ code: "SUBSCRIPTION_NOT_FOUND" });
  });

  it("are the same that a client of the server would have created", async () => {
    const store = createMemoryStore();
    await using feed = await openMemoryFeed(store);
    const selector = { topics: ["orders.*"], operations: ["INSERT"], filter: "row.n > 1", fields: ["id"] } as const;
    const pairs: readonly (readonly [
      SubscriptionOptions,
      Parameters<typeof create<typeof CreateSubscriptionRequestSchema>>[1],
    ])[] = [
      [{}, {}],
      [{ policy: { kind: "BLOCK" } }, { delivery: {} }],
      [
        { selectors: [selector] },
        { selectors: [{ ...selector, topics: ["orders.*"], operations: [Operation.INSERT], fields: ["id"] }] },
      ],
      [
        { policy: { kind: "LATEST", maxLagEvents: 5 }, maxBatchEvents: 7, maxEventsPerSecond: 9 },
        {
          delivery: {
            policy: { kind: PolicyKind.LATEST, maxLagEvents: 5n },
            batch: { maxEvents: 7 },
            maxEventsPerSecond: 9,
          },
        },
      ],
    ];
    for (const [index, [options, request]] of pairs.entries()) {
      const { record } = await feed.subscriptions.create(`s${index}`, options);
      expect(record.definition).toBe(definitionText(create(CreateSubscriptionRequestSchema, request)));
    }
  });

  it("refuse options that there are not, and filters that cannot be read", async () => {
    await using feed = await openMemoryFeed(createMemoryStore());
    const misspelt: object = { ovner: "me" };
    await expect(feed.subscriptions.create("a", misspelt)).rejects.toMatchObject({ code: "INVALID_REQUEST" });
    const unreadable = feed.subscriptions.create("a", { selectors: [{ filter: "row." }] });
    await expect(unreadable).rejects.toMatchObject({ code: "FILTER_INVALID" });
  });
});
