import { ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { ErrorCode, ErrorDetailSchema } from "../../gen/millrace/v1/error_pb.js";
import { FeedService } from "../../gen/millrace/v1/feed_service_pb.js";
import { openShop, type Shop } from "./shop.ts";

let shop: Shop;
beforeAll(async () => {
  shop = await openShop();
  await shop.order("12345678901234567890.50");
});
afterAll(() => shop[Symbol.asyncDispose]());

// The transports of browsers, over HTTP/1.1 and fetch, with the origin of a development server on this machine.
const init: typeof fetch = (input, options) => {
  const headers = new Headers(options?.headers);
  headers.set("origin", "http://localhost:5173");
  return fetch(input, { ...options, headers });
};
const transports = [
  { name: "Connect, JSON", create: () => createConnectTransport({ baseUrl: shop.url, fetch: init }) },
  {
    name: "Connect, binary",
    create: () => createConnectTransport({ baseUrl: shop.url, fetch: init, useBinaryFormat: true }),
  },
  {
    name: "Connect, JSON, GET",
    create: () => createConnectTransport({ baseUrl: shop.url, fetch: init, useHttpGet: true }),
  },
  { name: "gRPC-Web", create: () => createGrpcWebTransport({ baseUrl: shop.url, fetch: init }) },
] as const;

describe.each(transports)("connect-web: $name", ({ create }) => {
  it("streams, and lets go when it is aborted", async () => {
    const client = createClient(FeedService, create());
    const cancel = new AbortController();
    const texts: string[] = [];
    for await (const { frame } of client.subscribe(
      { start: { case: "oldest", value: {} }, selectors: [{ topics: ["orders"] }] },
      { signal: cancel.signal },
    )) {
      if (frame.case === "events") texts.push(...frame.value.events.map((event) => event.after?.form.value ?? ""));
      if (texts.length > 0) break;
    }
    cancel.abort();
    expect(texts[0]?.replaceAll(" ", "")).toBe('{"id":1,"total":12345678901234567890.50}');
    await vi.waitUntil(() => shop.server.feed.status().streams === 0);
  });

  it("calls, and understands what went wrong", async () => {
    const client = createClient(FeedService, create());
    expect((await client.getStatus({})).headVersion).toBeGreaterThan(0n);
    const error: unknown = await client
      .publish({ events: [{ topic: "no spaces" }] })
      .catch((reason: unknown) => reason);
    if (!(error instanceof ConnectError)) throw new Error(`expected a ConnectError, got ${String(error)}`);
    const [detail] = error.findDetails(ErrorDetailSchema);
    expect(detail).toMatchObject({ code: ErrorCode.INVALID_REQUEST, violations: [{ field: "events[0].topic" }] });
  });
});
