import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { describe, expect, it } from "vitest";
import { FeedService } from "../../../gen/millrace/v1/feed_service_pb.js";
import { type Buffering, startBufferingProxy } from "../../support/buffering-proxy.ts";
import { eventually } from "../../support/deadline.ts";
import { PlainEventSource } from "../../support/event-source.ts";
import { ask, linesOf, OpenAnswer } from "./http-client.ts";
import { openMemoryShop } from "./memory-shop.ts";

async function openBehind(buffering: Buffering) {
  const everything = new AsyncDisposableStack();
  const shop = everything.use(await openMemoryShop());
  const proxy = everything.use(await startBufferingProxy(shop.served.url, buffering));
  const events = (query: string) => `${proxy.url}/v1/events?${query}`;
  return { shop, proxy, events, [Symbol.asyncDispose]: () => everything.disposeAsync() };
}

describe("behind a proxy that buffers", () => {
  it("but heeds what it is told, every event comes at once", async () => {
    await using behind = await openBehind({ bytes: Number.POSITIVE_INFINITY, heeds: true });
    for (const format of ["sse", "ndjson"]) {
      using answer = await OpenAnswer.open(behind.events(`topic=notes&format=${format}`));
      await answer.until((text) => text.includes("opened"));
      for (const n of [1, 2, 3]) {
        behind.shop.emit("notes", `{"n":${n}}`);
        await answer.until((text) => text.includes(`"n":${n}`));
      }
    }
  });

  it("whatever it is told, `opened` is missed, and Poll goes through where a stream does not", async () => {
    await using behind = await openBehind({ bytes: 64 * 1024, heeds: false });
    const { shop, proxy } = behind;
    shop.emit("notes", '{"n":1}');
    const [, first] = linesOf((await ask(behind.events("from=oldest&max_events=1&format=ndjson"))).text);
    const cursor = String(first?.cursor);
    using source = new PlainEventSource(behind.events(`lastEventId=${cursor}`));
    shop.emit("notes", '{"n":2}');
    await eventually(async () => proxy.held().includes('"n":2'));
    // It is connected, as far as it knows, and has been told nothing: that is how a page sees what is between.
    expect(source.messages).toEqual([]);
    const client = createClient(FeedService, createConnectTransport({ baseUrl: proxy.url, httpVersion: "1.1" }));
    const page = await client.poll({ start: { case: "afterCursor", value: cursor } });
    expect(page.events.map(({ version }) => version)).toEqual([2n]);
    shop.emit("notes", '{"n":3}');
    const next = await client.poll({
      start: { case: "afterCursor", value: page.cursor },
      timeout: { seconds: 30n },
    });
    expect(next.events.map(({ version }) => version)).toEqual([3n]);
  });

  it("up to a size, padding pushes `opened` through", async () => {
    await using behind = await openBehind({ bytes: 4_096, heeds: false });
    using answer = await OpenAnswer.open(behind.events("topic=notes&padding=4096"));
    await answer.until((text) => text.includes("event: opened"));
  });

  it("for a while, everything comes late, once and in order", async () => {
    await using behind = await openBehind({ bytes: 64 * 1024, ms: 30, heeds: false });
    using source = new PlainEventSource(behind.events("topic=notes&from=oldest"));
    for (let n = 1; n <= 200; n += 1) {
      behind.shop.emit("notes", `{"n":${n},"text":"${"x".repeat(n * 5)}"}`);
      if (n % 20 === 0) await eventually(async () => source.of("change").length >= n - 20);
    }
    await eventually(async () => source.of("change").length >= 200);
    const numbers = source.of("change").map(({ data }) => JSON.parse(data).after.n);
    expect(numbers).toEqual(Array.from({ length: 200 }, (_, at) => at + 1));
    expect(source.connections).toBe(1);
  });

  it("to the end, a stream that has one is whole", async () => {
    await using behind = await openBehind({ bytes: Number.POSITIVE_INFINITY, heeds: false });
    behind.shop.emit("notes", "{}", "{}", "{}");
    const { text } = await ask(behind.events("from=oldest&max_events=3&format=ndjson"));
    expect(linesOf(text).map(({ frame, version }) => frame ?? version)).toEqual(["opened", 1, 2, 3, "closing"]);
  });
});
