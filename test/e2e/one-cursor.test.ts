import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FeedService } from "../../gen/millrace/v1/feed_service_pb.js";
import { ask, linesOf, messagesOf } from "../integration/http-stream/http-client.ts";
import { cleanUp, millrace, parsed, scratchDirectory } from "./millrace-command.ts";
import { openShop, type Shop } from "./shop.ts";

/** So many events from a position on, and the cursor behind the last of them. */
interface Stretch {
  readonly versions: readonly number[];
  readonly cursor: string;
}

type Way = (cursor: string, count: number) => Promise<Stretch>;

const EVENTS = 60;
let shop: Shop;
let directory: string;
beforeAll(async () => {
  shop = await openShop();
  directory = await scratchDirectory();
  for (let at = 0; at < EVENTS / 6; at += 1) await shop.order("1", "2", "3", "4", "5", "6");
});
afterAll(async () => {
  await shop[Symbol.asyncDispose]();
  await cleanUp(directory);
});

const events = (query: string) => `${shop.url}/v1/events?topic=orders&${query}`;
const from = (cursor: string) => (cursor === "" ? "from=oldest" : `from=${cursor}`);
const startAt = (cursor: string) =>
  cursor === "" ? { case: "oldest" as const, value: {} } : { case: "afterCursor" as const, value: cursor };
const selectors = [{ topics: ["orders"] }];

/** Streams give cursors with their frames: as many events as fit a frame of this size. */
const byGrpc: Way = async (cursor, count) => {
  const client = createClient(FeedService, createGrpcTransport({ baseUrl: shop.url }));
  const cancel = new AbortController();
  const request = { start: startAt(cursor), selectors, delivery: { batch: { maxEvents: count } } };
  for await (const { frame } of client.subscribe(request, { signal: cancel.signal })) {
    if (frame.case !== "events") continue;
    cancel.abort();
    const { events: batch, cursor: last } = frame.value;
    return { versions: batch.map(({ version }) => Number(version)), cursor: last };
  }
  throw new Error("no events came");
};

const bySse: Way = async (cursor, count) => {
  const headers: Record<string, string> = cursor === "" ? {} : { "last-event-id": cursor };
  const { text } = await ask(events(`from=oldest&max_events=${count}`), headers);
  const changes = messagesOf(text).filter(({ event }) => event === "change");
  return { versions: changes.map(({ json }) => Number(json.version)), cursor: changes.at(-1)?.lastEventId ?? "" };
};

const byLines: Way = async (cursor, count) => {
  const { text } = await ask(events(`${from(cursor)}&max_events=${count}&format=ndjson`));
  const changes = linesOf(text).filter(({ frame }) => frame === undefined);
  return { versions: changes.map(({ version }) => Number(version)), cursor: String(changes.at(-1)?.cursor) };
};

const byPoll: Way = async (cursor, count) => {
  const client = createClient(FeedService, createConnectTransport({ baseUrl: shop.url, httpVersion: "1.1" }));
  const page = await client.poll({ start: startAt(cursor), selectors, maxEvents: count });
  return { versions: page.events.map(({ version }) => Number(version)), cursor: page.cursor };
};

const byTail: Way = async (cursor, count) => {
  const position = cursor === "" ? "oldest" : cursor;
  const asked = ["tail", "orders", "--ndjson", "--from", position, "--limit", String(count), "--url", shop.url];
  const { stdout } = await millrace(asked, { directory });
  const lines = stdout.trimEnd().split("\n").map(parsed);
  return { versions: lines.map(({ version }) => Number(version)), cursor: String(lines.at(-1)?.cursor) };
};

const ways = { gRPC: byGrpc, "server-sent events": bySse, "lines of JSON": byLines, Poll: byPoll, tail: byTail };

describe("one cursor goes on over any transport", () => {
  it("G8 from gRPC over server-sent events and lines of JSON to Poll and tail, without a loss or a repetition", async () => {
    const seen: number[] = [];
    let cursor = "";
    // Seven at a time: cuts fall in the middle of transactions of six.
    const order = Object.values(ways);
    for (let at = 0; seen.length < EVENTS; at += 1) {
      const way = order[at % order.length] ?? byGrpc;
      const stretch = await way(cursor, Math.min(7, EVENTS - seen.length));
      expect(stretch.versions.length).toBeGreaterThan(0);
      seen.push(...stretch.versions);
      cursor = stretch.cursor;
    }
    expect(seen).toEqual(Array.from({ length: EVENTS }, (_, at) => at + 1));
  });

  it.each(Object.entries(ways))("G8 begun by %s, gone on with by each of the others", async (_name, begin) => {
    const { versions, cursor } = await begin("", 4);
    const last = versions.at(-1) ?? 0;
    for (const [name, way] of Object.entries(ways)) {
      const { versions: next } = await way(cursor, 3);
      expect(next[0], name).toBe(last + 1);
      expect(next, name).toEqual(next.map((_, at) => last + 1 + at));
    }
  });

  it("prints the same with tail as over HTTP, to the byte", async () => {
    const asked = ["tail", "orders", "--json", "--from", "oldest", "--limit", "20", "--url", shop.url];
    const { stdout } = await millrace(asked, { directory });
    const { text } = await ask(events("from=oldest&max_events=20&format=ndjson&checkpoints=false"));
    const withoutCursor = (line: string) => line.replace(/,"cursor":"[\w-]+"/, "");
    const lines = text.trimEnd().split("\n");
    expect(lines.at(-1)).toContain("MAX_EVENTS");
    expect(stdout.trimEnd().split("\n").map(withoutCursor)).toEqual(lines.slice(0, -1).map(withoutCursor));
    expect(
      stdout
        .trimEnd()
        .split("\n")
        .every((line) => line.includes('"cursor":"')),
    ).toBe(true);
  });
});
