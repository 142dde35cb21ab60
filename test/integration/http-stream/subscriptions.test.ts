import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { describe, expect, it } from "vitest";
import { SubscriptionService } from "../../../gen/millrace/v1/subscription_service_pb.js";
import { decodeCursor } from "../../../src/core/cursor.ts";
import { eventually } from "../../support/deadline.ts";
import { ask, linesOf, messagesOf, OpenAnswer } from "./http-client.ts";
import { type MemoryShop, openMemoryShop } from "./memory-shop.ts";

const eventSource = { accept: "text/event-stream" };

function serviceOf({ served }: MemoryShop) {
  return createClient(SubscriptionService, createConnectTransport({ baseUrl: served.url, httpVersion: "1.1" }));
}

/** What a page does, by `fetch`. */
async function acknowledge({ served }: MemoryShop, cursor: unknown): Promise<unknown> {
  const answer = await fetch(`${served.url}/millrace.v1.SubscriptionService/Acknowledge`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ subscriptionId: "jobs", cursor }),
  });
  expect(answer.status).toBe(200);
  return await answer.json();
}

describe("a subscription over plain HTTP", () => {
  it("delivers what was not acknowledged again, with `attempt`, and what was not", async () => {
    await using shop = await openMemoryShop();
    const service = serviceOf(shop);
    await service.createSubscription({ subscriptionId: "jobs", selectors: [{ topics: ["orders"] }] });
    for (const key of ["a", "b", "c"]) await shop.put(key, "{}");
    const url = shop.events("subscription=jobs&max_events=3&format=ndjson");
    const first = linesOf((await ask(url)).text);
    expect(first[0]).toMatchObject({ frame: "opened", lease: { subscriptionId: "jobs", generation: 1 } });
    expect(first.slice(1, 4).map(({ key, attempt }) => [key, attempt])).toEqual([
      ["a", undefined],
      ["b", undefined],
      ["c", undefined],
    ]);
    // In the middle of a frame, where each event has a cursor of its own.
    await acknowledge(shop, first[1]?.cursor);
    await shop.put("d", "{}");
    // Whatever the browser had seen: the acknowledgements count.
    const again = linesOf((await ask(url, { "last-event-id": String(first[3]?.cursor) })).text);
    expect(again.slice(1, 4).map(({ key, attempt }) => [key, attempt])).toEqual([
      ["b", 2],
      ["c", 2],
      ["d", undefined],
    ]);
  });

  it("belongs to its newest stream; the older one ends and stays away", async () => {
    await using shop = await openMemoryShop();
    const service = serviceOf(shop);
    await service.createSubscription({ subscriptionId: "jobs" });
    using older = await OpenAnswer.open(shop.events("subscription=jobs"), eventSource);
    await older.until((text) => text.includes("event: opened"));
    using newer = await OpenAnswer.open(shop.events("subscription=jobs"), eventSource);
    const text = await older.end();
    expect(messagesOf(text).at(-1)).toMatchObject({ event: "closing", json: { reason: "TAKEN_OVER" } });
    expect(text).toContain("retry: 86400000\n");
    await service.pauseSubscription({ subscriptionId: "jobs" });
    expect(messagesOf(await newer.end()).at(-1)).toMatchObject({ event: "closing", json: { reason: "PAUSED" } });
    // Which EventSource does not ask for again.
    const paused = await ask(shop.events("subscription=jobs"), eventSource);
    expect([paused.status, JSON.parse(paused.text).code]).toEqual([400, "SUBSCRIPTION_PAUSED"]);
  });

  it("of a group has members", async () => {
    await using shop = await openMemoryShop();
    const service = serviceOf(shop);
    await service.createSubscription({ subscriptionId: "jobs", selectors: [{ topics: ["orders"] }], group: {} });
    using one = await OpenAnswer.open(shop.events("subscription=jobs&member=one&format=ndjson"));
    using two = await OpenAnswer.open(shop.events("subscription=jobs&member=two&format=ndjson"));
    for (let at = 0; at < 60; at += 1) await shop.put(`key ${at}`, "{}");
    const keysOf = ({ text }: OpenAnswer) =>
      linesOf(text.slice(0, text.lastIndexOf("\n"))).flatMap(({ key }) => key ?? []);
    await eventually(async () => keysOf(one).length + keysOf(two).length >= 60);
    expect([...keysOf(one), ...keysOf(two)].length).toBe(60);
    expect(new Set([...keysOf(one), ...keysOf(two)]).size).toBe(60);
    expect(keysOf(one).length).toBeGreaterThan(0);
    expect(keysOf(two).length).toBeGreaterThan(0);
    // The cursor of a single event says which deliveries came before it.
    const [opened, first, second, third] = linesOf(one.text.slice(0, one.text.lastIndexOf("\n")));
    const { generation } = Object(opened?.lease);
    const cursor = String((third ?? second ?? first)?.cursor);
    const accepted = Math.min(3, keysOf(one).length);
    const { version } = Object(third ?? second ?? first);
    expect(decodeCursor(cursor)).toMatchObject({ version, delivery: accepted });
    const answer = await service.acknowledge({
      subscriptionId: "jobs",
      member: "one",
      generation: BigInt(generation),
      cursor,
    });
    expect(answer.accepted).toBe(BigInt(accepted));
  });

  it("that is not there is not found", async () => {
    await using shop = await openMemoryShop();
    const missing = await ask(shop.events("subscription=nothing"), eventSource);
    expect([missing.status, JSON.parse(missing.text).code]).toEqual([404, "SUBSCRIPTION_NOT_FOUND"]);
  });
});
