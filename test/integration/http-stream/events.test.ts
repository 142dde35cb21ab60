import { connect } from "node:net";
import { describe, expect, it, vi } from "vitest";
import { decodeCursor } from "../../../src/core/cursor.ts";
import { eventually } from "../../support/deadline.ts";
import { ask, askBy, linesOf, messagesOf, OpenAnswer } from "./http-client.ts";
import { openMemoryShop } from "./memory-shop.ts";

describe("/v1/events", () => {
  it.each(["1.0", "1.1", "2"] as const)(
    "streams over HTTP/%s: one message a change, each with a cursor",
    async (version) => {
      await using shop = await openMemoryShop();
      shop.emit("notes", '{"n":1}', '{"n":2}');
      shop.emit("notes", '{"n":3}');
      const text = await askBy(version, shop.events("topic=notes&from=oldest&max_events=3"));
      const body = version === "1.1" ? text.replaceAll(/\r\n[0-9a-f]+\r\n/g, "") : text;
      for (const word of version === "2" ? [] : ["200 OK", "no-store, no-transform", "X-Accel-Buffering: no"]) {
        expect(text).toContain(word);
      }
      const messages = messagesOf(body.slice(body.indexOf("retry:")));
      expect(messages.map(({ event }) => event)).toEqual(["opened", "change", "change", "change", "closing"]);
      const changes = messages.filter(({ event }) => event === "change");
      expect(changes.map(({ json }) => json.version)).toEqual([1, 2, 3]);
      expect(changes.map(({ lastEventId }) => decodeCursor(lastEventId).version)).toEqual([1, 2, 3]);
    },
  );

  it("gives payloads as they were written, digit by digit, on one line", async () => {
    await using shop = await openMemoryShop();
    const payload = '{ "big": 12345678901234567890.10,\r\n "exponent": 1e400, "text": "a\\nb – ä" }';
    shop.emit("notes", payload);
    const inline = payload.replace("\r\n", "  ");
    const { text } = await ask(shop.events("from=oldest&max_events=1"));
    expect(text).toContain(`"after":${inline},`);
    const lines = await ask(shop.events("from=oldest&max_events=1&format=ndjson"));
    expect(lines.text.split("\n")[1]).toContain(`"after":${inline},`);
    const none = await ask(shop.events("from=oldest&max_events=1&format=ndjson&payload=none"));
    expect(linesOf(none.text)[1]).not.toHaveProperty("after");
  });

  it("is what the client takes: events by themselves, or lines of JSON that say how they end", async () => {
    await using shop = await openMemoryShop();
    shop.emit("notes", "{}", "{}");
    const url = shop.events("from=oldest&max_events=2");
    const typeOf = async (accept: Record<string, string>, more = "") =>
      (await ask(url + more, accept)).headers["content-type"];
    expect(await typeOf({})).toBe("text/event-stream");
    expect(await typeOf({ accept: "*/*" })).toBe("text/event-stream");
    expect(await typeOf({ accept: "text/html,application/xhtml+xml,*/*;q=0.8" })).toBe("text/event-stream");
    expect(await typeOf({ accept: "application/x-ndjson" })).toBe("application/x-ndjson");
    expect(await typeOf({ accept: "application/x-ndjson" }, "&format=sse")).toBe("text/event-stream");
    expect(await typeOf({ accept: "text/event-stream" }, "&format=ndjson")).toBe("application/x-ndjson");
    const lines = linesOf((await ask(url, { accept: "application/x-ndjson" })).text);
    expect(lines.map(({ frame, version }) => frame ?? version)).toEqual(["opened", 1, 2, "closing"]);
    expect(lines.at(-2)).toMatchObject({ complete: true });
    expect(lines.at(-1)).toEqual({ frame: "closing", reason: "MAX_EVENTS", cursor: lines.at(-2)?.cursor });
    for (const { cursor } of lines) expect(typeof cursor).toBe("string");
  });

  it("selects as Subscribe does", async () => {
    await using shop = await openMemoryShop();
    await shop.put("a", '{"id":1,"total":50,"note":"x"}');
    await shop.put("b", '{"id":2,"total":150,"note":"x"}');
    shop.emit("notes", '{"n":1}');
    const first = async (query: string) =>
      linesOf((await ask(shop.events(`from=oldest&format=ndjson&max_events=1&checkpoints=false&${query}`))).text)[0];
    expect(await first("key=b")).toMatchObject({ key: "b" });
    expect(await first("operation=message")).toMatchObject({ topic: "notes" });
    expect(await first(`filter=${encodeURIComponent("row.total > 100")}&fields=id,total`)).toMatchObject({
      after: { id: 2, total: 150 },
    });
    expect(await first("topic=nothing&topic=notes,other")).toMatchObject({ topic: "notes" });
    expect(await first("topic=orders&key=a&key=b&operation=insert,update")).toMatchObject({ key: "a" });
  });

  it("begins where it is told: now, a version, a time, a snapshot, and above all where the client was", async () => {
    await using shop = await openMemoryShop();
    await shop.put("a", "{}");
    await shop.put("b", "{}");
    await shop.put("c", "{}");
    const first = async (query: string, headers: Record<string, string> = {}) => {
      const { text } = await ask(shop.events(`${query}&max_events=1&format=ndjson&checkpoints=false`), headers);
      return linesOf(text).find(({ operation }) => operation !== undefined);
    };
    const [, one] = linesOf((await ask(shop.events("from=oldest&max_events=1&format=ndjson"))).text);
    const cursor = String(one?.cursor);
    expect(await first("from=1")).toMatchObject({ version: 2 });
    expect(await first("from=version:2")).toMatchObject({ version: 3 });
    expect(await first("from=2001-01-01T00:00:00Z")).toMatchObject({ version: 1 });
    expect(await first("from=2001-01-01T00:00:00.5+02:00")).toMatchObject({ version: 1 });
    expect(await first("from=snapshot")).toMatchObject({ operation: "SNAPSHOT", key: "a" });
    expect(await first(`from=${cursor}`)).toMatchObject({ version: 2 });
    expect(await first(`from=oldest&lastEventId=${cursor}`)).toMatchObject({ version: 2 });
    const { cursor: second } = (await first("from=1")) ?? {};
    const header = { "last-event-id": String(second) };
    expect(await first(`from=oldest&lastEventId=${cursor}`, header)).toMatchObject({ version: 3 });
    expect(await first("from=oldest", { "last-event-id": "" })).toMatchObject({ version: 1 });
  });

  it("says checkpoints with an id, or comments to whoever wants none", async () => {
    await using shop = await openMemoryShop();
    using told = await OpenAnswer.open(shop.events("heartbeat=100ms"));
    await told.until((text) => text.includes("event: checkpoint"));
    const checkpoint = messagesOf(told.text).find(({ event }) => event === "checkpoint");
    expect(checkpoint?.json).toMatchObject({ state: "LIVE", lagVersions: 0 });
    expect(decodeCursor(checkpoint?.lastEventId ?? "").version).toBe(0);
    using quiet = await OpenAnswer.open(shop.events("heartbeat=100ms&checkpoints=false&retry=7s&padding=2048"));
    await quiet.until((text) => text.includes("\n: the stream lives\n\n"));
    expect(quiet.text).toContain(`:${" ".repeat(2048)}\n\nretry: 7000\n\n`);
    expect(messagesOf(quiet.text)).toEqual([]);
  });

  it("thins and slows as policies and rates say", async () => {
    await using shop = await openMemoryShop();
    for (let at = 0; at < 40; at += 1) shop.emit("notes", `{"n":${at}}`);
    const lines = linesOf(
      (await ask(shop.events("from=oldest&policy=latest&max_lag=5&format=ndjson&max_events=1"))).text,
    );
    expect(lines.find(({ frame }) => frame === "gap")).toMatchObject({
      firstVersion: 1,
      dropped: 39,
      reason: "LATEST",
    });
    expect(lines.find(({ frame }) => frame === undefined)).toMatchObject({ version: 40 });
    const slow = await ask(shop.events("from=oldest&rate=100&format=ndjson&max_events=3"));
    expect(linesOf(slow.text)).toHaveLength(5);
  });
});

describe("whoever asks /v1/events for something else", () => {
  it("gets its head, its methods, and a sentence", async () => {
    await using shop = await openMemoryShop();
    const head = await ask(shop.events("topic=notes"), {}, "HEAD");
    expect(head).toMatchObject({ status: 200, text: "" });
    expect(head.headers["content-type"]).toBe("text/event-stream");
    expect(shop.served.server.feed.status().streams).toBe(0);
    expect((await ask(shop.events("topics=notes"), {}, "HEAD")).status).toBe(400);
    const options = await ask(shop.events(), {}, "OPTIONS");
    expect(options).toMatchObject({ status: 204, headers: { allow: "GET, HEAD, OPTIONS" } });
    for (const method of ["POST", "PUT", "DELETE"]) {
      const refused = await ask(shop.events(), {}, method);
      expect(refused).toMatchObject({ status: 405, headers: { allow: "GET, HEAD, OPTIONS" } });
      expect(JSON.parse(refused.text)).toMatchObject({
        code: "INVALID_REQUEST",
        action: expect.stringContaining("GET"),
      });
    }
  });

  it("may be a page of this machine, and no other", async () => {
    await using shop = await openMemoryShop();
    shop.emit("notes", "{}");
    const url = shop.events("from=oldest&max_events=1");
    const page = await ask(url, { origin: "http://localhost:5173" });
    expect(page).toMatchObject({
      status: 200,
      headers: { "access-control-allow-origin": "http://localhost:5173", vary: "Origin" },
    });
    expect((await ask(url, { origin: "https://evil.example" })).status).toBe(403);
    // A name that somebody points at this machine: such a page calls its own origin, which browsers do not tell.
    const rebound = await ask(url, { host: `evil.example:${shop.served.port}` });
    expect([rebound.status, rebound.text]).toEqual([403, expect.stringContaining("evil.example")]);
    const preflight = await ask(
      url,
      { origin: "http://localhost:5173", "access-control-request-method": "GET" },
      "OPTIONS",
    );
    expect(preflight.status).toBe(204);
    expect(preflight.headers["access-control-allow-headers"]).toContain("Last-Event-ID");
  });
});

describe("a host", () => {
  it("of an origin that may call is one that the server answers to", async () => {
    await using shop = await openMemoryShop({ corsOrigins: "https://app.example" });
    shop.emit("notes", "{}");
    const url = shop.events("from=oldest&max_events=1");
    expect((await ask(url, { host: "app.example" })).status).toBe(200);
    expect((await ask(url, { host: "localhost:1" })).status).toBe(200);
    expect((await ask(url, { host: "other.example" })).status).toBe(403);
  });
});

describe("a client", () => {
  it("that goes leaves nothing behind", async () => {
    await using shop = await openMemoryShop();
    const answers = await Promise.all([
      OpenAnswer.open(shop.events()),
      OpenAnswer.open(shop.events("format=ndjson")),
      OpenAnswer.open(shop.events("topic=a")),
    ]);
    const { feed } = shop.served.server;
    expect(feed.status().streams).toBe(3);
    for (const answer of answers) answer[Symbol.dispose]();
    await eventually(async () => feed.status().streams === 0);
    expect(feed.stats().lanes).toBe(0);
  });

  it("G9 that reads nothing costs its own bounded budget, and delays nobody", async () => {
    await using shop = await openMemoryShop({}, { limits: { maxStreamBytes: 64 * 1024 } });
    const { hostname, port } = new URL(shop.served.url);
    const stuck = connect(Number(port), hostname);
    stuck.pause();
    stuck.write("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    const { feed } = shop.served.server;
    await eventually(async () => feed.status().streams === 1);
    using other = await OpenAnswer.open(shop.events("format=ndjson&payload=none"));
    const payload = `{"text":"${"x".repeat(10_000)}"}`;
    const count = 2_000;
    for (let at = 0; at < count; at += 1) {
      shop.emit("notes", payload);
      if (at % 100 === 99) await other.until((text) => text.includes(`"version":${at + 1},`));
    }
    // Of 20 MB that went by it was written what the kernel took, and its budget.
    await eventually(async () => Math.max(...feed.stats().lagVersions) > count / 2);
    stuck.destroy();
    await eventually(async () => feed.status().streams === 1);
  });

  it("shares what it gets with all others that want the same", async () => {
    await using shop = await openMemoryShop();
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, at) =>
        OpenAnswer.open(shop.events(at % 2 === 0 ? "topic=notes" : "topic=notes&format=ndjson")),
      ),
    );
    shop.emit("notes", '{"n":1}');
    await Promise.all(answers.map((answer) => answer.until((text) => text.includes('"n":1'))));
    expect(shop.served.server.feed.stats().lanes).toBe(2);
    for (const answer of answers) answer[Symbol.dispose]();
    await vi.waitUntil(() => shop.served.server.feed.status().streams === 0);
  });
});
