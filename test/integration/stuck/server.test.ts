import { pino } from "pino";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { FeedState } from "../../../gen/millrace/v1/feed_service_pb.js";
import { resolveConfig } from "../../../src/server/config.ts";
import { startServer } from "../../../src/server/server.ts";
import { createCluster, type TestCluster } from "../../support/cluster.ts";
import { grpcClient, resubscribe, Subscriber } from "../server/client.ts";
import { PATIENCE, Stage } from "./stage.ts";

let cluster: TestCluster;
beforeAll(async () => {
  cluster = await createCluster();
});
afterAll(() => cluster[Symbol.asyncDispose]());

async function serve(databaseUrl: string) {
  const logged: string[] = [];
  const write = (line: string) => logged.push((JSON.parse(line) as { readonly msg: string }).msg);
  const config = resolveConfig({ flags: { databaseUrl, port: 0, stuckAfterMs: 300 } });
  const server = await startServer(config, { log: pino({ level: "info" }, { write }) });
  return { server, logged, client: grpcClient(server.url), [Symbol.asyncDispose]: () => server.stop(100) };
}

const oldest = { start: { case: "oldest", value: {} } } as const;

async function page(url: string, path: string): Promise<string> {
  const response = await fetch(`${url}${path}`);
  return `${response.status} ${await response.text()}`;
}

test("G8 G10 a tail that no restart helps is named in GetStatus, /readyz and metrics; its feed is opened anew, once, and clients go on", async () => {
  await using stage = await Stage.open(cluster);
  const writer = await stage.session();
  await using running = await serve(stage.proxy.url);
  const { server, client, logged } = running;
  await using reader = new Subscriber(client, oldest);
  await stage.commit(writer, "before");
  await reader.reaches(1n);
  stage.proxy.freezeAllNext("millrace tail");
  expect(stage.proxy.freeze("millrace tail")).toBe(1);
  await stage.commit(writer, "while it is stuck");

  await vi.waitUntil(async () => {
    const { problems } = await client.getStatus({});
    return problems.some(({ code }) => code === "TAIL_STUCK");
  }, PATIENCE);
  await vi.waitUntil(async () => /^503 .*\n.*TAIL_STUCK: The tail /s.test(await page(server.url, "/readyz")), PATIENCE);
  expect(await page(server.url, "/metrics")).toMatch(/millrace_restarts_total\{part="tail"[^}]*\} \d/);

  expect(await reader.refusal()).toMatchObject({ code: "DATABASE_UNAVAILABLE" });
  expect(reader.versions).toEqual([1n]);
  expect(logged).toContain("the feed stands still whatever is restarted of it: opening it anew");
  await using again = await resubscribe(client, {
    start: { case: "afterCursor", value: reader.cursors.get(1n) ?? "" },
  });
  // What was opened in vain is not opened again and again: each time would end the streams.
  const restarts = () => logged.filter((one) => one === "The tail is stuck and is restarted.").length;
  const before = restarts();
  await vi.waitUntil(() => restarts() >= before + 4, PATIENCE);
  expect(again.error).toBeUndefined();

  stage.proxy.thaw();
  await again.reaches(2n);
  await stage.commit(writer, "after");
  await again.reaches(3n);
  expect([...reader.keys, ...again.keys]).toEqual(["before", "while it is stuck", "after"]);
  await vi.waitUntil(async () => (await client.getStatus({})).state === FeedState.LIVE, PATIENCE);
  await vi.waitUntil(async () => /^200 Ready: [^\n]*\n$/.test(await page(server.url, "/readyz")), PATIENCE);
});

test("a server whose connections all hang ends nevertheless", async () => {
  await using stage = await Stage.open(cluster);
  const running = await serve(stage.proxy.url);
  stage.proxy.freezeAllNext("millrace");
  stage.proxy.freeze("millrace");
  await running.server.stop(100);
  expect(running.logged).toContain("stopped");
});
