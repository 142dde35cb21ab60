import { once } from "node:events";
import { request as httpRequest } from "node:http";
import { connect as connectHttp2, constants } from "node:http2";
import { text } from "node:stream/consumers";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { httpAgent } from "../../e2e/mcp-agent.ts";
import { openShop, type Shop } from "../../e2e/shop.ts";
import { eventually } from "../../support/deadline.ts";

let shop: Shop;
beforeAll(async () => {
  shop = await openShop();
});
afterAll(() => shop[Symbol.asyncDispose]());

const listTools = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list", params: {} });
const headers = { "content-type": "application/json", accept: "application/json, text/event-stream" };

interface Answer {
  readonly status: number;
  readonly body: string;
}

/** A request as it is written here: `fetch` would choose the host by itself. */
async function ask(
  given: { readonly method?: string; readonly headers?: Readonly<Record<string, string>>; readonly body?: string } = {},
): Promise<Answer> {
  const request = httpRequest(`${shop.url}/mcp`, {
    method: given.method ?? "POST",
    headers: { ...headers, ...given.headers },
  });
  request.end(given.body ?? (given.method === "GET" ? "" : listTools));
  const [response] = await once(request, "response");
  return { status: response.statusCode, body: await text(response) };
}

describe("the limit on streams of one address", () => {
  it("holds for polls that wait", async () => {
    await using limited = await openShop({ maxStreamsPerPeer: 1 });
    await using one = await httpAgent(limited.url);
    const call = new AbortController();
    const wait = { topics: ["nothing"], timeout_seconds: 60 };
    const first = one.call("poll_changes", wait, { signal: call.signal });
    await eventually(async () => limited.server.feed.status().streams > 0);
    const second = await one.call("poll_changes", wait);
    expect(second).toMatchObject({ isError: true, text: expect.stringContaining("LIMIT_EXCEEDED: ") });
    call.abort();
    await expect(first).rejects.toThrow();
  });
});

describe("/mcp", () => {
  it("answers each request by itself, without a session", async () => {
    const { status, body } = await ask();
    expect(status).toBe(200);
    for (const tool of ["subscribe_changes", "poll_changes", "unsubscribe", "get_subscriptions"]) {
      expect(body).toContain(`"name":"${tool}"`);
    }
  });

  it("does so over HTTP/2", async () => {
    const session = connectHttp2(shop.url);
    try {
      const stream = session.request({ ...headers, ":method": "POST", ":path": "/mcp" });
      stream.end(listTools);
      const [head] = await once(stream, "response");
      expect(head[constants.HTTP2_HEADER_STATUS]).toBe(200);
      expect(await text(stream)).toContain('"name":"poll_changes"');
    } finally {
      session.close();
    }
  });

  it("is not there for pages of the web, nor for names that somebody pointed at this machine", async () => {
    expect(await ask({ headers: { origin: "https://evil.example" } })).toMatchObject({ status: 403 });
    for (const request of [{ method: "GET" }, { headers: { origin: "http://localhost:6274" } }]) {
      const rebound = await ask({ ...request, headers: { ...request.headers, host: "evil.example:7400" } });
      expect(rebound).toMatchObject({ status: 403, body: expect.stringContaining("evil.example") });
    }
    expect(await ask({ headers: { host: "localhost:7400", origin: "http://localhost:6274" } })).toMatchObject({
      status: 200,
    });
  });

  it("lets a page of this machine ask first, as the inspector of the protocol does", async () => {
    const response = await fetch(`${shop.url}/mcp`, {
      method: "OPTIONS",
      headers: {
        origin: "http://localhost:6274",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,mcp-protocol-version",
      },
    });
    expect(response.headers.get("access-control-allow-origin")).toBe("http://localhost:6274");
    expect(response.headers.get("access-control-allow-headers")?.toLowerCase()).toContain("mcp-protocol-version");
  });

  it("says with the status what is no request of the protocol", async () => {
    expect(await ask({ method: "GET" })).toMatchObject({ status: 405 });
    expect(await ask({ headers: { "content-type": "text/plain" } })).toMatchObject({ status: 415 });
    expect(await ask({ body: "{" })).toMatchObject({ status: 400 });
    expect(await ask({ body: JSON.stringify({ fill: "x".repeat(1_100_000) }) })).toMatchObject({ status: 413 });
  });

  it.each(["legacy", "auto"] as const)("serves the official client (%s)", async (mode) => {
    const client = new Client({ name: "test", version: "1" }, { versionNegotiation: { mode } });
    await client.connect(new StreamableHTTPClientTransport(new URL(`${shop.url}/mcp`)));
    try {
      const { tools } = await client.listTools();
      expect(tools).toHaveLength(4);
      expect(client.getServerVersion()).toMatchObject({ name: "millrace" });
    } finally {
      await client.close();
    }
  });
});
