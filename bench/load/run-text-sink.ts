import { execFile } from "node:child_process";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);

/** What the sink for text is asked to do. */
export interface TextSinkOptions {
  readonly port: number;
  /** Where the publisher listens. */
  readonly control: number;
  /** Whose CPU time is counted. */
  readonly pid: number;
  readonly path: string;
  /** What stands in each event once. */
  readonly mark: string;
  /** Each on a connection of its own. */
  readonly streams: number;
  readonly seconds: number;
  /** Events that may be on their way to the streams, on average. */
  readonly outstanding: number;
}

/** What it counted while it measured; `published`, `delivered` and `exact` are of the whole run. */
export interface TextSinkReport {
  readonly exact: boolean;
  readonly published: number;
  readonly delivered: number;
  readonly perSecond: number;
  /** The server's CPU time for one delivery. */
  readonly serverMicros: number;
  readonly serverCores: number;
  readonly sinkCores: number;
}

const script = fileURLToPath(new URL("./text-sink.ts", import.meta.url));
const sinkCpu = Math.min(1, availableParallelism() - 1);

/** Runs it once, to its end, on the core on which the server is not. */
export async function runTextSink(options: TextSinkOptions): Promise<TextSinkReport> {
  const { stdout } = await run("taskset", ["-c", String(sinkCpu), process.execPath, script, JSON.stringify(options)], {
    timeout: (options.seconds + 60) * 1_000,
  });
  const report: TextSinkReport = JSON.parse(stdout);
  return report;
}
