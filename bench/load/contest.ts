import { type LoadServerOptions, type ServerName, startLoadServer } from "./load-server.ts";
import { startNats } from "./nats.ts";
import { buildSink, runSink, type SinkOptions, type SinkReport } from "./sink.ts";

/** One way to bring events to streams. */
export interface Contender {
  /** For people. */
  readonly name: string;
  readonly server: ServerName | "nats";
  /** Published at a time. */
  readonly burst: number;
  readonly options?: LoadServerOptions;
}

/** What all of them face. */
export type Course = Pick<SinkOptions, "connections" | "streams" | "seconds"> & Partial<SinkOptions>;

/** The medians of a contender's rounds. */
export interface Standing {
  readonly perSecond: number;
  readonly serverMicros: number;
  readonly serverCores: number;
  readonly sinkCores: number;
  readonly eventsPerMessage: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Why somebody could not run. */
export type Absent = { readonly missing: string };

/**
 * All contenders, one after another, and that several times over: on a shared machine the next minute is another one.
 *
 * @throws Error when a stream did not have every event in order
 */
export async function contest(
  contenders: readonly Contender[],
  course: Course,
  rounds: number,
): Promise<Map<Contender, Standing | Absent>> {
  await buildSink();
  const reports = new Map<Contender, SinkReport[]>();
  const standings = new Map<Contender, Standing | Absent>();
  for (let round = 0; round < rounds; round += 1) {
    for (const contender of contenders) {
      const report = await runOnce(contender, course);
      if ("missing" in report) standings.set(contender, report);
      else reports.set(contender, [...(reports.get(contender) ?? []), report]);
    }
  }
  for (const [contender, runs] of reports) standings.set(contender, standingOf(runs));
  return standings;
}

async function runOnce(contender: Contender, course: Course): Promise<SinkReport | Absent> {
  const { server, burst } = contender;
  if (server === "nats") {
    const nats = await startNats();
    if ("missing" in nats) return nats;
    await using running = nats;
    return checked(contender, await runSink({ mode: "nats", burst, ...course, port: running.port, pid: running.pid }));
  }
  await using running = await startLoadServer(server, { burst, ...contender.options });
  const { port, pid, control } = running;
  return checked(contender, await runSink({ burst, ...course, port, pid, control }));
}

/** What others lose on a busy machine is told instead of their figures; what Millrace loses is the end. */
function checked({ name, server }: Contender, report: SinkReport): SinkReport | Absent {
  const { exact, delivered, published, streams, disorder, closed } = report;
  if (exact) return report;
  const what = `${delivered} deliveries of ${published} events to ${streams} streams`;
  const missing = `${what}, ${disorder} out of order, ${closed} connections closed`;
  if (server === "millrace") throw new Error(`${name}: ${missing}`);
  return { missing };
}

function standingOf(runs: readonly SinkReport[]): Standing {
  const of = (key: keyof Standing) => medianOf(runs.map((run) => run[key]));
  return {
    perSecond: of("perSecond"),
    serverMicros: of("serverMicros"),
    serverCores: of("serverCores"),
    sinkCores: of("sinkCores"),
    eventsPerMessage: of("eventsPerMessage"),
    p50Ms: of("p50Ms"),
    p99Ms: of("p99Ms"),
  };
}

export function medianOf(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return ((sorted[Math.floor(middle)] ?? Number.NaN) + (sorted[Math.ceil(middle)] ?? Number.NaN)) / 2;
}
