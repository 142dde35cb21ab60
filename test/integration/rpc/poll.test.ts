import { once } from "node:events";
import { request as requestHttp1 } from "node:http";
import {
  create as createMessage,
  fromBinary,
  type MessageInitShape,
  toBinary,
  toJson,
  toJsonString,
} from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { describe, expect, it, vi } from "vitest";
import { ErrorCode, ErrorDetailSchema } from "../../../gen/millrace/v1/error_pb.js";
import { PayloadForm, PayloadOmitted } from "../../../gen/millrace/v1/event_pb.js";
import { FeedService, PollRequestSchema, PollResponseSchema } from "../../../gen/millrace/v1/feed_service_pb.js";
import { createFeed } from "../../../src/core/feed/feed-service.ts";
import { createMemoryStore } from "../../../src/memory/store.ts";
import { type ServedOptions, serve, transports } from "./served.ts";

type Request = MessageInitShape<typeof PollRequestSchema>;

const path = "/millrace.v1.FeedService/Poll";

async function serveMemory(options: ServedOptions = {}) {
  const store = createMemoryStore({ sources: ["orders"] });
  const feed = createFeed({ store, wakeUp: store.wakeUp });
  await feed.start(new AbortController().signal);
  const served = await serve(feed, options);
  return { store, feed, served, [Symbol.asyncDispose]: () => served[Symbol.asyncDispose]() };
}

type Memory = Awaited<ReturnType<typeof serveMemory>>;

/** A transaction of so many orders. */
async function put({ store, feed }: Memory, keys: readonly string[], payload = "{}"): Promise<void> {
  const transaction = store.begin();
  for (const key of keys) await transaction.put("orders", key, payload);
  transaction.commit();
  const { head } = await store.bounds(new AbortController().signal);
  await vi.waitUntil(() => feed.status().head >= Math.max(head, 1), { timeout: 10_000 });
}

async function settled({ feed }: Memory, head: number): Promise<void> {
  await vi.waitUntil(() => feed.status().head >= head, { timeout: 10_000 });
}

const fromTheFirst = { start: { case: "afterVersion", value: 0n } } as const satisfies Request;
const cursorStart = (value: string) => ({ start: { case: "afterCursor", value } }) as const satisfies Request;
const versions = ({ events }: { readonly events: readonly { readonly version: bigint }[] }) =>
  events.map(({ version }) => Number(version));

describe.each(transports)("a poll by $name", ({ create }) => {
  it("gives pages, one after the other, and then waits for what comes", async () => {
    await using memory = await serveMemory();
    const poll = createClient(FeedService, create(memory.served.url)).poll;
    await put(memory, ["1", "2"], '{"total":12345678901234567890.50,"note":"\\u0000 ü"}');
    await put(memory, ["3"]);
    await settled(memory, 3);
    const first = await poll({ ...fromTheFirst, maxEvents: 2 });
    expect(versions(first)).toEqual([1, 2]);
    expect(first).toMatchObject({
      hasMore: true,
      complete: true,
      subscriptionActive: false,
      epoch: memory.store.epoch,
    });
    expect(first.headVersion).toBeUndefined();
    expect(first.events[0]?.after?.form.value).toBe('{"total":12345678901234567890.50,"note":"\\u0000 ü"}');
    const second = await poll({ ...cursorStart(first.cursor), maxEvents: 2, timeout: { seconds: 60n } });
    expect(versions(second)).toEqual([3]);
    expect(second).toMatchObject({ hasMore: false, complete: true, headVersion: 3n });
    const waiting = poll({ ...cursorStart(second.cursor), timeout: { seconds: 60n } });
    await vi.waitUntil(() => memory.feed.status().streams === 1, { timeout: 10_000 });
    await put(memory, ["4", "5"]);
    const third = await waiting;
    expect(versions(third)).toEqual([4, 5]);
    expect(third).toMatchObject({ hasMore: false, complete: true, headVersion: 5n });
    const none = await poll(cursorStart(third.cursor));
    expect(none).toMatchObject({ events: [], cursor: third.cursor, hasMore: false });
    expect(memory.feed.status().streams).toBe(0);
  });

  it("G8 goes on where a stream was cut, and a stream where it was", async () => {
    await using memory = await serveMemory();
    const client = createClient(FeedService, create(memory.served.url));
    await put(memory, ["1", "2", "3"]);
    await settled(memory, 3);
    const { cursor } = await client.poll({ ...fromTheFirst, maxEvents: 1 });
    const stop = new AbortController();
    const streamed: number[] = [];
    let last = "";
    for await (const { frame } of client.subscribe(
      { start: { case: "afterCursor", value: cursor }, delivery: { batch: { maxEvents: 1 } } },
      { signal: stop.signal },
    )) {
      if (frame.case !== "events") continue;
      streamed.push(...versions(frame.value));
      last = frame.value.cursor;
      break;
    }
    stop.abort();
    expect(streamed).toEqual([2]);
    expect(versions(await client.poll(cursorStart(last)))).toEqual([3]);
  });

  it("is refused with the path of what is wrong, and with what a cursor lacks", async () => {
    await using memory = await serveMemory();
    const poll = createClient(FeedService, create(memory.served.url)).poll;
    const codeOf = (request: Request) =>
      poll(request).then(
        () => "nothing",
        (error: unknown) => {
          const [detail] = ConnectError.from(error).findDetails(ErrorDetailSchema);
          return [detail?.code, detail?.violations.map(({ field }) => field)];
        },
      );
    expect(await codeOf({ ...fromTheFirst, timeout: { seconds: 61n } })).toEqual([
      ErrorCode.INVALID_REQUEST,
      ["timeout"],
    ]);
    expect(await codeOf({ ...fromTheFirst, acknowledgeCursor: "x", generation: 1n, member: "m" })).toEqual([
      ErrorCode.INVALID_REQUEST,
      ["acknowledge_cursor", "generation", "member"],
    ]);
    expect(await codeOf(cursorStart("x".repeat(40)))).toEqual([ErrorCode.CURSOR_INVALID, []]);
    expect(await codeOf({ start: { case: "afterVersion", value: 7n } })).toEqual([ErrorCode.CURSOR_INVALID, []]);
  });

  it("leaves out payloads on demand, and those that the client does not take until it makes room", async () => {
    await using memory = await serveMemory();
    const poll = createClient(FeedService, create(memory.served.url)).poll;
    await put(memory, ["1"], JSON.stringify({ note: "x".repeat(10_000) }));
    await settled(memory, 1);
    const [none] = (await poll({ ...fromTheFirst, payloadForm: PayloadForm.NONE })).events;
    expect(none).toMatchObject({ payloadOmitted: PayloadOmitted.UNSPECIFIED });
    expect(none?.after).toBeUndefined();
    const [omitted] = (await poll({ ...fromTheFirst, maxMessageBytes: 4_096 })).events;
    expect(omitted).toMatchObject({ key: "1", payloadOmitted: PayloadOmitted.TOO_LARGE });
    const [whole] = (await poll({ ...fromTheFirst, maxEvents: 1, maxMessageBytes: 65_536 })).events;
    expect(whole?.after?.form.value).toHaveLength(10_011);
  });

  it("that waits is answered before its deadline, and when the server goes down, with an empty page", async () => {
    await using memory = await serveMemory();
    const poll = createClient(FeedService, create(memory.served.url)).poll;
    const late = await poll({ timeout: { seconds: 60n } }, { timeoutMs: 3_000 });
    expect(late).toMatchObject({ events: [], hasMore: false });
    const waiting = Array.from({ length: 10 }, () => poll({ timeout: { seconds: 60n } }));
    await vi.waitUntil(() => memory.feed.status().streams === 10, { timeout: 10_000 });
    await memory.served.server.stop(10_000);
    for (const page of await Promise.all(waiting)) {
      expect(page).toMatchObject({ events: [], cursor: late.cursor });
    }
  });

  it("is gone once its client is", async () => {
    await using memory = await serveMemory();
    const poll = createClient(FeedService, create(memory.served.url)).poll;
    const gone = new AbortController();
    const waiting = poll({ timeout: { seconds: 60n } }, { signal: gone.signal });
    await vi.waitUntil(() => memory.feed.status().streams === 1, { timeout: 10_000 });
    gone.abort();
    await expect(waiting).rejects.toMatchObject({ code: Code.Canceled });
    await vi.waitUntil(() => memory.feed.status().streams === 0, { timeout: 10_000 });
  });
});

/** By node:http, which adds nothing of its own. */
async function get(url: string, request: Request, headers: Record<string, string> = {}) {
  const message = toJsonString(PollRequestSchema, createMessage(PollRequestSchema, request));
  const query = new URLSearchParams({ encoding: "json", message });
  const call = requestHttp1(`${url}${path}?${query}`, { headers });
  call.end();
  const [response] = await once(call, "response");
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk);
  return { status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks) };
}

describe("a poll by GET", () => {
  const yearlong = "public, max-age=31536000, immutable";

  async function withPages() {
    const memory = await serveMemory();
    await put(memory, ["1", "2"]);
    await put(memory, ["3", "4"]);
    await settled(memory, 4);
    const client = createClient(
      FeedService,
      createConnectTransport({ baseUrl: memory.served.url, httpVersion: "1.1" }),
    );
    const { cursor } = await client.poll({ ...fromTheFirst, maxEvents: 1 });
    return { ...memory, memory, client, cursor, [Symbol.asyncDispose]: () => memory[Symbol.asyncDispose]() };
  }

  it("may be kept for ever when its page is full, and has a strong tag that spares the page", async () => {
    await using set = await withPages();
    const { url } = set.served;
    const request = { ...cursorStart(set.cursor), maxEvents: 2 };
    const first = await get(url, request);
    expect(first.status).toBe(200);
    expect(first.headers).toMatchObject({ "cache-control": yearlong, vary: "Origin, Accept-Encoding" });
    expect(first.headers.etag).toMatch(/^"[\w-]{43}"$/);
    await put(set.memory, ["5"]);
    await settled(set.memory, 5);
    const again = await get(url, request);
    expect(again.body.equals(first.body)).toBe(true);
    expect(again.headers.etag).toBe(first.headers.etag);
    for (const known of [first.headers.etag, `"other", W/${first.headers.etag}`, "*"]) {
      const spared = await get(url, request, { "if-none-match": String(known) });
      expect(spared.status).toBe(304);
      expect(spared.body).toHaveLength(0);
      expect(spared.headers).toMatchObject({ "cache-control": yearlong, etag: first.headers.etag });
    }
    expect((await get(url, request, { "if-none-match": '"other"' })).status).toBe(200);
    const page = await set.client.poll(request);
    expect(JSON.parse(first.body.toString())).toEqual(toJson(PollResponseSchema, page));
  });

  it("is kept by nobody when its page is not full, is of another start, or is an error", async () => {
    await using set = await withPages();
    const { url } = set.served;
    for (const [request, status] of [
      [cursorStart(set.cursor), 200],
      [{ ...fromTheFirst, maxEvents: 1 }, 200],
      [{ start: { case: "oldest", value: {} }, maxEvents: 1 }, 200],
      [cursorStart("x".repeat(40)), 400],
      [{ start: { case: "subscriptionId", value: "s" } }, 400],
    ] as const satisfies readonly (readonly [Request, number])[]) {
      const answer = await get(url, request);
      expect(answer.status).toBe(status);
      expect(answer.headers["cache-control"]).toBe("no-store");
      expect(answer.headers.etag).toBeUndefined();
    }
    const status = await fetch(`${url}/millrace.v1.FeedService/GetStatus?encoding=json&message=%7B%7D`);
    expect(status.headers.get("cache-control")).toBe("no-store");
  });

  it("gives binary pages too, with a tag of their own, and compressed ones with another", async () => {
    await using memory = await serveMemory({ config: { compress: true } });
    await put(
      memory,
      Array.from({ length: 50 }, (_, key) => String(key)),
    );
    await settled(memory, 50);
    const { url } = memory.served;
    const client = createClient(FeedService, createConnectTransport({ baseUrl: url, httpVersion: "1.1" }));
    const { cursor } = await client.poll({ ...fromTheFirst, maxEvents: 1 });
    const request = { ...cursorStart(cursor), maxEvents: 40 };
    const message = Buffer.from(toBinary(PollRequestSchema, createMessage(PollRequestSchema, request))).toString(
      "base64url",
    );
    const answer = async (headers: Record<string, string>) => {
      const response = await fetch(`${url}${path}?encoding=proto&base64=1&message=${message}`, { headers });
      return { tag: response.headers.get("etag"), page: new Uint8Array(await response.arrayBuffer()) };
    };
    const plain = await answer({ "accept-encoding": "identity" });
    const zipped = await answer({ "accept-encoding": "gzip" });
    expect(versions(fromBinary(PollResponseSchema, plain.page))).toEqual(Array.from({ length: 40 }, (_, at) => at + 2));
    expect(zipped.page).toEqual(plain.page);
    expect(zipped.tag).not.toBe(plain.tag);
    const json = await get(url, request);
    expect(new Set([plain.tag, zipped.tag, json.headers.etag]).size).toBe(3);
  });

  it("shows its tag to pages of other origins that may call", async () => {
    await using set = await withPages();
    const answer = await get(
      set.served.url,
      { ...cursorStart(set.cursor), maxEvents: 2 },
      {
        origin: "http://localhost:5173",
      },
    );
    expect(answer.headers).toMatchObject({
      "access-control-allow-origin": "http://localhost:5173",
      vary: "Origin, Accept-Encoding",
    });
    expect(String(answer.headers["access-control-expose-headers"])).toContain("ETag");
  });
});
