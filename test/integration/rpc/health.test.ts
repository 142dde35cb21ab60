import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { describe, expect, it } from "vitest";
import { Health, HealthCheckResponse_ServingStatus as Status } from "../../../gen/grpc/health/v1/health_pb.js";
import type { FeedState } from "../../../src/core/feed.ts";
import { createScriptedFeed } from "./scripted-feed.ts";
import { serve } from "./served.ts";

const away = { code: "DATABASE_UNAVAILABLE", message: "Postgres is away.", action: "Start it." } as const;

function movable() {
  let state: FeedState = "LIVE";
  return {
    feed: createScriptedFeed({
      status: () => ({ state, failure: state === "STALE" ? away : undefined }),
    }),
    become(next: FeedState) {
      state = next;
    },
  };
}

describe("health", () => {
  it.each([
    ["LIVE", Status.SERVING, 200, "Ready: the feed stands at version 7."],
    ["STARTING", Status.NOT_SERVING, 503, "Starting: "],
    ["STALE", Status.NOT_SERVING, 503, "Not ready: Postgres is away. Start it."],
    ["DRAINING", Status.NOT_SERVING, 503, "Going down: "],
  ] as const)("of a feed that is %s, by gRPC and by HTTP", async (state, status, http, text) => {
    const { feed, become } = movable();
    become(state);
    await using served = await serve(feed);
    const client = createClient(Health, createGrpcTransport({ baseUrl: served.url }));
    for (const service of ["", "millrace.v1.FeedService"]) {
      expect((await client.check({ service })).status).toBe(status);
    }
    const { statuses } = await client.list({});
    expect(Object.entries(statuses).map(([name, one]) => [name, one.status])).toEqual([
      ["", status],
      ["millrace.v1.FeedService", status],
    ]);
    const ready = await fetch(`${served.url}/readyz`);
    expect(ready.status).toBe(http);
    expect(await ready.text()).toContain(text);
    expect((await fetch(`${served.url}/livez`)).status).toBe(200);
  });

  it("names what is wrong with capture, and is ready all the same", async () => {
    const problems = [{ code: "TRIGGER_OFF", message: "The trigger on orders is off.", action: "Enable it." }];
    await using served = await serve(movable().feed, { problems });
    const ready = await fetch(`${served.url}/readyz`);
    expect([ready.status, await ready.text()]).toEqual([
      200,
      "Ready: the feed stands at version 7.\nTRIGGER_OFF: The trigger on orders is off. Enable it.\n",
    ]);
  });

  it("does not know other services", async () => {
    await using served = await serve(movable().feed);
    const client = createClient(Health, createGrpcTransport({ baseUrl: served.url }));
    const error: unknown = await client.check({ service: "nope" }).catch((reason: unknown) => reason);
    expect(error instanceof ConnectError && error.code).toBe(Code.NotFound);
    for await (const { status } of client.watch({ service: "nope" })) {
      expect(status).toBe(Status.SERVICE_UNKNOWN);
      break;
    }
  });

  it("is told to watchers as it changes, until the server stops", async () => {
    const { feed, become } = movable();
    const served = await serve(feed);
    const client = createClient(Health, createGrpcTransport({ baseUrl: served.url }));
    const seen: Status[] = [];
    let stopped: Promise<void> = Promise.resolve();
    const failure: unknown = await (async () => {
      for await (const { status } of client.watch({ service: "" })) {
        seen.push(status);
        if (seen.length === 1) become("STALE");
        if (seen.length === 2) become("LIVE");
        if (seen.length === 3) stopped = served.server.stop();
      }
    })().catch((reason: unknown) => reason);
    await stopped;
    expect(seen).toEqual([Status.SERVING, Status.NOT_SERVING, Status.SERVING]);
    expect(failure instanceof ConnectError && failure.code).toBe(Code.Unavailable);
  });
});

describe("the pages for people", () => {
  it("greets with what to paste next", async () => {
    await using served = await serve(movable().feed);
    const text = await fetch(`${served.url}/`).then((response) => response.text());
    expect(text).toContain(
      `npx buf curl --http2-prior-knowledge --reflect ${served.url}/millrace.v1.FeedService/Subscribe`,
    );
    expect(text).toContain("The feed is LIVE at version 7");
  });

  it("points the lost to the front page, and refuses what a page cannot take", async () => {
    await using served = await serve(movable().feed);
    const lost = await fetch(`${served.url}/nope`);
    expect([lost.status, await lost.text()]).toEqual([
      404,
      `There is nothing at /nope. ${served.url}/ says what there is.\n`,
    ]);
    expect((await fetch(`${served.url}/readyz`, { method: "POST" })).status).toBe(405);
    expect((await fetch(`${served.url}/`, { method: "HEAD" })).status).toBe(200);
  });
});
