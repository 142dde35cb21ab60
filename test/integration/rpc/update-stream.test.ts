import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { describe, expect, it, vi } from "vitest";
import { ErrorCode, ErrorDetailSchema } from "../../../gen/millrace/v1/error_pb.js";
import { Operation } from "../../../gen/millrace/v1/event_pb.js";
import { FeedService, type SubscribeResponse } from "../../../gen/millrace/v1/feed_service_pb.js";
import { createFeed } from "../../../src/core/feed/feed-service.ts";
import { createMemoryStore, type MemoryStore } from "../../../src/memory/store.ts";
import { serve, transports } from "./served.ts";

type Frame = SubscribeResponse["frame"];

async function serveMemory() {
  const store = createMemoryStore({ sources: ["orders", "parcels"] });
  const feed = createFeed({ store, wakeUp: store.wakeUp });
  await feed.start(new AbortController().signal);
  const served = await serve(feed);
  return { store, served, [Symbol.asyncDispose]: () => served[Symbol.asyncDispose]() };
}

async function put(store: MemoryStore, topic: string, key: string, n: number): Promise<void> {
  const transaction = store.begin();
  await transaction.put(topic, key, JSON.stringify({ id: key, n }));
  transaction.commit();
}

/** Takes frames into a list, in the background. */
function follow(client: ReturnType<typeof createClient<typeof FeedService>>, request: object) {
  const cancel = new AbortController();
  const frames: Frame[] = [];
  const ended = (async () => {
    for await (const { frame } of client.subscribe(request, { signal: cancel.signal })) frames.push(frame);
  })().catch(() => undefined);
  const stop = async () => {
    cancel.abort();
    await ended;
  };
  return { frames, [Symbol.asyncDispose]: stop };
}

const snapshot = { start: { case: "snapshot" as const, value: {} } };
const has = (frames: readonly Frame[], kind: Frame["case"]) => frames.some((frame) => frame.case === kind);
const told = (frames: readonly Frame[]) =>
  frames.flatMap((frame) =>
    frame.case === "events"
      ? frame.value.events.map(({ operation, key, version }) => `${Operation[operation]} ${key} ${version}`)
      : [frame.case],
  );

describe.each(transports)("UpdateStream by $name", ({ create }) => {
  it("G7 G8 changes an open stream: old selectors, the frame, added rows as of it, new selectors", async () => {
    await using memory = await serveMemory();
    const { store, served } = memory;
    await put(store, "orders", "o1", 1);
    await put(store, "parcels", "p1", 1);
    const client = createClient(FeedService, create(served.url));
    await using stream = follow(client, { ...snapshot, selectors: [{ topics: ["orders"] }] });
    await vi.waitUntil(() => has(stream.frames, "snapshotComplete"));
    const [opened] = stream.frames;
    const streamId = opened?.case === "opened" ? opened.value.streamId : "";
    await put(store, "parcels", "p1", 2);
    await put(store, "orders", "o2", 1);
    await vi.waitUntil(() => has(stream.frames, "events") && told(stream.frames).includes("INSERT o2 4"));
    const answer = await client.updateStream({ streamId, selectors: [{ topics: ["parcels"] }] });
    expect(answer.number).toBe(1n);
    await vi.waitUntil(() => stream.frames.filter((frame) => frame.case === "snapshotComplete").length === 2);
    await put(store, "orders", "o3", 1);
    await put(store, "parcels", "p1", 3);
    await vi.waitUntil(() => told(stream.frames).includes("UPDATE p1 6"));
    const changed = stream.frames.findIndex((frame) => frame.case === "selectorsChanged");
    expect(told(stream.frames.slice(changed))).toEqual([
      "selectorsChanged",
      "snapshotStarted",
      "SNAPSHOT p1 4",
      "snapshotComplete",
      "UPDATE p1 6",
    ]);
    expect(stream.frames[changed]?.value).toMatchObject({ version: 4n, number: 1n, addsRows: true });
    expect(stream.frames[changed + 1]?.value).toMatchObject({ version: 4n, resumed: true, restart: false });
  });

  it("refuses what it cannot do with a code of its own, and leaves the stream as it is", async () => {
    await using memory = await serveMemory();
    const { store, served } = memory;
    const client = createClient(FeedService, create(served.url));
    await using stream = follow(client, { selectors: [{ topics: ["orders"] }] });
    await vi.waitUntil(() => has(stream.frames, "opened"));
    const [opened] = stream.frames;
    const streamId = opened?.case === "opened" ? opened.value.streamId : "";
    const refusals = [
      { request: { streamId, selectors: [{ filter: "row." }] }, code: ErrorCode.FILTER_INVALID },
      { request: { streamId, selectors: Array.from({ length: 65 }, () => ({})) }, code: ErrorCode.INVALID_REQUEST },
      { request: { streamId: "mine", selectors: [] }, code: ErrorCode.INVALID_REQUEST },
      { request: { streamId: streamId.replace(/.$/, "_"), selectors: [] }, code: ErrorCode.STREAM_NOT_FOUND },
      { request: { streamId: "A".repeat(34), selectors: [] }, code: ErrorCode.STREAM_NOT_FOUND },
    ];
    for (const { request, code } of refusals) {
      const error = ConnectError.from(await client.updateStream(request).catch((thrown: unknown) => thrown));
      expect(error.findDetails(ErrorDetailSchema)[0]?.code).toBe(code);
      expect(error.code === Code.NotFound).toBe(code === ErrorCode.STREAM_NOT_FOUND);
    }
    await put(store, "parcels", "p1", 1);
    await put(store, "orders", "o1", 1);
    await vi.waitUntil(() => has(stream.frames, "events"));
    expect(told(stream.frames)).toEqual(["opened", "INSERT o1 2"]);
  });
});
