import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { resolveConfig } from "../../src/server/config.ts";
import { startServer } from "../../src/server/server.ts";
import { eventually } from "../support/deadline.ts";
import { startServerProcess } from "../support/server-process.ts";
import { httpAgent, type Said, stdioAgent } from "./mcp-agent.ts";
import { openShop, type Shop } from "./shop.ts";

let shop: Shop;
beforeAll(async () => {
  shop = await openShop();
});
afterAll(() => shop[Symbol.asyncDispose]());

const keys = (said: Said): readonly unknown[] => said.events.map(({ key }) => key);

describe("agents and replicas", () => {
  it("G8 a subscription is polled and acknowledged at whichever replica answers", async () => {
    const other = await startServer(
      resolveConfig({ flags: { databaseUrl: shop.databaseUrl, port: 0, logLevel: "silent" } }),
    );
    try {
      await using here = await httpAgent(shop.url);
      await using there = await httpAgent(other.url, "auto");
      const { subscriptionId } = await here.call("subscribe_changes", { topics: ["orders"], batch_size: 2 });
      await shop.order("1", "2", "3", "4", "5");
      const subscription = { subscription_id: subscriptionId };
      const first = await there.call("poll_changes", subscription);
      const second = await here.call("poll_changes", { ...subscription, cursor: first.cursor });
      const third = await there.call("poll_changes", { ...subscription, cursor: second.cursor });
      expect([first, second, third].map((said) => said.events.length)).toEqual([2, 2, 1]);
      expect(new Set([first, second, third].flatMap(keys)).size).toBe(5);
      expect(third.events[0]).not.toHaveProperty("attempt");
      const ended = await here.call("unsubscribe", { ...subscription, cursor: third.cursor });
      expect(ended.structured).toMatchObject({ version: third.events[0]?.version });
    } finally {
      await other.stop(1_000);
    }
  });

  it("G1 goes on after the server was killed, with what had not been acknowledged", async () => {
    const config = { databaseUrl: shop.databaseUrl };
    await using first = await startServerProcess(config);
    await using agent = await stdioAgent(`http://127.0.0.1:${first.port}`);
    const { subscriptionId } = await agent.call("subscribe_changes", { topics: ["orders"], batch_size: 1 });
    await shop.order("6", "7");
    const subscription = { subscription_id: subscriptionId };
    const given = await agent.call("poll_changes", subscription);
    await first.kill9();
    expect(await agent.call("poll_changes", { ...subscription, cursor: given.cursor })).toMatchObject({
      isError: true,
      text: expect.stringContaining("SERVER_UNREACHABLE: "),
    });
    await using second = await startServerProcess({ ...config, port: first.port });
    expect(second.port).toBe(first.port);
    const next = await agent.call("poll_changes", { ...subscription, cursor: given.cursor });
    expect(next.events).toHaveLength(1);
    expect(keys(next)).not.toEqual(keys(given));
    await agent.call("unsubscribe", subscription);
  });

  it("answers whoever waits when the server goes down, with where to go on", async () => {
    const other = await startServer(
      resolveConfig({ flags: { databaseUrl: shop.databaseUrl, port: 0, logLevel: "silent" } }),
    );
    await using agent = await httpAgent(other.url);
    const waiting = agent.call("poll_changes", { topics: ["nothing"], timeout_seconds: 60 });
    await eventually(async () => other.feed.status().streams > 0);
    const stopped = other.stop(10_000);
    const said = await waiting;
    await stopped;
    expect(said).toMatchObject({ isError: false, events: [] });
    expect(said.text).not.toContain("60 s");
    await using next = await httpAgent(shop.url);
    await shop.emit("nothing", [{ at: "last" }]);
    expect((await next.call("poll_changes", { topics: ["nothing"], cursor: said.cursor })).events).toHaveLength(1);
  });
});
