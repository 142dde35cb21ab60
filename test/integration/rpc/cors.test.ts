import { once } from "node:events";
import { request } from "node:http";
import { describe, expect, it } from "vitest";
import { createScriptedFeed } from "./scripted-feed.ts";
import { serve } from "./served.ts";

const procedure = "/millrace.v1.FeedService/GetStatus";

/** By node:http: `fetch` keeps some of these headers for itself. */
async function send(method: string, url: string, headers: Record<string, string>, body = "") {
  const call = request(url, { method, headers });
  call.end(body);
  const [response] = await once(call, "response");
  response.setEncoding("utf8");
  let text = "";
  for await (const chunk of response) text += chunk;
  return { status: response.statusCode, headers: response.headers, text };
}

function preflight(url: string, origin: string, extra: Record<string, string> = {}) {
  return send("OPTIONS", url + procedure, {
    origin,
    "access-control-request-method": "POST",
    "access-control-request-headers": "content-type,connect-protocol-version",
    ...extra,
  });
}

describe("pages in browsers", () => {
  it.each(["http://localhost:5173", "http://127.0.0.1:8080", "http://[::1]:3000", "https://app.localhost"])(
    "of this machine may call without being named: %s",
    async (origin) => {
      await using served = await serve(createScriptedFeed({}));
      const allowed = await preflight(served.url, origin, { "access-control-request-private-network": "true" });
      expect(allowed.status).toBe(204);
      expect(allowed.headers["access-control-allow-origin"]).toBe(origin);
      expect(allowed.headers["access-control-allow-methods"]).toBe("POST, GET");
      expect(allowed.headers["access-control-allow-private-network"]).toBe("true");
      const headers = String(allowed.headers["access-control-allow-headers"]).toLowerCase();
      for (const name of [
        "content-type",
        "connect-protocol-version",
        "connect-timeout-ms",
        "x-grpc-web",
        "grpc-timeout",
      ]) {
        expect(headers).toContain(name);
      }
      const call = await send("POST", served.url + procedure, { origin, "content-type": "application/json" }, "{}");
      expect(call.status).toBe(200);
      expect(call.headers["access-control-allow-origin"]).toBe(origin);
      expect(String(call.headers["access-control-expose-headers"]).toLowerCase()).toContain("grpc-status-details-bin");
      expect(call.headers.vary).toBe("Origin");
    },
  );

  it.each(["https://evil.example", "http://localhost.evil.example", "http://127.0.0.1.evil.example", "null"])(
    "of elsewhere are refused, and not only by their browser: %s",
    async (origin) => {
      await using served = await serve(createScriptedFeed({}));
      for (const refused of [
        await preflight(served.url, origin),
        await send("POST", served.url + procedure, { origin, "content-type": "application/json" }, "{}"),
        await send("GET", `${served.url + procedure}?encoding=json&message={}`, { origin }),
      ]) {
        expect(refused.status).toBe(403);
        expect(refused.headers["access-control-allow-origin"]).toBeUndefined();
        expect(refused.text).toContain("--cors-origins");
      }
    },
  );

  it("of elsewhere may call once they are named, and nobody else with them", async () => {
    await using served = await serve(createScriptedFeed({}), {
      config: { corsOrigins: "https://app.example, https://other.example" },
    });
    expect((await preflight(served.url, "https://other.example")).status).toBe(204);
    expect((await preflight(served.url, "https://app.example:8443")).status).toBe(403);
    await using open = await serve(createScriptedFeed({}), { config: { corsOrigins: ["*"] } });
    expect((await preflight(open.url, "https://anybody.example")).status).toBe(204);
  });

  it("are not asked for an origin: whoever is no browser calls as before", async () => {
    await using served = await serve(createScriptedFeed({}));
    const call = await send("POST", served.url + procedure, { "content-type": "application/json" }, "{}");
    expect(call.status).toBe(200);
    expect(call.headers["access-control-allow-origin"]).toBeUndefined();
  });
});
