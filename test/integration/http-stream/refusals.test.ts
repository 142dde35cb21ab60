import { readFile } from "node:fs/promises";
import { codeToHttpStatus } from "@connectrpc/connect/protocol-connect";
import { describe, expect, it } from "vitest";
import { FeedError, type FeedErrorCode } from "../../../src/core/errors.ts";
import type { ClosingReason, Frame } from "../../../src/core/frame.ts";
import { queryParameters } from "../../../src/http-stream/query-reader.ts";
import { errorTable, httpStatusOf } from "../../../src/rpc/errors.ts";
import { createScriptedFeed, epoch, opened } from "../rpc/scripted-feed.ts";
import { serve } from "../rpc/served.ts";
import { ask, linesOf, messagesOf } from "./http-client.ts";

const codes = Object.keys(errorTable).filter((code): code is FeedErrorCode => code in errorTable);
const passing: readonly FeedErrorCode[] = ["SUBSCRIPTION_BUSY", "DRAINING", "DATABASE_UNAVAILABLE"];
const eventSource = { accept: "text/event-stream" };

function failing(error: unknown) {
  return createScriptedFeed({
    // biome-ignore lint/correctness/useYield: it fails before there is anything to yield
    async *frames() {
      throw error;
    },
  });
}

/** Plays these after `opened`, and then fails with the error, if there is one. */
function playing(frames: readonly Frame[], error?: unknown) {
  return createScriptedFeed({
    async *frames() {
      yield opened;
      yield* frames;
      if (error !== undefined) throw error;
    },
  });
}

describe("a stream that cannot begin", () => {
  it.each(codes)("has the status that Connect has for %s, and the failure as JSON", async (code) => {
    const error = new FeedError(code, "It cannot be.", "Do something else.", {
      oldestVersion: 3,
      headVersion: 7,
      epoch,
    });
    await using served = await serve(failing(error));
    const refused = await ask(`${served.url}/v1/events`);
    expect(refused.status).toBe(codeToHttpStatus(errorTable[code].connect));
    expect(refused.headers).toMatchObject({
      "content-type": "application/json",
      "cache-control": expect.stringContaining("no-store"),
    });
    expect(JSON.parse(refused.text)).toMatchObject({
      ...{ code, message: "It cannot be.", action: "Do something else.", oldestVersion: 3, headVersion: 7, epoch },
    });
    const seconds = refused.headers["retry-after"];
    expect(seconds !== undefined).toBe(passing.includes(code));
  });

  it.each(codes)("tells EventSource of %s so that it gives up, or comes again", async (code) => {
    await using served = await serve(failing(new FeedError(code, "It cannot be.", "Do something else.")));
    const answer = await ask(`${served.url}/v1/events`, { ...eventSource, "last-event-id": "abc" });
    if (!passing.includes(code)) {
      expect(answer.status).toBe(codeToHttpStatus(errorTable[code].connect));
      expect(answer.headers["content-type"]).toBe("application/json");
      return;
    }
    expect(answer).toMatchObject({ status: 200, headers: { "content-type": "text/event-stream" } });
    // No id: the browser keeps the one that it came with.
    expect(answer.text).toMatch(/^retry: [12]\d{3}\n\nevent: error\ndata: \{"code":"[A-Z_]+".*\}\n\n$/);
  });

  it("that is over a limit may come again, unless it asks for too much", async () => {
    const crowded = new FeedError("LIMIT_EXCEEDED", "Too many.", "Close some.", { retryAfterMs: 2_500 });
    await using busy = await serve(failing(crowded));
    expect((await ask(`${busy.url}/v1/events`)).headers["retry-after"]).toMatch(/^[345]$/);
    expect((await ask(`${busy.url}/v1/events`, eventSource)).status).toBe(200);
    await using strict = await serve(failing(new FeedError("LIMIT_EXCEEDED", "Too dear.", "Ask for less.")));
    expect((await ask(`${strict.url}/v1/events`, eventSource)).status).toBe(429);
  });

  it("by a fault of ours tells nothing of our insides, and the log everything", async () => {
    await using served = await serve(failing(new TypeError("secret of the insides")));
    const refused = await ask(`${served.url}/v1/events`);
    expect(refused.status).toBe(500);
    expect(refused.text).not.toContain("secret");
    expect(JSON.stringify(served.logged)).toContain("secret of the insides");
  });

  it.each([
    { query: "topics=orders", field: "topics", says: "no parameter" },
    { query: "filter=true&filter=false", field: "filter", says: "once" },
    { query: "topic=a..b", field: "topic", says: "pattern" },
    { query: "topic=", field: "topic", says: "pattern" },
    { query: "operation=upsert", field: "operation", says: "INSERT, UPDATE" },
    { query: "fields=", field: "fields", says: "at least 1" },
    { query: "from=yester day", field: "from", says: "RFC 3339" },
    { query: "from=", field: "from", says: "RFC 3339" },
    { query: "from=2026-02-31T99:00:00Z", field: "from", says: "must be a time" },
    { query: `from=${"A".repeat(5_000)}`, field: "from", says: "at most 4096" },
    { query: "from=9999999999999999", field: "from", says: "must be at most" },
    { query: "epoch=1", field: "epoch", says: "UUID" },
    { query: "payload=struct", field: "payload", says: "json, none" },
    { query: "policy=drop", field: "policy", says: "drop-oldest" },
    { query: "policy=sample:1", field: "policy", says: "at least 2" },
    { query: "policy=latest:3", field: "policy", says: "drop-oldest" },
    { query: "max_lag=5", field: "max_lag", says: "without `policy`" },
    { query: "rate=0", field: "rate", says: "between 1" },
    { query: "heartbeat=1ms", field: "heartbeat", says: "100ms" },
    { query: "heartbeat=6m", field: "heartbeat", says: "300s" },
    { query: "retry=-1", field: "retry", says: "between" },
    { query: "max_events=x", field: "max_events", says: "at least 1" },
    { query: "max_message_bytes=5", field: "max_message_bytes", says: "4096" },
    { query: "checkpoints=no", field: "checkpoints", says: "true, false" },
    { query: "padding=100000", field: "padding", says: "65536" },
    { query: "format=xml", field: "format", says: "sse, ndjson" },
    { query: "member=a", field: "member", says: "subscription" },
    { query: "subscription=jobs&topic=a", field: "topic", says: "subscription's own" },
    { query: "subscription=jobs&from=now", field: "from", says: "subscription's own" },
  ])("because of $query names the parameter", async ({ query, field, says }) => {
    await using served = await serve(createScriptedFeed({}));
    const refused = await ask(`${served.url}/v1/events?${encodeURI(query)}`);
    const { code, message, violations = [] } = JSON.parse(refused.text);
    expect([code, refused.status]).toEqual(["INVALID_REQUEST", 400]);
    const told = violations.find((violation: { readonly field: string }) => violation.field === field);
    expect(told?.message ?? message).toMatch(new RegExp(says));
    expect(message).not.toMatch(/selectors\[|delivery\.|after_/);
  });
});

describe("a stream that ends", () => {
  const cursor = opened.cursor;
  const closing = (reason: ClosingReason): Frame => ({ kind: "closing", reason, cursor, retryAfterMs: 250 });

  it.each(["DRAINING", "MAX_AGE", "PAUSED", "MOVED", "DELETED"] as const)(
    "says %s, and when to come again",
    async (reason) => {
      await using served = await serve(playing([closing(reason)]));
      const { text } = await ask(`${served.url}/v1/events`, eventSource);
      const last = messagesOf(text).at(-1);
      expect(last).toMatchObject({ event: "closing", json: { reason } });
      expect(Number(/retry: (\d+)\n\nid: \S+\nevent: closing/.exec(text)?.[1])).toBeLessThanOrEqual(500);
      const lines = linesOf((await ask(`${served.url}/v1/events?format=ndjson`)).text);
      expect(lines.at(-1)).toEqual({ frame: "closing", reason, retryAfterMs: 250, cursor: last?.lastEventId });
    },
  );

  it("because somebody else took its subscription over does not come back to take it again", async () => {
    await using served = await serve(playing([closing("TAKEN_OVER")]));
    const { text } = await ask(`${served.url}/v1/events`, eventSource);
    expect(text).toContain("retry: 86400000\n\n");
  });

  it("by an error tells it last, and where to go on where that is known", async () => {
    const lost = new FeedError("HISTORY_LOST", "It is gone.", "Take a snapshot.", {
      oldestVersion: 3,
      headVersion: 7,
      epoch,
    });
    await using served = await serve(playing([], lost));
    const { text, status } = await ask(`${served.url}/v1/events`, eventSource);
    expect(status).toBe(200);
    expect(messagesOf(text).map(({ event }) => event)).toEqual(["opened", "error"]);
    expect(messagesOf(text).at(-1)?.json).toMatchObject({
      code: "HISTORY_LOST",
      oldestVersion: 3,
      action: "Take a snapshot.",
    });
    const slow = new FeedError("SLOW_CONSUMER", "It was slow.", "Be faster.", { cursor: "c7" });
    await using other = await serve(playing([], slow));
    const lines = linesOf((await ask(`${other.url}/v1/events?format=ndjson`)).text);
    expect(lines.at(-1)).toMatchObject({ frame: "error", code: "SLOW_CONSUMER", cursor: "c7" });
    expect(messagesOf((await ask(`${other.url}/v1/events`, eventSource)).text).at(-1)?.lastEventId).toBe("c7");
  });
});

describe("docs/transports.md", () => {
  it("gives every code that a stream may fail with the status that it has", async () => {
    const page = await readFile(new URL("../../../docs/transports.md", import.meta.url), "utf8");
    const rows = [...page.matchAll(/^\| (\d{3}(?:, \d{3})*) \| (`[A-Z].*) \|$/gm)];
    const named = rows.flatMap(([, status = "", list = ""]) => {
      const statuses = status.split(", ").map(Number);
      return [...list.matchAll(/`([A-Z_]+)`/g)].map(
        ([, code = ""], at) => [code, statuses[at] ?? statuses[0]] as const,
      );
    });
    expect(named.length).toBeGreaterThan(10);
    for (const [code, status] of named) {
      const known = codes.find((one) => one === code);
      expect([code, known && httpStatusOf(known)]).toEqual([code, status]);
    }
  });

  it("has a row for each parameter", async () => {
    const page = await readFile(new URL("../../../docs/transports.md", import.meta.url), "utf8");
    const section = page.slice(page.indexOf("| parameter |"), page.indexOf("| `event` |"));
    for (const name of Object.keys(queryParameters)) expect(section).toContain(`\`${name}\``);
  });
});
