import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { describe, expect, it, vi } from "vitest";
import { FeedService, PolicyKind } from "../../../gen/millrace/v1/feed_service_pb.js";
import { resolveConfig } from "../../../src/server/config.ts";
import { metrics } from "../../../src/server/metric-names.ts";
import { startServer } from "../../../src/server/server.ts";
import { freshDatabase } from "../../support/cluster.ts";

type Samples = ReadonlyMap<string, number>;

async function scrape(url: string): Promise<Samples> {
  const response = await fetch(`${url}/metrics`);
  expect(response.headers.get("content-type")).toContain("text/plain");
  const lines = (await response.text()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ") + 1))]),
  );
}

/** What appears only once there is something to tell: failures, problems, ends, a look at the storage. */
const LATER = new Set([
  "millrace.builder.events",
  "millrace.builder.seconds",
  "millrace.database.errors",
  "millrace.groups.waiting",
  "millrace.problems",
  "millrace.restarts",
  "millrace.streams.ended",
  "millrace.subscription.lag.versions",
]);

describe("the metrics page", () => {
  it("G10 tells of feed, streams and delivery what a client has seen of them", async () => {
    const flags = { databaseUrl: await freshDatabase(), port: 0, logLevel: "silent" };
    const server = await startServer(resolveConfig({ flags }));
    try {
      const client = createClient(FeedService, createGrpcTransport({ baseUrl: server.url }));
      const cancel = new AbortController();
      const selectors = [{ topics: ["notes"], filter: "row.n > 1 / row.d" }];
      const delivery = { policy: { kind: PolicyKind.LATEST } };
      const stream = client.subscribe({ selectors, delivery }, { signal: cancel.signal })[Symbol.asyncIterator]();
      await stream.next();
      const events = [`{"n":2,"d":1}`, `{"n":2,"d":0}`, `{"n":3,"d":1}`].map((json) => ({
        topic: "notes",
        payload: { form: { case: "json" as const, value: json } },
      }));
      await client.publish({ events });
      const batch = await stream.next();
      expect(batch.value.frame.value.events).toHaveLength(2);

      const seen = await scrape(server.url);
      const names = [...seen.keys()].map((sample) =>
        sample.replace(/\{.*/, "").replace(/_(count|sum|bucket|total)$/, ""),
      );
      const missing = Object.keys(metrics).filter(
        (name) => !LATER.has(name) && !names.includes(name.replaceAll(".", "_")),
      );
      expect(missing).toEqual([]);
      const told = Object.fromEntries(
        [
          "feed_ready",
          "feed_head",
          "streams_opened_total",
          "events_delivered_total",
          "filter_errors_total",
          "lanes",
        ].map((name) => [name, seen.get(`millrace_${name}`)]),
      );
      expect(told).toEqual({
        feed_ready: 1,
        feed_head: 3,
        streams_opened_total: 1,
        events_delivered_total: 2,
        filter_errors_total: 1,
        lanes: 1,
      });
      expect(seen.get(`millrace_streams{state="live"}`)).toBe(1);
      expect(seen.get(`millrace_streams_policy{policy="LATEST"}`)).toBe(1);
      expect(seen.get(`millrace_stream_lag_versions{quantile="1"}`)).toBe(0);
      expect(seen.get("millrace_sent_bytes_total")).toBeGreaterThan(events.join().length);

      cancel.abort();
      await stream.next().catch(() => undefined);
      await vi.waitFor(async () => {
        const after = await scrape(server.url);
        expect(after.get(`millrace_streams{state="live"}`)).toBe(0);
        expect(after.get(`millrace_streams_ended_total{end="CANCELLED"}`)).toBe(1);
        // What nobody has any more is not told of any more.
        expect(after.has(`millrace_streams_policy{policy="LATEST"}`)).toBe(false);
        expect(after.has(`millrace_stream_lag_versions{quantile="1"}`)).toBe(false);
      });
    } finally {
      await server.stop();
    }
  });
});
