import { once } from "node:events";
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  type SecureClientSessionOptions,
} from "node:http2";
import { request as requestHttps } from "node:https";
import { fileURLToPath } from "node:url";
import { fromBinary } from "@bufbuild/protobuf";
import { describe, expect, it, vi } from "vitest";
import { type SubscribeResponse, SubscribeResponseSchema } from "../../../gen/millrace/v1/feed_service_pb.js";
import { createFeed } from "../../../src/core/feed/feed-service.ts";
import { createMemoryStore } from "../../../src/memory/store.ts";
import { envelope, openCall, subscribePath } from "./raw-call.ts";
import { type ServedOptions, serve } from "./served.ts";

const contentType = "application/grpc+proto";
const fromOldest = envelope(contentType, { start: { case: "oldest", value: {} } });
const headers = { "content-type": contentType, te: "trailers" };

const tls = {
  tlsCert: fileURLToPath(new URL("./certificates/localhost.crt", import.meta.url)),
  tlsKey: fileURLToPath(new URL("./certificates/localhost.key", import.meta.url)),
};

async function serveMemory(config: ServedOptions["config"] = {}) {
  const store = createMemoryStore({ sources: ["orders"] });
  const feed = createFeed({ store, wakeUp: store.wakeUp });
  await feed.start(new AbortController().signal);
  const served = await serve(feed, { config });
  return {
    feed,
    served,
    async put(count: number, bytes: number): Promise<void> {
      for (let index = 0; index < count; index++) {
        const transaction = store.begin();
        await transaction.put("orders", String(index), JSON.stringify("x".repeat(bytes)));
        transaction.commit();
      }
    },
    async gone(): Promise<void> {
      await vi.waitUntil(() => feed.status().streams === 0, { timeout: 10_000 });
      expect(served.logged.filter((line) => line.level === 50)).toEqual([]);
    },
    [Symbol.asyncDispose]: () => served[Symbol.asyncDispose](),
  };
}

/** Bytes of the messages that a body holds as a whole. */
function wholeBytes(body: Buffer): number {
  let at = 0;
  while (at + 5 <= body.length && at + 5 + body.readUInt32BE(at + 1) <= body.length) {
    at += 5 + body.readUInt32BE(at + 1);
  }
  return at;
}

function messagesIn(body: Buffer): readonly SubscribeResponse[] {
  const messages: SubscribeResponse[] = [];
  const whole = wholeBytes(body);
  for (let at = 0; at < whole; at += 5 + body.readUInt32BE(at + 1)) {
    messages.push(fromBinary(SubscribeResponseSchema, body.subarray(at + 5, at + 5 + body.readUInt32BE(at + 1))));
  }
  return messages;
}

const versionsIn = (body: Buffer): readonly number[] =>
  messagesIn(body).flatMap(({ frame }) =>
    frame.case === "events" ? frame.value.events.map(({ version }) => Number(version)) : [],
  );
const upTo = (count: number): readonly number[] => Array.from({ length: count }, (_, index) => index + 1);

/** Reads until so many events have come. */
function readEvents(stream: ClientHttp2Stream, count: number): Promise<readonly number[]> {
  const seen: number[] = [];
  let rest: Buffer = Buffer.alloc(0);
  return new Promise((resolve, reject) => {
    stream.on("data", (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk]);
      const whole = wholeBytes(rest);
      seen.push(...versionsIn(rest.subarray(0, whole)));
      rest = rest.subarray(whole);
      if (seen.length >= count) resolve(seen);
    });
    stream.on("close", () => reject(new Error(`the stream closed after ${seen.length} events`)));
  });
}

async function withSession<T>(
  url: string,
  options: SecureClientSessionOptions,
  use: (session: ClientHttp2Session) => Promise<T>,
): Promise<T> {
  const session = connectHttp2(url, options);
  session.on("error", () => undefined);
  try {
    return await use(session);
  } finally {
    session.destroy();
  }
}

describe("a window", () => {
  it.each([1, 100, 4_096, 65_535, 1_000_000])("of %d bytes brings everything, in order", async (window) => {
    await using memory = await serveMemory();
    await memory.put(40, window === 1 ? 20 : 5_000);
    await withSession(memory.served.url, { settings: { initialWindowSize: window } }, async (session) => {
      const read = readEvents(openCall(session, fromOldest, headers), 41);
      await memory.put(1, 10);
      expect(await read).toEqual(upTo(41));
    });
    await memory.gone();
  });
});

describe("TLS", () => {
  it.each([1_000, 65_535])("carries everything, in order, and the end, with a window of %d", async (window) => {
    await using memory = await serveMemory(tls);
    await memory.put(40, 5_000);
    const options = { settings: { initialWindowSize: window }, rejectUnauthorized: false };
    await withSession(memory.served.url, options, async (session) => {
      const stream = openCall(session, fromOldest, headers);
      const statuses: unknown[] = [];
      stream.on("trailers", (fields) => statuses.push(fields["grpc-status"]));
      expect(await readEvents(stream, 40)).toEqual(upTo(40));
      const closed = once(stream, "close");
      await memory.served.server.stop();
      await closed;
      expect(statuses).toEqual(["0"]);
    });
  });

  it("carries HTTP/1.1 as well", async () => {
    await using memory = await serveMemory(tls);
    await memory.put(40, 5_000);
    const sent = requestHttps(memory.served.url + subscribePath, {
      method: "POST",
      headers,
      rejectUnauthorized: false,
    });
    sent.on("error", () => undefined);
    sent.end(fromOldest);
    const [answer] = await once(sent, "response");
    const chunks: Buffer[] = [];
    answer.on("data", (chunk: Buffer) => chunks.push(chunk));
    await vi.waitUntil(() => versionsIn(Buffer.concat(chunks)).length === 40);
    expect(versionsIn(Buffer.concat(chunks))).toEqual(upTo(40));
    sent.destroy();
    await memory.gone();
  });
});

describe("a reader", () => {
  it("G9 that stops does not hold up another of its connection, and has everything once it goes on", async () => {
    await using memory = await serveMemory();
    await memory.put(100, 30_000);
    await withSession(memory.served.url, {}, async (session) => {
      await once(session, "connect");
      session.setLocalWindowSize(64 * 1024 * 1024);
      const stuck = openCall(session, fromOldest, headers);
      await once(stuck, "response");
      stuck.pause();
      const other = await readEvents(openCall(session, fromOldest, headers), 100);
      expect(other).toEqual(upTo(100));
      const late = readEvents(stuck, 100);
      stuck.resume();
      expect(await late).toEqual(upTo(100));
    });
    await memory.gone();
  });
});

describe("a cancel", () => {
  const moments: readonly (readonly [string, (stream: ClientHttp2Stream) => Promise<unknown>])[] = [
    ["with the request", async () => undefined],
    ["as the head arrives", (stream) => once(stream, "response")],
    ["as the first bytes arrive", (stream) => once(stream, "data")],
    ["in the middle of the body", (stream) => readEvents(stream, 20)],
    [
      "with a window that is full",
      async (stream) => {
        stream.pause();
        await once(stream, "readable");
      },
    ],
  ];
  const cancels = moments.flatMap(([name, moment]) =>
    [8, 2].map((code) => ({ name: `${name}, with code ${code},`, moment, code })),
  );
  it.each(cancels)("G9 $name leaves nothing, whoever shares the connection", async ({ moment, code }) => {
    await using memory = await serveMemory();
    await memory.put(60, 5_000);
    await withSession(memory.served.url, {}, async (session) => {
      const staying = openCall(session, fromOldest, headers);
      const read = readEvents(staying, 61);
      await Promise.all(
        Array.from({ length: 30 }, async () => {
          const stream = openCall(session, fromOldest, headers);
          await moment(stream);
          stream.close(code);
          await new Promise((resolve) => stream.once("close", resolve));
        }),
      );
      await memory.put(1, 10);
      expect(await read).toEqual(upTo(61));
      await vi.waitUntil(() => memory.feed.status().streams === 1, { timeout: 10_000 });
    });
    await memory.gone();
  });
});

describe("a thousand streams", () => {
  it("on one connection get everything, and `closing` with status 0 at the end", async () => {
    await using memory = await serveMemory();
    await memory.put(3, 10);
    await withSession(memory.served.url, {}, async (session) => {
      await once(session, "remoteSettings");
      const bodies = Array.from({ length: 1_000 }, () => {
        const stream = openCall(session, fromOldest, headers);
        const chunks: Buffer[] = [];
        const statuses: unknown[] = [];
        stream.on("data", (chunk: Buffer) => chunks.push(chunk));
        stream.on("trailers", (fields) => statuses.push(fields["grpc-status"]));
        return { stream, chunks, statuses, closed: once(stream, "close") };
      });
      await vi.waitUntil(() => memory.feed.status().streams === 1_000, { timeout: 30_000 });
      await memory.put(20, 200);
      await vi.waitUntil(() => bodies.every(({ chunks }) => versionsIn(Buffer.concat(chunks)).length === 23), {
        timeout: 30_000,
        interval: 200,
      });
      const stopped = memory.served.server.stop();
      await Promise.all(bodies.map(({ closed }) => closed));
      await stopped;
      for (const { chunks, statuses } of bodies) {
        const body = Buffer.concat(chunks);
        expect(versionsIn(body)).toEqual(upTo(23));
        expect(messagesIn(body).at(-1)?.frame.case).toBe("closing");
        expect(statuses).toEqual(["0"]);
      }
    });
  });
});
