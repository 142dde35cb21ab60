import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { grpcClient, Subscriber } from "../integration/server/client.ts";
import { eventually } from "../support/deadline.ts";
import { type Agent, type Era, httpAgent, type Said, stdioAgent } from "./mcp-agent.ts";
import { cleanUp, scratchDirectory, startMillrace } from "./millrace-command.ts";
import { openShop, type Shop } from "./shop.ts";

let shop: Shop;
beforeAll(async () => {
  shop = await openShop();
});
afterAll(() => shop[Symbol.asyncDispose]());

/** Ends a test's agents with it. */
async function agent(way: string, era: Era = "legacy"): Promise<Agent> {
  return way === "stdio" ? stdioAgent(shop.url, era) : httpAgent(shop.url, era);
}

function totals(said: Said): readonly unknown[] {
  return said.events.map(({ after }) => /"total":\s*([^,}]+)/.exec(after ?? "")?.[1]);
}

const ways: readonly (readonly [string, Era])[] = [
  ["stdio", "legacy"],
  ["stdio", "auto"],
  ["http", "legacy"],
  ["http", "auto"],
];

describe.each(ways)("an agent over %s (%s)", (way, era) => {
  it("watches, acknowledges with the next poll, and ends", async () => {
    await using one = await agent(way, era);
    const made = await one.call("subscribe_changes", {
      topics: ["orders"],
      polling_interval_seconds: 7,
      batch_size: 2,
    });
    expect(made.text).toContain(`poll_changes {"subscription_id":"${made.subscriptionId}"}`);
    expect(made.structured).toMatchObject({
      state: "ACTIVE",
      polling_interval_seconds: 7,
      batch_size: 2,
      owner: "mcp",
    });
    await shop.order("1.10", "2.20", "3.30");
    const subscription = { subscription_id: made.subscriptionId };
    const first = await one.call("poll_changes", subscription);
    expect(totals(first)).toEqual(["1.10", "2.20"]);
    expect(first.structured).toMatchObject({ has_more: true, polling_interval_seconds: 7 });
    expect(first.text).toContain(`"cursor":"${first.cursor}"`);
    const second = await one.call("poll_changes", { ...subscription, cursor: first.cursor });
    expect(totals(second)).toEqual(["3.30"]);
    const third = await one.call("poll_changes", { ...subscription, cursor: second.cursor, timeout_seconds: 0 });
    expect(third.events).toEqual([]);
    const ended = await one.call("unsubscribe", subscription);
    expect(ended.structured).toMatchObject({ ...subscription, version: second.events[0]?.version });
    expect(await one.call("poll_changes", subscription)).toMatchObject({ isError: true });
  });

  it("is told in tool errors what was wrong, and where", async () => {
    await using one = await agent(way, era);
    const filter = await one.call("subscribe_changes", { topics: ["orders"], filter: "row.total >" });
    expect(filter).toMatchObject({ isError: true, text: expect.stringContaining("FILTER_INVALID: ") });
    expect(filter.text).toMatch(/line 1, column \d+ of `filter`/);
    const misspelt = await one.call("poll_changes", { topic: ["orders"] });
    expect(misspelt).toMatchObject({ isError: true, text: expect.stringContaining("INVALID_REQUEST: ") });
    expect(misspelt.text).toContain("topic");
    const gone = await one.call("poll_changes", { subscription_id: "nobody-has-this" });
    expect(gone.text).toContain("SUBSCRIPTION_NOT_FOUND: ");
    const cursor = await one.call("poll_changes", { cursor: "nonsense" });
    expect(cursor.text).toContain("CURSOR_INVALID: ");
    const pattern = await one.call("poll_changes", { topics: ["a..b"], from: "oldest" });
    expect(pattern.text).toContain("`topics[0]`");
  });

  it("waits for what comes, and gives the wait up when it is told to", async () => {
    await using one = await agent(way, era);
    const start = await one.call("poll_changes", { topics: ["orders"], timeout_seconds: 0 });
    const waiting = one.call("poll_changes", { topics: ["orders"], cursor: start.cursor, timeout_seconds: 60 });
    await shop.order("4.40");
    expect(totals(await waiting)).toEqual(["4.40"]);
    const call = new AbortController();
    const cancelled = one.call("poll_changes", { topics: ["nothing"], timeout_seconds: 60 }, { signal: call.signal });
    await eventually(async () => shop.server.feed.status().streams > 0);
    call.abort(new Error("enough"));
    await expect(cancelled).rejects.toThrow("enough");
    await eventually(async () => shop.server.feed.status().streams === 0);
    expect((await one.call("poll_changes", { from: "oldest", batch_size: 1 })).events).toHaveLength(1);
  });
});

describe("polling", () => {
  it("G1 what a killed agent was given comes again, to whoever polls next", async () => {
    const killed = await stdioAgent(shop.url);
    const { subscriptionId } = await killed.call("subscribe_changes", { topics: ["orders"] });
    await shop.order("5.10", "5.20");
    const given = await killed.call("poll_changes", { subscription_id: subscriptionId, batch_size: 1 });
    expect(totals(given)).toEqual(["5.10"]);
    process.kill(killed.pid, "SIGKILL");
    await using next = await stdioAgent(shop.url);
    const again = await next.call("poll_changes", { subscription_id: subscriptionId, batch_size: 10 });
    expect(totals(again)).toEqual(["5.10", "5.20"]);
    expect(again.events[0]?.attempt).toBe(2);
    // The lease was the other process's: this one acknowledges all the same.
    await using third = await httpAgent(shop.url);
    const on = await third.call("poll_changes", {
      subscription_id: subscriptionId,
      cursor: again.cursor,
      timeout_seconds: 0,
    });
    expect(on.events).toEqual([]);
    await third.call("unsubscribe", { subscription_id: subscriptionId });
  });

  it("G8 the final cursor goes on over Subscribe, and one of Subscribe here", async () => {
    await using one = await httpAgent(shop.url);
    const { subscriptionId } = await one.call("subscribe_changes", { topics: ["orders"] });
    await shop.order("6.10", "6.20", "6.30");
    const given = await one.call("poll_changes", { subscription_id: subscriptionId, batch_size: 1 });
    const ended = await one.call("unsubscribe", { subscription_id: subscriptionId, cursor: given.cursor });
    const last = BigInt(shop.server.feed.status().head);
    await using subscriber = new Subscriber(grpcClient(shop.url), {
      start: { case: "afterCursor", value: ended.cursor },
      selectors: [{ topics: ["orders"] }],
    });
    await subscriber.reaches(last);
    expect(subscriber.versions).toEqual([last - 1n, last]);
    const middle = subscriber.cursors.get(last) ?? "";
    await shop.order("6.40");
    expect(totals(await one.call("poll_changes", { topics: ["orders"], cursor: middle }))).toEqual(["6.40"]);
  });

  it("gives every digit, as text, and nothing of the rows when they are not wanted", async () => {
    await using one = await stdioAgent(shop.url);
    const { cursor } = await one.call("poll_changes", { timeout_seconds: 0 });
    await shop.order("12345678901234567890.0123456789");
    const whole = await one.call("poll_changes", { topics: ["orders"], cursor });
    expect(totals(whole)).toEqual(["12345678901234567890.0123456789"]);
    expect(whole.text).toContain("12345678901234567890.0123456789");
    const bare = await one.call("poll_changes", { topics: ["orders"], cursor, include_data: false });
    expect(bare.events).toMatchObject([{ topic: "orders", operation: "INSERT", key: expect.any(String) }]);
    expect(bare.events[0]).not.toHaveProperty("after");
    const some = await one.call("poll_changes", { topics: ["orders"], cursor, fields: ["id"] });
    expect(some.events[0]?.after).not.toContain("total");
  });

  it("keeps answers within their bytes, and says how to have what was left out", async () => {
    await using one = await httpAgent(shop.url);
    const { cursor } = await one.call("poll_changes", { timeout_seconds: 0 });
    await shop.emit(
      "blobs",
      Array.from({ length: 10 }, (_, n) => ({ n, fill: "x".repeat(1500) })),
    );
    await shop.emit("blobs", [{ fill: "y".repeat(20_000) }]);
    const seen: unknown[] = [];
    let at: string = cursor;
    let left: Said | undefined;
    while (left === undefined) {
      const page = await one.call("poll_changes", { topics: ["blobs"], cursor: at, max_bytes: 4096 });
      expect(page.text.length).toBeLessThan(6000);
      seen.push(...page.events);
      at = page.cursor;
      if (page.events.some(({ payload_omitted }) => payload_omitted !== undefined)) left = page;
    }
    expect(seen).toHaveLength(11);
    const hint = /To have #\d+: poll_changes (\{[^}]*\})/.exec(left.text)?.[1] ?? "";
    const had = await one.call("poll_changes", JSON.parse(hint));
    expect(had.events).toHaveLength(1);
    expect(had.events[0]?.after).toContain("y".repeat(20_000));
  });

  it("tells whoever asked that it waits", async () => {
    await using one = await httpAgent(shop.url, "auto");
    const news: unknown[] = [];
    const onprogress = (progress: unknown) => void news.push(progress);
    const said = await one.call("poll_changes", { topics: ["nothing"], timeout_seconds: 6 }, { onprogress });
    expect(said).toMatchObject({ isError: false, events: [] });
    expect(said.text).toContain("Nothing new within 6 s.");
    expect(news).toMatchObject([{ progress: 5, total: 6 }]);
  });
});

describe("subscriptions", () => {
  it("are each agent's own, and are listed with what they deliver", async () => {
    await using one = await stdioAgent(shop.url);
    await using other = await httpAgent(shop.url);
    const name = "agents/one:orders";
    const mine = { subscription_id: name, topics: ["orders"], owner: "one", labels: { for: "test" } };
    expect((await one.call("subscribe_changes", mine)).structured).toMatchObject({ existed: false });
    expect((await one.call("subscribe_changes", mine)).structured).toMatchObject({ existed: true });
    expect((await one.call("subscribe_changes", { ...mine, batch_size: 3 })).text).toContain("SUBSCRIPTION_EXISTS: ");
    const theirs = await other.call("subscribe_changes", {
      topics: ["orders"],
      owner: "other",
      filter: "row.total > 8",
    });
    await shop.order("7.70", "8.80");
    expect(totals(await one.call("poll_changes", { subscription_id: name }))).toEqual(["7.70", "8.80"]);
    expect(totals(await other.call("poll_changes", { subscription_id: theirs.subscriptionId }))).toEqual(["8.80"]);
    const listed = await other.call("get_subscriptions", { owner: "one", topic: "orders", labels: { for: "test" } });
    expect(listed.structured).toMatchObject({
      total: 1,
      subscriptions: [
        { subscription_id: name, selectors: [{ topics: ["orders"] }], lag_versions: 2, labels: { for: "test" } },
      ],
    });
    expect(listed.text).toContain("2 versions behind");
    const all = await one.call("get_subscriptions", { page_size: 1 });
    expect(all.structured).toMatchObject({ total: 2, next_page_token: expect.any(String) });
    const rest = await one.call("get_subscriptions", { page_size: 1, page_token: all.structured.next_page_token });
    expect(rest.structured).not.toHaveProperty("next_page_token");
    await one.call("unsubscribe", { subscription_id: name });
    await one.call("unsubscribe", { subscription_id: theirs.subscriptionId });
    expect(await one.call("get_subscriptions")).toMatchObject({ text: "No subscriptions." });
  });

  it("are listed in pages that a model can take", async () => {
    await using one = await httpAgent(shop.url);
    const names = Array.from({ length: 12 }, (_, n) => `long-${String(n).padStart(2, "0")}`);
    const keys = Array.from({ length: 500 }, (_, n) => `key-${n}`);
    for (const subscription_id of names) {
      const labels = { note: "n".repeat(1000), why: "w".repeat(1000), who: "x".repeat(1000), when: "y".repeat(1000) };
      const made = await one.call("subscribe_changes", { subscription_id, topics: ["orders"], keys, labels });
      expect(made).toMatchObject({ isError: false, structured: { shortened: true } });
      expect(made.text.length).toBeLessThan(7000);
    }
    const listed: unknown[] = [];
    let token: unknown;
    do {
      const page: Said = await one.call("get_subscriptions", {
        page_size: 100,
        ...(token === undefined ? {} : { page_token: token }),
      });
      expect(page.text.length).toBeLessThan(40_000);
      const { subscriptions, next_page_token } = page.structured;
      listed.push(...(Array.isArray(subscriptions) ? subscriptions : []).map((each) => each.subscription_id));
      token = next_page_token;
    } while (token !== undefined);
    expect(listed).toEqual(names);
    for (const subscription_id of names) await one.call("unsubscribe", { subscription_id });
  });

  it("belong to whoever took them up last, which the other is told", async () => {
    await using one = await stdioAgent(shop.url);
    await using other = await stdioAgent(shop.url);
    const { subscriptionId } = await one.call("subscribe_changes", { topics: ["orders"] });
    const subscription = { subscription_id: subscriptionId };
    await shop.order("9.10");
    const mine = await one.call("poll_changes", subscription);
    const theirs = await other.call("poll_changes", subscription);
    expect(totals(theirs)).toEqual(totals(mine));
    const fenced = await one.call("poll_changes", { ...subscription, cursor: mine.cursor });
    expect(fenced).toMatchObject({ isError: true, text: expect.stringContaining("SUBSCRIPTION_FENCED: ") });
    await one.call("unsubscribe", subscription);
  });
});

describe("millrace mcp", () => {
  it("starts without a server, says so in its tools, and works once there is one", async () => {
    const directory = await scratchDirectory();
    try {
      const gone = await openShop();
      const { port } = gone.server;
      await gone[Symbol.asyncDispose]();
      await using one = await stdioAgent(`http://127.0.0.1:${port}`);
      expect((await one.client.listTools()).tools).toHaveLength(4);
      const said = await one.call("get_subscriptions");
      expect(said).toMatchObject({ isError: true, text: expect.stringContaining("SERVER_UNREACHABLE: ") });
      await eventually(async () => one.stderr().includes("no answer from the Millrace server"));
      const server = startMillrace(["start", "--json", "--port", String(port)], { directory });
      try {
        await server.line((line) => line.includes('"databaseUrl"'));
        const listed = await one.call("get_subscriptions");
        expect(listed).toMatchObject({ isError: false, text: "No subscriptions." });
      } finally {
        await server.end("SIGTERM");
      }
    } finally {
      await cleanUp(directory);
    }
  });

  it("prints the protocol and nothing else, and ends with its input", async () => {
    const directory = await scratchDirectory();
    const asked = [
      {
        id: 1,
        method: "initialize",
        params: { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "x", version: "1" } },
      },
      { method: "notifications/initialized" },
      { id: 2, method: "tools/call", params: { name: "poll_changes", arguments: { from: "oldest" } } },
      { id: 3, method: "tools/call", params: { name: "no_such_tool", arguments: {} } },
    ].map((message) => `${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);
    try {
      const child = startMillrace(["mcp", "--url", shop.url], { directory });
      child.write(asked.join("").replace('{"jsonrpc":"2.0","method"', 'this is no JSON\n{"jsonrpc":"2.0","method"'));
      await child.line((line) => line.includes('"id":2'));
      await child.line((line) => line.includes('"id":3'));
      expect(await child.endInput()).toBe(0);
      expect(child.lines.map((line) => JSON.parse(line).jsonrpc)).toEqual(["2.0", "2.0", "2.0"]);
      // At once, before the server has been asked for a sign of life: that nobody waits for it any more is no trouble.
      const brief = startMillrace(["mcp", "--url", shop.url], { directory });
      expect(await brief.endInput()).toBe(0);
      expect(brief.stderr()).toBe("");
      const stopped = startMillrace(["mcp", "--url", shop.url], { directory });
      stopped.write(asked[0] ?? "");
      await stopped.line((line) => line.includes('"id":1'));
      expect(await stopped.end("SIGTERM")).toBe(143);
    } finally {
      await cleanUp(directory);
    }
  });
});
