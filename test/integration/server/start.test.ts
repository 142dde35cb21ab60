import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import pg from "pg";
import { pino } from "pino";
import { describe, expect, it, vi } from "vitest";
import { ErrorCode, ErrorDetailSchema } from "../../../gen/millrace/v1/error_pb.js";
import { FeedService, FeedState } from "../../../gen/millrace/v1/feed_service_pb.js";
import { FeedError } from "../../../src/core/errors.ts";
import { resolveConfig } from "../../../src/server/config.ts";
import { type RunningServer, type StartOptions, startServer } from "../../../src/server/server.ts";
import { createCluster, freshDatabase } from "../../support/cluster.ts";
import { startServerProcess } from "../../support/server-process.ts";

function start(databaseUrl: string, options: StartOptions = {}, flags = {}): Promise<RunningServer> {
  return startServer(resolveConfig({ flags: { databaseUrl, port: 0, logLevel: "silent", ...flags } }), options);
}

async function failureOf(starting: Promise<RunningServer>): Promise<FeedError> {
  const outcome: unknown = await starting.catch((error: unknown) => error);
  if (!(outcome instanceof FeedError)) throw new Error(`expected a FeedError, got ${String(outcome)}`);
  return outcome;
}

async function execute(url: string, ...statements: string[]): Promise<void> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}

describe("a start", () => {
  it("on an empty database migrates it; the next finds it ready", async () => {
    const url = await freshDatabase();
    const first = await start(url);
    expect(first.feed.status()).toMatchObject({ state: "LIVE", head: 0 });
    const { epoch } = first.feed.status();
    await first.stop();
    const second = await start(url, {}, { migrate: false });
    expect(second.feed.status().epoch).toBe(epoch);
    await second.stop();
  });

  it("without leave to migrate says how to", async () => {
    const failure = await failureOf(start(await freshDatabase(), {}, { migrate: false }));
    expect(failure.code).toBe("INVALID_REQUEST");
    expect(failure.action).toContain("millrace migrate");
  });

  it("on a newer schema ends at once, and says to upgrade", async () => {
    const url = await freshDatabase();
    await (await start(url)).stop();
    await execute(url, "insert into millrace.migration (number, name, sha256) values (9999, '9999_future.sql', 'x')");
    const failure = await failureOf(start(url));
    expect(failure.code).toBe("INVALID_REQUEST");
    expect(failure.message).toContain("newer");
  });

  it("with a database or a role that does not exist ends at once, and does not tell the password", async () => {
    await using cluster = await createCluster();
    const missing = await failureOf(start(cluster.url("nowhere")));
    expect(missing.code).toBe("INVALID_REQUEST");
    expect(missing.message).toContain("nowhere");
    const stranger = new URL(cluster.url("postgres", "stranger"));
    stranger.password = "hunter2";
    const refused = await failureOf(start(stranger.href));
    expect(refused.code).toBe("INVALID_REQUEST");
    expect(refused.message).toContain("stranger");
    expect(refused.message + refused.action).not.toContain("hunter2");
  });

  it("with a role without rights ends at once, and says what to grant", async () => {
    await using cluster = await createCluster();
    const url = await cluster.createDatabase("shop");
    await (await start(url)).stop();
    await execute(url, "create role guest login");
    const failure = await failureOf(start(cluster.url("shop", "guest")));
    expect(failure.code).toBe("INVALID_REQUEST");
    expect(failure.action).toContain("millrace.allow('guest', 'server')");
  });

  it("lets go of the port when it fails", async () => {
    const url = await freshDatabase();
    const running = await start(url);
    const { port } = running;
    const taken = await failureOf(start(url, {}, { port }));
    expect(taken.message).toBe(`Port ${port} on 127.0.0.1 is taken by another process.`);
    await running.stop();
    await failureOf(start(await freshDatabase(), {}, { port, migrate: false }));
    const again = await start(url, {}, { port });
    expect(again.port).toBe(port);
    await again.stop();
  });
});

describe("a Postgres that is down at the start", () => {
  it("is waited for, aloud, behind an open port, and found", async () => {
    await using cluster = await createCluster();
    const url = await cluster.createDatabase("shop");
    await cluster.stop();
    const lines: Record<string, unknown>[] = [];
    const log = pino({ level: "info" }, { write: (line: string) => lines.push(JSON.parse(line)) });
    const waits: string[] = [];
    const starting = start(url, { log, onWait: (failure) => waits.push(failure) });
    await vi.waitUntil(() => waits.length >= 2, { timeout: 20_000 });
    expect(waits[0]).toMatch(/could not connect|does not answer/i);
    const base = String(lines.find((line) => line.msg === "listening")?.url);

    expect((await fetch(`${base}/livez`)).status).toBe(200);
    const ready = await fetch(`${base}/readyz`);
    expect([ready.status, await ready.text()]).toEqual([503, `Starting: ${waits.at(-1)}\n`]);
    const client = createClient(FeedService, createGrpcTransport({ baseUrl: base }));
    const status = await client.getStatus({});
    expect(status.state).toBe(FeedState.STARTING);
    expect(status.problems[0]?.code).toBe("DATABASE_UNAVAILABLE");
    const refused: unknown = await client.publish({ events: [{ topic: "a" }] }).catch((error: unknown) => error);
    expect(refused instanceof ConnectError && refused.findDetails(ErrorDetailSchema)[0]?.code).toBe(
      ErrorCode.DATABASE_UNAVAILABLE,
    );

    await cluster.start();
    const server = await starting;
    expect((await fetch(`${base}/readyz`)).status).toBe(200);
    expect((await client.publish({ events: [{ topic: "a" }] })).version).toBe(1n);
    await server.stop();
  });

  it("is waited for no longer than the caller wants", async () => {
    await using cluster = await createCluster();
    await cluster.stop();
    const giveUp = new AbortController();
    const starting = start(cluster.url(), { signal: giveUp.signal, onWait: () => giveUp.abort(new Error("enough")) });
    await expect(starting).rejects.toThrow(/enough|aborted/);
  });
});

describe("what is wrong with capture", () => {
  it("shows in GetStatus", async () => {
    const url = await freshDatabase();
    await (await start(url)).stop();
    await execute(
      url,
      "create table orders (id int primary key)",
      "select millrace.watch('orders')",
      "alter table orders disable trigger all",
    );
    const server = await start(url);
    const { problems } = await createClient(FeedService, createGrpcTransport({ baseUrl: server.url })).getStatus({});
    expect(problems.map(({ code }) => code)).toContain("TRIGGER_OFF");
    expect(problems[0]?.action).not.toBe("");
    await server.stop();
  });
});

describe("SIGTERM", () => {
  it("G8 drains: `closing` with a cursor to each stream, then a clean exit", async () => {
    await using server = await startServerProcess({ databaseUrl: await freshDatabase() });
    const client = createClient(FeedService, createGrpcTransport({ baseUrl: `http://127.0.0.1:${server.port}` }));
    let exit: Promise<number | null> = Promise.resolve(null);
    const endings = await Promise.all(
      Array.from({ length: 20 }, async (_, index) => {
        const frames: (string | undefined)[] = [];
        for await (const { frame } of client.subscribe({})) {
          frames.push(frame.case);
          if (index === 19 && frame.case === "opened") {
            await vi.waitUntil(async () => (await client.getStatus({})).streams === 20);
            exit = server.terminate();
          }
        }
        return frames.at(-1);
      }),
    );
    expect(endings).toEqual(endings.map(() => "closing"));
    expect(await exit).toBe(0);
  });

  it("a second time ends the process at once, whoever still reads", async () => {
    const url = await freshDatabase();
    await using server = await startServerProcess({ databaseUrl: url, drainMs: 600_000 });
    // A client that has stopped reading: the server has more for it than the connection takes.
    const session = connectHttp2(`http://127.0.0.1:${server.port}`);
    session.on("error", () => undefined);
    const stuck = session.request({
      ":method": "POST",
      ":path": "/millrace.v1.FeedService/Subscribe",
      "content-type": "application/connect+json",
    });
    stuck.on("error", () => undefined);
    stuck.end(Buffer.from([0, 0, 0, 0, 13, ...Buffer.from('{"oldest":{}}')]));
    await once(stuck, "response");
    stuck.pause();
    const fill = "select millrace.emit('large', null, to_json(repeat('x', 100000))) from generate_series(1, 100)";
    await execute(url, fill);
    const client = createClient(FeedService, createGrpcTransport({ baseUrl: `http://127.0.0.1:${server.port}` }));
    await vi.waitUntil(async () => (await client.getStatus({})).headVersion === 100n);
    const exit = server.terminate();
    await vi.waitUntil(async () => (await client.getStatus({})).state === FeedState.DRAINING);
    // Soon after the first it would count as the same one, which npm passes on.
    const again = setInterval(() => void server.terminate(), 100);
    expect(await exit).toBe(143);
    clearInterval(again);
  });
});
