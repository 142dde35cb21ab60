// `npm start` to the first event of the demo at a gRPC client: the first time, when a database is made, and after that.
// Beside it what Postgres alone takes to start and to answer.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { startEmbedded } from "../src/embedded/embedded-postgres.ts";
import { medianOf } from "./load/contest.ts";
import { benchOptions, report } from "./report.ts";
import { subscribe } from "./wire-client.ts";
import { readFrame } from "./wire-reader.ts";

benchOptions(1);
const warmStarts = 5;
const limitMs = 60_000;
const directory = await mkdtemp(join(tmpdir(), "millrace-bench-start-"));
const dataDir = join(directory, "data");
try {
  const cold = await startUntilEvent();
  const warm: number[] = [];
  const postgres: number[] = [];
  for (let i = 0; i < warmStarts; i += 1) {
    warm.push(await startUntilEvent());
    postgres.push(await startPostgres());
  }
  const value = medianOf(warm);
  report(
    "start",
    [
      {
        what: "`npm start` to the first event, warm",
        value,
        unit: "s",
        baseline: { what: "the embedded Postgres alone", value: medianOf(postgres) },
        target: "<= 2 s",
        met: value <= 2,
      },
      { what: "the first time, with initdb and migrations", value: cold, unit: "s" },
    ],
    `embedded Postgres with the demo, median of ${warmStarts} starts`,
  );
} finally {
  await rm(directory, { recursive: true, force: true });
}

async function startUntilEvent(): Promise<number> {
  const port = await freePort();
  const begun = performance.now();
  const child = spawn(
    "npm",
    ["start", "--silent", "--", "--port", String(port), "--data-dir", dataDir, "--log-level", "warn"],
    {
      cwd: fileURLToPath(new URL("..", import.meta.url)),
      stdio: ["ignore", "ignore", "inherit"],
      // npm and what it starts, to be ended together.
      detached: true,
    },
  );
  const ended = once(child, "exit");
  try {
    await firstEvent(port, begun + limitMs);
    return (performance.now() - begun) / 1_000;
  } finally {
    if (child.pid !== undefined) {
      process.kill(-child.pid, "SIGTERM");
      await ended;
      await groupEnded(child.pid);
    }
  }
}

async function firstEvent(port: number, until: number): Promise<void> {
  while (performance.now() < until) {
    const seen = Promise.withResolvers<boolean>();
    const stream = subscribe(port, {}, (message) => {
      if (readFrame(message).kind === 2) seen.resolve(true);
    });
    stream.ended.then(
      () => seen.resolve(false),
      () => seen.resolve(false),
    );
    const arrived = await seen.promise;
    stream.cancel();
    if (arrived) return;
    await pause(10);
  }
  throw new Error("No event came.");
}

async function startPostgres(): Promise<number> {
  const begun = performance.now();
  const postgres = await startEmbedded({ dataDir });
  const elapsed = (performance.now() - begun) / 1_000;
  await postgres.stop();
  return elapsed;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  return typeof address === "object" && address !== null ? address.port : 0;
}

/** npm may be gone before what it started. */
async function groupEnded(group: number): Promise<void> {
  for (;;) {
    try {
      process.kill(-group, 0);
    } catch {
      return;
    }
    await pause(20);
  }
}
