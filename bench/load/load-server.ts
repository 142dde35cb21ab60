import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { serverCpu } from "./sink.ts";

/** Servers that can be measured, by the name of their file in `bench/load/servers`. */
export type ServerName = "millrace" | "plain-sse" | "stock-connect" | "grpc-js" | "raw-http2" | "below-nghttp2" | "mux";

/** A server with its publisher, in a process of its own on its own core. */
export interface LoadServer extends AsyncDisposable {
  readonly pid: number;
  readonly port: number;
  readonly control: number;
  /** Bytes of memory in use once garbage was collected and given back to the system. Takes seconds. */
  settledRss(): Promise<number>;
}

/** How a server is started. */
export interface LoadServerOptions {
  readonly burst?: number;
  /** Default: the one that runs the benchmark. */
  readonly node?: string;
  readonly nodeArguments?: readonly string[];
  /** For Millrace: options of its configuration. */
  readonly config?: Readonly<Record<string, unknown>>;
  readonly [option: string]: unknown;
}

export async function startLoadServer(name: ServerName, options: LoadServerOptions = {}): Promise<LoadServer> {
  const { node = process.execPath, nodeArguments = profiling(), ...rest } = options;
  const script = fileURLToPath(new URL(`./servers/${name}.ts`, import.meta.url));
  const child = spawn(
    "taskset",
    ["-c", String(serverCpu), node, "--expose-gc", ...nodeArguments, script, JSON.stringify(rest)],
    { stdio: ["pipe", "pipe", "inherit"] },
  );
  const ended = once(child, "exit");
  const line = await Promise.race([once(createInterface(child.stdout), "line"), ended.then(() => undefined)]);
  if (line === undefined) throw new Error(`The server ${name} did not start.`);
  const { port, control }: { readonly port: number; readonly control: number } = JSON.parse(String(line[0]));
  const pid = child.pid ?? 0;
  return {
    pid,
    port,
    control,
    settledRss: () => settledRss(pid, control),
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      const kill = setTimeout(() => child.kill("SIGKILL"), 3_000);
      await ended;
      clearTimeout(kill);
    },
  };
}

/** With BENCH_CPU_PROF each server leaves a profile in that directory. */
function profiling(): string[] {
  const directory = process.env.BENCH_CPU_PROF;
  return directory === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${directory}`];
}

/**
 * V8 keeps the pages that a collection has emptied and gives them back at one some 8 seconds later: collects every 5 seconds,
 * until three times in a row nothing has come back.
 */
async function settledRss(pid: number, control: number): Promise<number> {
  const socket = connect(control, "127.0.0.1");
  let least = Number.POSITIVE_INFINITY;
  let quiet = 0;
  for (let i = 0; i < 10 && quiet < 3; i += 1) {
    if (i > 0) await pause(5_000);
    // What only finalizers let go of takes more than one.
    for (let j = 0; j < 4; j += 1) {
      socket.write("collect\n");
      await once(socket, "data");
    }
    const bytes = residentBytes(pid);
    quiet = bytes < least - 1e6 ? 0 : quiet + 1;
    least = Math.min(least, bytes);
  }
  socket.destroy();
  return least;
}

function residentBytes(pid: number): number {
  const rss = /^Rss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1];
  return Number(rss) * 1024;
}
