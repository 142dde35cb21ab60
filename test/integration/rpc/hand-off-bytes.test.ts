import { once } from "node:events";
import { connect as connectTcp } from "node:net";
import { Code, ConnectError } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { FeedError, type FeedErrorCode } from "../../../src/core/errors.ts";
import type { Event } from "../../../src/core/event.ts";
import type { StreamRequest } from "../../../src/core/feed.ts";
import type { EventsFrame, Frame } from "../../../src/core/frame.ts";
import { errorTable } from "../../../src/rpc/errors.ts";
import { call, envelope, type RawAnswer, type Shape, shapes } from "./raw-call.ts";
import { createScriptedFeed, epoch, opened, untilAborted } from "./scripted-feed.ts";
import { type Served, serve } from "./served.ts";

// What a client gets from a handed-off call is what it gets from all of Connect, to the byte. Each case is played by two
// servers that differ in nothing else.

const cursor = { epoch, version: 9, fingerprint: 7, snapshot: undefined };
const text = (length: number): string => JSON.stringify({ text: "äx%:\n".repeat(length / 8) });

function event(version: number, image: string): Event {
  return {
    version,
    topic: "orders",
    key: `${version}`,
    operation: "INSERT",
    before: undefined,
    after: Buffer.from(image),
    transaction: "771",
    occurredAtMicros: 1_763_689_000_123_456 + version,
    headers: Buffer.from('{"by":"ü"}'),
  };
}

function events(images: readonly string[], shared: boolean): EventsFrame {
  const made = images.map((image, index) => event(index + 1, image));
  return { kind: "events", events: made, cursor, complete: true, shared: shared ? { bytes: undefined } : undefined };
}

const checkpoint: Frame = {
  kind: "checkpoint",
  cursor,
  version: 9,
  state: "LIVE",
  lagVersions: 0,
  lagMs: 12,
  timeMicros: 1_763_689_000_123_456,
  progress: undefined,
};
const closing: Frame = { kind: "closing", reason: "DRAINING", cursor, retryAfterMs: 321 };
const all: readonly Frame[] = [
  { ...opened, cursor: { ...cursor, snapshot: "anew" } },
  {
    kind: "snapshot_started",
    version: 9,
    restart: true,
    resumed: false,
    topics: ["orders"],
    estimatedRows: 4,
    cursor: { ...cursor, snapshot: "anew" },
  },
  {
    ...events([text(8)], false),
    cursor: { ...cursor, snapshot: { shape: 3, sources: 0, key: "1", rows: 1 } },
  },
  { ...checkpoint, state: "SNAPSHOT", progress: { rows: 1, estimatedRows: 4 } },
  { kind: "snapshot_complete", version: 9, cursor, rows: 1 },
  events([text(80), text(8_000)], true),
  events(["{}"], false),
  checkpoint,
  { ...checkpoint, state: "STALE", lagMs: undefined, lagVersions: undefined, timeMicros: undefined },
];

const failures: Readonly<Record<string, unknown>> = {
  ...Object.fromEntries(
    Object.keys(errorTable)
      .filter((code): code is FeedErrorCode => code in errorTable)
      .map((code) => [
        code,
        new FeedError(code, "100 % of “it” is gone: ~|`^ \u007f\n…", "Start from `oldest`.", {
          epoch,
          oldestVersion: 3,
          headVersion: 2 ** 53 - 1,
          forkVersion: 5,
          cursor: "AQID",
          retryAfterMs: 1_500,
          violations: [{ field: "selectors[0]", message: "is none" }],
        }),
      ]),
  ),
  "no detail": new FeedError("HISTORY_LOST", "It is gone.", "Start anew."),
  "a long one": new FeedError("INVALID_REQUEST", `It is ${"far too ".repeat(400)}long.`, "Shorten it."),
  unforeseen: new TypeError("password hunter2 is not a function"),
  "of Connect": new ConnectError("no such thing", Code.Unimplemented, { "x-more": "to say", "x-some-bin": "AQID" }),
};

/** What the feed plays; `undefined` waits for the end of the call. */
const stories: Readonly<Record<string, readonly (Frame | { readonly failure: unknown } | undefined)[]>> = {
  "nothing more": [opened],
  "all frames": [...all, closing],
  "large messages": [opened, events([text(60_000), text(60_000)], true), events([text(400_000)], false), closing],
  "an end in time": [opened, undefined],
  ...Object.fromEntries(
    Object.entries(failures).flatMap(([name, failure]) => [
      [`failure ${name} before the first frame`, [{ failure }]],
      [`failure ${name} after some frames`, [opened, events([text(8)], true), { failure }]],
    ]),
  ),
};

function play(request: StreamRequest, signal: AbortSignal): AsyncGenerator<Frame> {
  const story = stories[Object.keys(stories)[Number(request.selectors[0]?.topics[0]?.slice(5))] ?? ""] ?? [];
  return (async function* () {
    for (const part of story) {
      if (part === undefined) {
        await untilAborted(signal);
      } else if ("failure" in part) {
        throw part.failure;
      } else {
        // Each stream gets a lane of its own: the servers and the codecs have none in common.
        yield part.kind === "events" && part.shared !== undefined ? { ...part, shared: { bytes: undefined } } : part;
      }
    }
  })();
}

const request = (story: string) => ({ selectors: [{ topics: [`story${Object.keys(stories).indexOf(story)}`] }] });

const handedOff = process.env.MILLRACE_DELIVERY === "mux" ? "mux" : "hand-off";
const servedBy = (delivery: "stock" | "hand-off" | "mux", compress: boolean): Promise<Served> =>
  serve(createScriptedFeed({ frames: play }), { config: { delivery, compress, maxRequestBytes: 65_536 } });

async function compare(
  pair: readonly Served[],
  shape: Shape,
  body: Buffer,
  headers: Readonly<Record<string, string>> = {},
): Promise<RawAnswer> {
  const [stock, ours] = await Promise.all(pair.map((server) => call(server.url, shape, body, headers)));
  if (stock === undefined || ours === undefined) throw new Error("two servers answer");
  expect(ours.headers).toEqual(stock.headers);
  expect({ ...ours, body: ours.body.toString("latin1") }).toEqual({ ...stock, body: stock.body.toString("latin1") });
  return ours;
}

describe.each([{ compress: false }, { compress: true }])("with compression $compress", ({ compress }) => {
  let pair: readonly Served[];
  beforeAll(async () => {
    pair = await Promise.all([servedBy("stock", compress), servedBy(handedOff, compress)]);
  });
  afterAll(async () => {
    await Promise.all(pair.map((server) => server[Symbol.asyncDispose]()));
  });
  const accepts = compress ? { "grpc-accept-encoding": "gzip", "connect-accept-encoding": "gzip, br" } : {};
  const names = Object.keys(stories).filter((name) => name !== "an end in time");

  describe.each(shapes)("$contentType over HTTP/$http", (shape) => {
    it.each(names)("says what Connect says: %s", async (story) => {
      const answer = await compare(pair, shape, envelope(shape.contentType, request(story)), accepts);
      expect(answer.status).toBe(200);
      expect(answer.body.length + answer.trailers.length).toBeGreaterThan(0);
    });

    it("says deadline_exceeded when a client's time is over, as Connect does", async () => {
      const timeout: Readonly<Record<string, string>> = shape.contentType.includes("connect")
        ? { "connect-timeout-ms": "150" }
        : { "grpc-timeout": "150m" };
      const answer = await compare(pair, shape, envelope(shape.contentType, request("an end in time")), timeout);
      expect(answer.body.toString("latin1") + answer.trailers.join()).toMatch(/deadline_exceeded|grpc-status[:,] ?4/);
    });

    it("answers pages of the web as Connect does", async () => {
      for (const story of [
        "all frames",
        "failure HISTORY_LOST after some frames",
        "failure DRAINING before the first frame",
      ]) {
        const page = { origin: "http://localhost:5173" };
        const answer = await compare(pair, shape, envelope(shape.contentType, request(story)), page);
        expect(answer.headers.map(([name]) => name.toLowerCase())).toContain("access-control-allow-origin");
      }
    });

    it("refuses what Connect refuses", async () => {
      const whole = envelope(shape.contentType, request("all frames"));
      const other = envelope(
        shape.contentType.replace(/proto|json/, (codec) => (codec === "json" ? "proto" : "json")),
        {
          maxMessageBytes: 77,
        },
      );
      const wrong: readonly (readonly [Buffer, Readonly<Record<string, string>>])[] = [
        [Buffer.alloc(0), {}],
        [whole.subarray(0, 3), {}],
        [whole.subarray(0, 9), {}],
        [Buffer.concat([whole, whole]), {}],
        [Buffer.concat([whole, whole.subarray(0, 2)]), {}],
        [other, {}],
        [envelope(shape.contentType, { maxMessageBytes: 77 }), {}],
        [Buffer.concat([Buffer.from([1]), whole.subarray(1)]), {}],
        [Buffer.from([0, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3]), {}],
        [whole, { "grpc-encoding": "zstd", "connect-content-encoding": "zstd" }],
        [whole, { "grpc-timeout": "soon", "connect-timeout-ms": "soon" }],
        [whole, { "grpc-timeout": "0m", "connect-timeout-ms": "0" }],
        [whole, { "content-type": "text/plain" }],
        [whole, { "content-type": "application/json" }],
        [whole, { "content-type": "application/grpc-web-text" }],
      ];
      for (const [body, headers] of wrong) {
        await compare(pair, shape, body, headers);
      }
    });
  });
});

describe.each(shapes)("the end of the server, $contentType over HTTP/$http", (shape) => {
  it("cuts with DRAINING and a cursor, as Connect does", async () => {
    const pair = await Promise.all([servedBy("stock", false), servedBy(handedOff, false)]);
    const answered = compare(pair, shape, envelope(shape.contentType, request("an end in time")));
    await vi.waitUntil(() => pair.every(({ server }) => server.feed.status().streams === 1));
    await Promise.all(pair.map(({ server }) => server.stop(0)));
    const { body, trailers } = await answered;
    expect(body.toString("latin1") + trailers.join()).toMatch(/"unavailable"|grpc-status[:,] ?14/);
  });
});

describe("an HTTP/1.0 client", () => {
  const ask = async (port: number, method: string, type: string, body: Buffer): Promise<string> => {
    const socket = connectTcp(port, "127.0.0.1");
    socket.write(
      `POST /millrace.v1.FeedService/${method} HTTP/1.0\r\ncontent-type: ${type}\r\ncontent-length: ${body.length}\r\n\r\n`,
    );
    socket.write(body);
    const chunks: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    await once(socket, "close");
    return Buffer.concat(chunks)
      .toString("latin1")
      .replace(/date: .*/i, "");
  };

  it("that names no host gets what Connect gives it, and then the end of the connection", async () => {
    const answers: string[] = [];
    for (const delivery of ["stock", handedOff] as const) {
      await using served = await servedBy(delivery, false);
      const body = envelope("application/connect+json", request("all frames"));
      answers.push(await ask(served.port, "Subscribe", "application/connect+json", body));
      expect(await ask(served.port, "GetStatus", "application/json", Buffer.from("{}"))).toContain("200 OK");
    }
    expect(answers[0]).toContain("200 OK");
    expect(answers[1]).toBe(answers[0]);
  });
});
