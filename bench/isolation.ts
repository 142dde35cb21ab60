// What one stream that nobody reads costs the others, with HTTP/2's default windows of 65,535 bytes: on the connection that
// they share, where its bytes could take the connection's whole credit, and beside connections of their own.
import { medianOf } from "./load/contest.ts";
import { startLoadServer } from "./load/load-server.ts";
import { buildSink, runSink, type SinkOptions, type SinkReport } from "./load/sink.ts";
import { benchOptions, type Measurement, report } from "./report.ts";

const { seconds } = benchOptions(4);
const rounds = 5;
const window = 65_535;
const rate = 500;

type Course = Pick<SinkOptions, "connections" | "streams"> & Partial<SinkOptions>;
const shared: Course = { connections: 1, streams: 100 };
const coupled: Course = { ...shared, shareCredit: true };
const own: Course = { connections: 100, streams: 1 };

await buildSink();
report(
  "isolation",
  [
    ...(await compare("one connection, whose credit comes back as it receives", shared, 1.5)),
    ...(await compare("one connection, whose credit comes back as its streams are read", coupled, 1.5)),
    ...(await compare("connections of their own", own, 1.1)),
  ],
  `99 streams with 1 stuck beside 99 without, ${rate} events/s of 250 B, default windows, medians of ${rounds} rounds in turn`,
);

async function compare(where: string, course: Course, most: number): Promise<Measurement[]> {
  const without: number[] = [];
  const beside: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    without.push((await run(course, 0)).p99Ms);
    const stuck = await run(course, 1);
    // Streams that stand still are late without end.
    beside.push(stuck.exact ? stuck.p99Ms : Number.POSITIVE_INFINITY);
  }
  const value = medianOf(beside);
  const baseline = { what: "none stuck", value: medianOf(without) };
  const met = value <= most * baseline.value;
  return [{ what: `p99 with 1 stuck: ${where}`, value, unit: "ms", baseline, target: `<= ${most} times`, met }];
}

async function run(course: Course, stuck: number): Promise<SinkReport> {
  await using server = await startLoadServer("millrace", { config: { delivery: "mux" } });
  const { port, control, pid } = server;
  const common = { port, control, pid, seconds, rate, window, latency: true, patience: 3 };
  // Long enough for a stream that nobody reads to use up its window.
  return await runSink({ ...common, ...course, stuck, warmup: 2 });
}
