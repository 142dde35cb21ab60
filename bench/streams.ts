// Throughput and latency against the number of streams, drawn into docs/fan-out.svg.
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type Contender, contest } from "./load/contest.ts";
import { drawPanels, type Series } from "./plot.ts";
import { benchOptions, type Measurement, report } from "./report.ts";

const { seconds } = benchOptions(1.5);
const rounds = 3;
const counts = [1, 10, 100, 1_000, 10_000];
/** Events a second while latency is measured. */
const rate = 20;
const contenders: readonly Contender[] = [
  { name: "Millrace", server: "millrace", burst: 1, options: { config: { delivery: "mux" } } },
  { name: "NATS", server: "nats", burst: 1 },
  { name: "stock grpc-js", server: "grpc-js", burst: 1 },
  { name: "stock connect-node", server: "stock-connect", burst: 1 },
];

interface Sample {
  readonly contender: Contender;
  readonly streams: number;
  readonly perSecond: number;
  /** None where it would have to deliver more than it can. */
  readonly p99Ms: number | undefined;
}

const samples: Sample[] = [];
for (const streams of counts) samples.push(...(await measure(streams)));
const shown = contenders.filter((contender) => samples.some((sample) => sample.contender === contender));

writeFileSync(
  fileURLToPath(new URL("../docs/fan-out.svg", import.meta.url)),
  drawPanels("Throughput and latency against the number of streams", [
    {
      title: "Deliveries per second, one server core",
      xLabel: "streams",
      series: seriesOf((sample) => sample.perSecond),
      format: (value) => (value >= 1e6 ? `${value / 1e6} M` : value >= 1e3 ? `${value / 1e3} k` : String(value)),
    },
    {
      title: `Due to received, p99, at ${rate} events/s`,
      xLabel: "streams",
      series: seriesOf((sample) => sample.p99Ms),
      format: (value) => `${value} ms`,
    },
  ]),
);
report(
  "streams",
  samples.flatMap(linesOf),
  `events of 250 B, up to 10 connections, medians of ${rounds} rounds in turn`,
);

async function measure(streams: number): Promise<Sample[]> {
  const connections = Math.min(10, streams);
  const course = { connections, streams: streams / connections, warmup: 0.7, patience: 20 };
  const full = await contest(contenders, { ...course, seconds }, rounds);
  const able = contenders.filter((contender) => perSecondOf(full.get(contender)) > 1.5 * rate * streams);
  const paced = await contest(able, { ...course, seconds: 2, rate, latency: true }, rounds);
  return contenders.flatMap((contender) => {
    const perSecond = perSecondOf(full.get(contender));
    const standing = paced.get(contender);
    const p99Ms = standing === undefined || "missing" in standing ? undefined : standing.p99Ms;
    return perSecond > 0 ? [{ contender, streams, perSecond, p99Ms }] : [];
  });
}

function perSecondOf(standing: { readonly perSecond: number } | { readonly missing: string } | undefined): number {
  return standing === undefined || "missing" in standing ? 0 : standing.perSecond;
}

function seriesOf(value: (sample: Sample) => number | undefined): Series[] {
  return shown.map((contender) => ({
    name: contender.name,
    points: samples.flatMap((sample) => {
      const y = value(sample);
      return sample.contender === contender && y !== undefined && y > 0 ? [{ x: sample.streams, y }] : [];
    }),
  }));
}

function linesOf({ contender, streams, perSecond, p99Ms }: Sample): Measurement[] {
  const what = `${contender.name}, ${streams} streams`;
  const latency = p99Ms === undefined ? [] : [{ what: `${what}: p99 at ${rate} events/s`, value: p99Ms, unit: "ms" }];
  return [{ what, value: perSecond, unit: "deliveries/s" }, ...latency];
}
