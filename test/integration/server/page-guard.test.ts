import { once } from "node:events";
import { connect as connectHttp2, constants } from "node:http2";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { describe, expect, it } from "vitest";
import { ask } from "../http-stream/http-client.ts";
import { type MemoryShop, openMemoryShop } from "../http-stream/memory-shop.ts";

const status = `/millrace.v1.FeedService/GetStatus?connect=v1&encoding=json&message=${encodeURIComponent("{}")}`;
const poll = `/millrace.v1.FeedService/Poll?connect=v1&encoding=json&message=${encodeURIComponent('{"oldest":{}}')}`;
const subscriptions = `/millrace.v1.SubscriptionService/ListSubscriptions?connect=v1&encoding=json&message=${encodeURIComponent("{}")}`;
const sources = `/millrace.v1.SourceService/ListSources?connect=v1&encoding=json&message=${encodeURIComponent("{}")}`;
const events = "/v1/events?from=oldest&max_events=1";
const everyPath = [
  "/",
  "/livez",
  "/readyz",
  "/metrics",
  "/nothing",
  "/mcp",
  events,
  status,
  poll,
  subscriptions,
  sources,
];

async function post(shop: MemoryShop, headers: Record<string, string>): Promise<number> {
  const response = await fetch(`${shop.served.url}/millrace.v1.FeedService/GetStatus`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: "{}",
  });
  return response.status;
}

describe("a name that somebody points at this machine", () => {
  it.each(everyPath)("shows a page nothing at %s", async (path) => {
    await using shop = await openMemoryShop();
    shop.emit("notes", '{"secret":1}');
    const host = `evil.example:${shop.served.port}`;
    for (const method of ["GET", "HEAD"]) {
      const refused = await ask(shop.served.url + path, { host }, method);
      expect(refused.status).toBe(403);
      expect(refused.headers["cache-control"]).toBe("no-store");
      expect(refused.text).toContain(method === "HEAD" ? "" : "--cors-origins");
      expect(refused.text).not.toContain("secret");
    }
  });

  it.each([
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "0.0.0.0:7400",
    "[::]:7400",
    "a b",
    "localhost@evil.example",
  ])("is also %s", async (host) => {
    await using shop = await openMemoryShop();
    expect((await ask(shop.served.url + status, { host })).status).toBe(403);
  });

  it("is found over HTTP/2 too, in whichever header it stands", async () => {
    await using shop = await openMemoryShop();
    const session = connectHttp2(shop.served.url);
    try {
      for (const headers of [{ ":authority": "evil.example" }, { host: "evil.example" }]) {
        const stream = session.request({ ":path": poll, ...headers });
        const [head] = await once(stream, "response");
        expect(head[constants.HTTP2_HEADER_STATUS]).toBe(403);
        expect(await text(stream)).toContain("evil.example");
      }
    } finally {
      session.close();
    }
  });

  it("counts with every request that has an origin, also one that may call", async () => {
    await using shop = await openMemoryShop();
    const url = `${shop.served.url}/millrace.v1.FeedService/GetStatus`;
    const headers = { origin: "http://localhost:5173", host: "evil.example", "content-type": "application/json" };
    expect((await ask(url, headers, "POST")).status).toBe(403);
  });
});

describe("a name of this machine", () => {
  it.each(["localhost:1", "app.localhost", "127.0.0.1", "127.9.9.9:80", "[::1]:7400", "LOCALHOST", "10.1.2.3:7400"])(
    "is %s: nobody can point it elsewhere",
    async (host) => {
      await using shop = await openMemoryShop();
      shop.emit("notes", "{}");
      for (const path of [status, poll, "/livez", "/readyz", "/metrics", events]) {
        expect((await ask(shop.served.url + path, { host })).status).toBe(200);
      }
    },
  );

  it("is also that of an origin that may call, and every name where all may", async () => {
    await using one = await openMemoryShop({ corsOrigins: "https://app.example" });
    expect((await ask(one.served.url + status, { host: "app.example:8443" })).status).toBe(200);
    expect((await ask(one.served.url + status, { host: "other.example" })).status).toBe(403);
    await using all = await openMemoryShop({ corsOrigins: ["*"] });
    expect((await ask(all.served.url + status, { host: "other.example" })).status).toBe(200);
  });

  it("is not asked of a server that others reach", async () => {
    await using shop = await openMemoryShop({ host: "0.0.0.0", insecure: true });
    expect((await ask(shop.served.url + status, { host: "feed.internal" })).status).toBe(200);
  });

  it("is not asked of calls that no page makes: POST without an origin, and requests without a host", async () => {
    await using shop = await openMemoryShop();
    const url = `${shop.served.url}/millrace.v1.FeedService/Publish`;
    const refused = await ask(url, { host: "feed.internal", "content-type": "application/json" }, "POST");
    // It came as far as the codec, which has no body to read.
    expect(refused.status).toBe(400);
    const socket = connect(shop.served.port, "127.0.0.1");
    socket.end("GET /readyz HTTP/1.0\r\n\r\n");
    expect(await text(socket)).toMatch(/^HTTP\/1\.1 200 /);
  });
});

describe("a page of another site", () => {
  const crossSite = { "sec-fetch-site": "cross-site" };

  it.each(["image", "script", "iframe", "empty"])("loads nothing as %s", async (dest) => {
    await using shop = await openMemoryShop();
    for (const path of [events, status, "/metrics"]) {
      const refused = await ask(shop.served.url + path, { ...crossSite, "sec-fetch-dest": dest });
      expect(refused.status).toBe(403);
      expect(refused.text).toContain("--cors-origins");
    }
  });

  it("may link to what only shows, and not to what takes a subscription up", async () => {
    await using shop = await openMemoryShop();
    const link = { ...crossSite, "sec-fetch-dest": "document", "sec-fetch-mode": "navigate" };
    expect((await ask(`${shop.served.url}/`, link)).status).toBe(200);
    expect((await ask(`${shop.served.url}/v1/events?subscription=billing`, link)).status).toBe(403);
  });

  it("says its origin where it may call, and then loads what it likes", async () => {
    await using shop = await openMemoryShop({ corsOrigins: "https://app.example" });
    expect((await ask(shop.served.url + status, { ...crossSite, origin: "https://app.example" })).status).toBe(200);
    expect(await post(shop, { origin: "https://evil.example" })).toBe(403);
  });
});
