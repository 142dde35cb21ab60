import { getEventListeners, once } from "node:events";
import { createServer as createHttp1Server } from "node:http";
import {
  type ClientHttp2Stream,
  connect as connectHttp2,
  createServer,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import { describe, expect, it, vi } from "vitest";
import { systemClock } from "../../../src/core/clock.ts";
import { FeedError } from "../../../src/core/errors.ts";
import type { FeedLimits } from "../../../src/core/feed/feed-limits.ts";
import { createFeed } from "../../../src/core/feed/feed-service.ts";
import type { Feed } from "../../../src/core/feed.ts";
import { createMemoryStore } from "../../../src/memory/store.ts";
import type { StreamEnd } from "../../../src/rpc/hand-off/stream-end.ts";
import { createRpcHandlers, type RpcHandlerOptions } from "../../../src/rpc/handler.ts";
import { call, envelope, openCall } from "./raw-call.ts";
import { createScriptedFeed, opened, untilAborted } from "./scripted-feed.ts";

const contentType = "application/grpc+proto";
const headers = { "content-type": contentType, te: "trailers" };
const anything = envelope(contentType, {});

/** The handlers on servers of their own, with everything that they tell. */
async function serveHandlers(feed: Feed, options: Partial<RpcHandlerOptions> = {}) {
  const ends: StreamEnd[] = [];
  const shutdown = new AbortController();
  const handlers = createRpcHandlers({
    feed,
    clock: systemClock,
    problems: () => [],
    checkpointIntervalMs: 15_000,
    serverVersion: "0.0.0",
    log: { error: () => undefined },
    maxRequestBytes: 65_536,
    compress: false,
    shutdownSignal: shutdown.signal,
    fallback: (_request, response) => response.end(),
    onStreamEnd: (end) => ends.push(end),
    ...options,
  });
  const http2 = createServer();
  const sessions = new Set<ServerHttp2Session>();
  http2.on("session", (session) => sessions.add(session));
  http2.on("stream", (stream: ServerHttp2Stream, fields) => {
    stream.on("error", () => undefined);
    expect(handlers.stream(stream, fields)).toBe(true);
  });
  const http1 = createHttp1Server(handlers.request);
  http2.listen(0, "127.0.0.1");
  http1.listen(0, "127.0.0.1");
  await Promise.all([once(http2, "listening"), once(http1, "listening")]);
  const urlOf = (server: { address(): ReturnType<typeof http1.address> }): string => {
    const address = server.address();
    return `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`;
  };
  return {
    ends,
    shutdown,
    http1: urlOf(http1),
    http2: urlOf(http2),
    async [Symbol.asyncDispose]() {
      for (const session of sessions) session.destroy();
      http1.closeAllConnections();
      await Promise.all([http1, http2].map((server) => new Promise((resolve) => server.close(resolve))));
    },
  };
}

async function memoryFeed(limits: Partial<FeedLimits> = {}) {
  const store = createMemoryStore({ sources: ["orders"] });
  const feed = createFeed({ store, wakeUp: store.wakeUp, limits });
  await feed.start(new AbortController().signal);
  return {
    feed,
    async put(count: number, bytes: number): Promise<void> {
      for (let index = 0; index < count; index++) {
        const transaction = store.begin();
        await transaction.put("orders", String(index), JSON.stringify("x".repeat(bytes)));
        transaction.commit();
      }
    },
  };
}

const waiting = () =>
  createScriptedFeed({
    async *frames(_request, signal) {
      yield opened;
      await untilAborted(signal);
    },
  });

function connectTo(url: string) {
  const session = connectHttp2(url);
  session.on("error", () => undefined);
  return Object.assign(session, { [Symbol.dispose]: () => session.destroy() });
}

async function openStreams(session: ReturnType<typeof connectTo>, count: number): Promise<ClientHttp2Stream[]> {
  const streams = Array.from({ length: count }, () => openCall(session, anything, headers));
  await Promise.all(streams.map((stream) => once(stream, "response")));
  return streams;
}

describe("the end of a handed-off stream", () => {
  it("is told with what it carried: closed, failed, gone", async () => {
    const failure = new FeedError("HISTORY_LOST", "It is gone.", "Start anew.");
    const stories: Feed[] = [
      createScriptedFeed({}),
      createScriptedFeed({
        async *frames() {
          yield opened;
          throw failure;
        },
      }),
    ];
    for (const feed of stories) {
      await using served = await serveHandlers(feed);
      const answer = await call(served.http2, { http: "2", contentType }, anything);
      expect(served.ends).toEqual([
        {
          outcome: feed === stories[0] ? "closed" : "failed",
          error: feed === stories[0] ? undefined : expect.objectContaining({ rawMessage: "It is gone. Start anew." }),
          messages: 1,
          bytes: answer.body.length,
        },
      ]);
    }
    await using served = await serveHandlers(waiting());
    using session = connectTo(served.http2);
    const [stream] = await openStreams(session, 1);
    stream?.close(8);
    await vi.waitUntil(() => served.ends.length > 0);
    expect(served.ends).toMatchObject([{ outcome: "gone", error: undefined, messages: 1 }]);
  });

  it("tells the client nothing of our insides, and the log everything", async () => {
    const logged: unknown[] = [];
    const feed = createScriptedFeed({
      async *frames() {
        yield opened;
        throw new TypeError("password hunter2 is not a function");
      },
    });
    await using served = await serveHandlers(feed, { log: { error: (...line) => logged.push(line) } });
    const answer = await call(served.http2, { http: "2", contentType: "application/connect+proto" }, anything);
    expect(answer.body.toString()).not.toContain("hunter2");
    expect(logged).toEqual([
      [
        {
          err: expect.objectContaining({ message: "password hunter2 is not a function" }),
          procedure: expect.any(String),
        },
        expect.any(String),
      ],
    ]);
  });

  it("is told of the client's deadline, and of the server's end", async () => {
    await using served = await serveHandlers(waiting());
    using session = connectTo(served.http2);
    const late = openCall(session, anything, { ...headers, "grpc-timeout": "100m" });
    late.resume();
    await once(late, "close");
    expect(served.ends).toMatchObject([{ outcome: "failed", error: { code: 4 } }]);
    await openStreams(session, 2);
    served.shutdown.abort(new FeedError("DRAINING", "The server is going down.", "Come back."));
    await vi.waitUntil(() => served.ends.length === 3);
    expect(served.ends.slice(1)).toMatchObject([{ error: { code: 14 } }, { error: { code: 14 } }]);
  });

  it.each([true, false])(
    "does not come at once where the deadline is beyond all timers (hand-off %s)",
    async (handOff) => {
      const feed = createScriptedFeed({
        async *frames() {
          const began = performance.now();
          await vi.waitUntil(() => performance.now() > began + 50, { interval: 10 });
          yield opened;
        },
      });
      await using served = await serveHandlers(feed, { handOff });
      for (const protocol of ["grpc", "connect"]) {
        const shape = { http: "1.1", contentType: `application/${protocol}+json` } as const;
        const timeouts = { "grpc-timeout": "9999999H", "connect-timeout-ms": "9999999999" };
        const answer = await call(served.http1, shape, envelope(shape.contentType, {}), timeouts);
        expect(answer.body.toString()).toContain('"opened"');
      }
    },
  );

  it("G9 leaves no listener on the server's own signal, however many there were", async () => {
    await using served = await serveHandlers(waiting());
    const before = getEventListeners(served.shutdown.signal, "abort").length;
    using session = connectTo(served.http2);
    await openStreams(session, 50);
    expect(getEventListeners(served.shutdown.signal, "abort").length).toBe(before);
    session.destroy();
    await vi.waitUntil(() => served.ends.length === 50);
    expect(getEventListeners(served.shutdown.signal, "abort").length).toBe(before);
  });
});

describe("a reader that is stuck", () => {
  const window = 65_535;
  const messageBytes = 8_192;
  const request = envelope(contentType, { start: { case: "oldest", value: {} }, maxMessageBytes: messageBytes });

  it("G9 has no more in flight than its stream may have", async () => {
    const { feed, put } = await memoryFeed({ maxStreamBytes: 100_000 });
    await put(200, 5_000);
    await using served = await serveHandlers(feed);
    using session = connectTo(served.http2);
    await once(session, "connect");
    session.setLocalWindowSize(2 ** 24);
    const stuck = openCall(session, request, headers);
    await once(stuck, "response");
    stuck.pause();
    // Another one reads everything meanwhile: the first has had its turns.
    const reading = openCall(session, request, headers);
    let bytes = 0;
    reading.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
    });
    await vi.waitUntil(() => bytes > 200 * 5_000);
    stuck.close(8);
    await vi.waitUntil(() => served.ends.length === 1);
    expect(served.ends[0]?.bytes).toBeGreaterThan(window);
    expect(served.ends[0]?.bytes).toBeLessThanOrEqual(window + 100_000 + messageBytes);
  });

  it("G9 leaves the others of its connection the least, once all together have too much", async () => {
    const { feed, put } = await memoryFeed({ maxStreamBytes: 100_000 });
    await put(200, 5_000);
    const inFlight = { connectionBytes: 150_000, leastStreamBytes: 10_000 };
    await using served = await serveHandlers(feed, { inFlight });
    using session = connectTo(served.http2);
    await once(session, "connect");
    session.setLocalWindowSize(2 ** 24);
    const stuck = Array.from({ length: 30 }, () => openCall(session, request, headers));
    for (const stream of stuck) {
      await once(stream, "response");
      stream.pause();
    }
    const reading = openCall(session, request, headers);
    let bytes = 0;
    reading.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
    });
    await vi.waitUntil(() => bytes > 200 * 5_000);
    for (const stream of stuck) stream.close(8);
    await vi.waitUntil(() => served.ends.length === 30);
    const sum = served.ends.reduce((total, end) => total + end.bytes, 0);
    // Each of those that came before it was too much may have gone over the whole by its own, and the others have the least.
    expect(sum).toBeLessThanOrEqual(30 * (window + 10_000 + messageBytes) + 150_000 + 100_000);
    expect(sum).toBeGreaterThan(30 * window);
  });
});
