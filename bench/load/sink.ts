import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);

/** What the sink is asked to do; see `bench/sink/sink.c`. */
export interface SinkOptions {
  readonly mode?: "h2" | "nats";
  readonly port: number;
  /** Where the publisher listens. None for NATS, where the sink publishes. */
  readonly control?: number;
  /** Whose CPU time is counted. */
  readonly pid: number;
  readonly connections: number;
  /** Of each connection. */
  readonly streams: number;
  readonly seconds: number;
  /** Seconds before measuring begins. */
  readonly warmup?: number;
  /** Published at a time. Default 1. */
  readonly burst?: number;
  /** Events that may be on their way to the streams, on average. Default 64. */
  readonly outstanding?: number;
  /** Events per second, instead of as many as come back. */
  readonly rate?: number;
  /** Initial window of a stream, in bytes. Default: none to speak of. */
  readonly window?: number;
  /** So many streams never give credit back, beginning with the first of each connection. */
  readonly stuck?: number;
  /** Nor the connection's for what they did not read, as clients that couple the two. */
  readonly shareCredit?: boolean;
  /** Looks at the stamps. */
  readonly latency?: boolean;
  /** Seconds without an event before the rest is given up. Default 10. */
  readonly patience?: number;
  /** The request. Default an empty one: everything, from now on. */
  readonly body?: Uint8Array;
}

/** What it counted while it measured; `published`, `delivered` and `exact` are of the whole run. */
export interface SinkReport {
  readonly streams: number;
  readonly published: number;
  readonly delivered: number;
  /** Each stream that is not stuck had every event, in order. */
  readonly exact: boolean;
  readonly seconds: number;
  readonly perSecond: number;
  /** The server's CPU time for one delivery. */
  readonly serverMicros: number;
  readonly serverCores: number;
  readonly sinkCores: number;
  readonly eventsPerMessage: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly gaps: number;
  readonly disorder: number;
  readonly ended: number;
  readonly resets: number;
  readonly closed: number;
}

/** Open streams, until they are let go. */
export interface HeldStreams extends AsyncDisposable {
  readonly open: number;
}

const sources = fileURLToPath(new URL("../sink/", import.meta.url));
const out = fileURLToPath(new URL("../out/", import.meta.url));
const binary = `${out}sink-bin`;

/** The sink runs where the server does not, so far as the machine has two cores. */
export const serverCpu = 0;
const sinkCpu = Math.min(1, availableParallelism() - 1);

/** @throws Error with what to install when there is no C compiler */
export async function buildSink(): Promise<void> {
  const files = readdirSync(sources).filter((name) => name.endsWith(".c") || name.endsWith(".h"));
  const newest = Math.max(...files.map((name) => statSync(sources + name).mtimeMs));
  if ((statSync(binary, { throwIfNoEntry: false })?.mtimeMs ?? 0) > newest) return;
  mkdirSync(out, { recursive: true });
  const units = files.filter((name) => name.endsWith(".c")).map((name) => sources + name);
  await run("cc", ["-O2", "-o", binary, ...units]).catch((error: unknown) => {
    throw new Error(`The sink could not be compiled with cc (Debian: apt-get install gcc libc6-dev): ${String(error)}`);
  });
}

/** Runs it once, to its end. */
export async function runSink(options: SinkOptions): Promise<SinkReport> {
  const { connections, streams, warmup = 1, seconds, patience = 10 } = options;
  const limitMs = Math.ceil(1_000 * (60 + warmup + seconds + 2 * patience) + connections * streams * 10);
  const { stdout } = await run("taskset", ["-c", String(sinkCpu), binary, ...argumentsOf(options)], {
    timeout: limitMs,
  });
  const report: SinkReport = JSON.parse(stdout);
  return report;
}

/** Opens streams and keeps them, idle. */
export async function holdStreams(options: Omit<SinkOptions, "seconds">): Promise<HeldStreams> {
  const child = spawn(
    "taskset",
    ["-c", String(sinkCpu), binary, "hold=1", ...argumentsOf({ ...options, seconds: 0 })],
    { stdio: ["pipe", "pipe", "inherit"] },
  );
  const ended = once(child, "exit");
  const line = await Promise.race([once(createInterface(child.stdout), "line"), ended.then(() => undefined)]);
  if (line === undefined) throw new Error("The streams did not open.");
  const { open }: { readonly open: number } = JSON.parse(String(line[0]));
  return {
    open,
    async [Symbol.asyncDispose]() {
      child.stdin.end();
      await ended;
    },
  };
}

function argumentsOf({ body, ...options }: SinkOptions): string[] {
  const plain = Object.entries(options).map(([name, value]) => `${name}=${value === true ? 1 : value}`);
  return body === undefined ? plain : [...plain, `body=${Buffer.from(body).toString("hex")}`];
}
