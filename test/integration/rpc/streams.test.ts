import { once } from "node:events";
import { request as requestHttp1 } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { describe, expect, it, vi } from "vitest";
import { ErrorCode, ErrorDetailSchema } from "../../../gen/millrace/v1/error_pb.js";
import { PayloadForm, PayloadOmitted } from "../../../gen/millrace/v1/event_pb.js";
import {
  ClosingReason,
  FeedService,
  FeedState,
  type SubscribeResponse,
} from "../../../gen/millrace/v1/feed_service_pb.js";
import { createFeed } from "../../../src/core/feed/feed-service.ts";
import { createMemoryStore } from "../../../src/memory/store.ts";
import { type Served, type ServedOptions, serve, transports } from "./served.ts";

async function serveMemory(options: ServedOptions = {}, maxStreams = 1_000) {
  const store = createMemoryStore({ sources: ["orders"] });
  const feed = createFeed({ store, wakeUp: store.wakeUp, limits: { maxStreams } });
  await feed.start(new AbortController().signal);
  const served = await serve(feed, options);
  return { store, feed, served, [Symbol.asyncDispose]: () => served[Symbol.asyncDispose]() };
}

type Memory = Awaited<ReturnType<typeof serveMemory>>;

async function put({ store }: Memory, key: string, json: string): Promise<void> {
  const transaction = store.begin();
  await transaction.put("orders", key, json);
  transaction.commit();
}

type Frame = SubscribeResponse["frame"];

/** Reads until the condition holds, then cancels the call, as a client does that knows what it wants. */
async function readUntil(
  served: Served,
  create: (typeof transports)[number]["create"],
  request: Parameters<ReturnType<typeof createClient<typeof FeedService>>["subscribe"]>[0],
  done: (frames: readonly Frame[]) => boolean,
): Promise<readonly Frame[]> {
  const cancel = new AbortController();
  const frames: Frame[] = [];
  try {
    const stream = createClient(FeedService, create(served.url)).subscribe(request, { signal: cancel.signal });
    for await (const { frame } of stream) {
      frames.push(frame);
      if (done(frames)) break;
    }
  } finally {
    cancel.abort();
  }
  return frames;
}

const streamsOf = (memory: Memory) => vi.waitUntil(() => memory.feed.status().streams === 0, { timeout: 10_000 });
const events = (frames: readonly Frame[]) =>
  frames.flatMap((frame) => (frame.case === "events" ? frame.value.events : []));

describe.each(transports)("a stream by $name", ({ create }) => {
  it("carries what was committed, whole, and what is committed later, and is gone once the client cancels", async () => {
    await using memory = await serveMemory();
    await put(memory, "1", '{"id":1,"total":12345678901234567890.50,"note":"\\u0000 ü"}');
    const frames = await readUntil(memory.served, create, { start: { case: "oldest", value: {} } }, (seen) => {
      if (events(seen).length === 1 && memory.feed.status().head === 1) void put(memory, "1", '{"id":1}');
      return events(seen).length === 2;
    });
    const [opened] = frames;
    expect(opened?.case === "opened" && opened.value).toMatchObject({
      epoch: memory.store.epoch,
      version: 0n,
      oldestVersion: 1n,
      maxMessageBytes: 4_128_768,
      maxBatchBytes: 1_048_576,
      checkpointInterval: { seconds: 15n },
    });
    const [insert, update] = events(frames);
    expect(insert).toMatchObject({ version: 1n, topic: "orders", key: "1", operation: 1 });
    expect(insert?.after?.form.value).toBe('{"id":1,"total":12345678901234567890.50,"note":"\\u0000 ü"}');
    expect(update).toMatchObject({ version: 2n, operation: 2 });
    expect(update?.before?.form.value).toBe(insert?.after?.form.value);
    await streamsOf(memory);
  });

  it("sends checkpoints at the interval asked for", async () => {
    await using memory = await serveMemory();
    const frames = await readUntil(
      memory.served,
      create,
      { delivery: { checkpointInterval: { nanos: 100_000_000 } } },
      (seen) => seen.filter((frame) => frame.case === "checkpoint").length === 2,
    );
    const opened = frames[0];
    expect(opened?.case === "opened" && opened.value.checkpointInterval?.nanos).toBe(100_000_000);
  });

  it("begins with a snapshot where one is asked for, and resumes after it", async () => {
    await using memory = await serveMemory();
    for (const key of ["1", "2", "3"]) await put(memory, key, `{"id":${key}}`);
    const frames = await readUntil(memory.served, create, { start: { case: "snapshot", value: {} } }, (seen) =>
      seen.some((frame) => frame.case === "snapshotComplete"),
    );
    expect(events(frames).map(({ key, operation, version }) => [key, operation, version])).toEqual([
      ["1", 5, 3n],
      ["2", 5, 3n],
      ["3", 5, 3n],
    ]);
    const complete = frames.at(-1);
    const cursor = complete?.case === "snapshotComplete" ? complete.value.cursor : "";
    await put(memory, "4", '{"id":4}');
    const resumed = await readUntil(
      memory.served,
      create,
      { start: { case: "afterCursor", value: cursor } },
      (seen) => events(seen).length > 0,
    );
    expect(events(resumed).map(({ key, version }) => [key, version])).toEqual([["4", 4n]]);
  });

  it("ends with `closing` and a cursor before the client's deadline", async () => {
    await using memory = await serveMemory();
    await put(memory, "1", "{}");
    const client = createClient(FeedService, create(memory.served.url));
    const frames: Frame[] = [];
    for await (const { frame } of client.subscribe({ start: { case: "oldest", value: {} } }, { timeoutMs: 2_000 })) {
      frames.push(frame);
    }
    const last = frames.at(-1);
    expect(last?.case === "closing" && last.value.reason).toBe(ClosingReason.DEADLINE);
    const batch = frames.findLast((frame) => frame.case === "events");
    expect(last?.case === "closing" && last.value.cursor).toBe(batch?.case === "events" && batch.value.cursor);
    await streamsOf(memory);
  });

  it("ends with `closing` as the server drains, and refuses new ones meanwhile", async () => {
    const memory = await serveMemory();
    const frames: Frame[] = [];
    let stopped: Promise<void> = Promise.resolve();
    for await (const { frame } of createClient(FeedService, create(memory.served.url)).subscribe({})) {
      frames.push(frame);
      if (frame.case === "opened") stopped = memory.served.server.stop();
    }
    await stopped;
    expect(frames.map((frame) => frame.case)).toEqual(["opened", "closing"]);
    const last = frames.at(-1);
    expect(last?.case === "closing" && last.value.reason).toBe(ClosingReason.DRAINING);
  });

  it("publishes, answers with the version, and shows it to whoever waits for the transaction", async () => {
    await using memory = await serveMemory();
    const client = createClient(FeedService, create(memory.served.url));
    const request = {
      idempotencyKey: "once",
      events: [
        {
          topic: "notes",
          key: "a",
          payload: { form: { case: "json" as const, value: '{"n": 1.0}' } },
          headers: { by: "me" },
        },
        { topic: "notes" },
      ],
    };
    const published = await client.publish(request);
    expect(published).toMatchObject({ version: 2n, duplicate: false });
    expect(await client.publish(request)).toMatchObject({ transaction: published.transaction, duplicate: true });
    const frames = await readUntil(
      memory.served,
      create,
      { start: { case: "afterVersion", value: 0n }, afterTransaction: published.transaction },
      (seen) => events(seen).length === 2,
    );
    expect(events(frames)[0]).toMatchObject({ topic: "notes", key: "a", operation: 6, headers: { by: "me" } });
    expect(events(frames)[0]?.after?.form.value).toBe('{"n": 1.0}');
    expect(events(frames)[1]?.after).toBeUndefined();
  });

  it("leaves out what the client cannot take, and says so", async () => {
    await using memory = await serveMemory();
    await put(memory, "1", `{"text":"${"x".repeat(10_000)}"}`);
    await put(memory, "2", '{"text":"small"}');
    const oldest = { start: { case: "oldest" as const, value: {} } };
    const both = (seen: readonly Frame[]) => events(seen).length === 2;
    const small = await readUntil(memory.served, create, { ...oldest, maxMessageBytes: 4096 }, both);
    expect(events(small).map((event) => [event.payloadOmitted, event.after === undefined])).toEqual([
      [PayloadOmitted.TOO_LARGE, true],
      [PayloadOmitted.UNSPECIFIED, false],
    ]);
    const none = await readUntil(memory.served, create, { ...oldest, payloadForm: PayloadForm.NONE }, both);
    expect(events(none).map((event) => [event.payloadOmitted, event.after])).toEqual([
      [PayloadOmitted.UNSPECIFIED, undefined],
      [PayloadOmitted.UNSPECIFIED, undefined],
    ]);
  });

  it("is refused above the limit, with a word on when to come back", async () => {
    await using memory = await serveMemory({}, 1);
    const cancel = new AbortController();
    const client = createClient(FeedService, create(memory.served.url));
    const first = client.subscribe({}, { signal: cancel.signal })[Symbol.asyncIterator]();
    await first.next();
    const error: unknown = await client
      .subscribe({})
      [Symbol.asyncIterator]()
      .next()
      .catch((reason: unknown) => reason);
    if (!(error instanceof ConnectError)) throw new Error(`expected a ConnectError, got ${String(error)}`);
    expect(error.code).toBe(Code.ResourceExhausted);
    expect(error.findDetails(ErrorDetailSchema)[0]).toMatchObject({
      code: ErrorCode.LIMIT_EXCEEDED,
      retryAfter: { seconds: 1n },
    });
    cancel.abort();
    await streamsOf(memory);
  });

  it("tells where the feed stands", async () => {
    const problem = { code: "TRIGGER_DISABLED", message: "The trigger on orders is off.", action: "Enable it." };
    await using memory = await serveMemory({ problems: [problem] });
    await put(memory, "1", "{}");
    await vi.waitUntil(() => memory.feed.status().head === 1);
    const status = await createClient(FeedService, create(memory.served.url)).getStatus({});
    expect(status).toMatchObject({
      epoch: memory.store.epoch,
      headVersion: 1n,
      oldestVersion: 1n,
      state: FeedState.LIVE,
      streams: 0,
      logEvents: 1n,
      logOldestVersion: 1n,
      problems: [problem],
    });
    expect(status.serverVersion).toMatch(/^\d+\.\d+\.\d+/);
    expect(status.settledAge).toBeDefined();
    expect(status.settledAt).toBeDefined();
  });
});

describe("a client that vanishes", () => {
  const path = "/millrace.v1.FeedService/Subscribe";
  const envelope = Buffer.from([0, 0, 0, 0, 2, 0x7b, 0x7d]);
  const headers = { "content-type": "application/connect+json" };

  it.each(["before it has sent its request", "in the middle of a stream"])(
    "G9 over HTTP/1.1, %s, leaves no stream behind",
    async (when) => {
      await using memory = await serveMemory();
      const call = requestHttp1(memory.served.url + path, { method: "POST", headers });
      call.on("error", () => undefined);
      if (when.startsWith("before")) {
        call.write(envelope.subarray(0, 3));
        await once(call, "socket");
      } else {
        call.end(envelope);
        const [response] = await once(call, "response");
        response.on("error", () => undefined);
        await vi.waitUntil(() => memory.feed.status().streams === 1);
      }
      call.destroy();
      await streamsOf(memory);
      expect(memory.served.logged.filter((line) => line.level === 50)).toEqual([]);
    },
  );

  it("G9 over HTTP/2, with many streams on one connection, leaves none behind", async () => {
    await using memory = await serveMemory();
    const session = connectHttp2(memory.served.url);
    session.on("error", () => undefined);
    for (let index = 0; index < 50; index++) {
      const stream = session.request({ ":method": "POST", ":path": path, ...headers });
      stream.on("error", () => undefined);
      stream.end(envelope);
    }
    await vi.waitUntil(() => memory.feed.status().streams === 50);
    session.destroy();
    await streamsOf(memory);
    expect(memory.served.logged.filter((line) => line.level === 50)).toEqual([]);
  });

  it("G9 stops reading, and holds up nobody else", async () => {
    await using memory = await serveMemory();
    const session = connectHttp2(memory.served.url);
    const stuck = session.request({ ":method": "POST", ":path": path, ...headers });
    stuck.end(Buffer.from([0, 0, 0, 0, 13, ...Buffer.from('{"oldest":{}}')]));
    await once(stuck, "response");
    stuck.pause();
    const [transport] = transports;
    if (transport === undefined) throw new Error("no transport");
    const large = JSON.stringify("x".repeat(50_000));
    for (let index = 0; index < 200; index++) await put(memory, String(index), large);
    const frames = await readUntil(
      memory.served,
      transport.create,
      { start: { case: "oldest", value: {} } },
      (seen) => events(seen).length === 200,
    );
    expect(events(frames).map(({ version }) => version)).toEqual(Array.from({ length: 200 }, (_, i) => BigInt(i + 1)));
    expect(memory.feed.status().streams).toBeGreaterThanOrEqual(1);
    session.destroy();
    await streamsOf(memory);
  });
});
