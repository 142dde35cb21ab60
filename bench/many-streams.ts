// Ten thousand streams, a hundred events a second: a million deliveries a second from one core, and how late they are.
// An event's time runs from when it was due, so that a publisher that cannot keep up does not hide it.
import { type Contender, contest } from "./load/contest.ts";
import { benchOptions, type Measurement, report } from "./report.ts";

const { seconds } = benchOptions(6);
const rounds = 3;
const rate = 100;
const contenders: readonly Contender[] = [
  { name: "Millrace", server: "millrace", burst: 1, options: { config: { delivery: "mux" } } },
  { name: "NATS", server: "nats", burst: 1 },
];
const course = { connections: 100, streams: 100, seconds, rate, latency: true, warmup: 2, patience: 20 };
const standings = await contest(contenders, course, rounds);

report(
  "many-streams",
  contenders.flatMap((contender): Measurement[] => {
    const standing = standings.get(contender);
    const { name } = contender;
    if (standing === undefined || "missing" in standing) {
      return [{ what: `${name}: ${standing?.missing ?? "did not run"}`, value: Number.NaN, unit: "" }];
    }
    const own = contender.server === "millrace";
    return [
      {
        what: `${name}: deliveries`,
        value: standing.perSecond,
        unit: "/s",
        ...(own ? { target: "1 M/s on one core", met: standing.perSecond >= 990_000 } : {}),
      },
      { what: `${name}: of the core`, value: standing.serverCores * 100, unit: "%" },
      { what: `${name}: due to received, p50`, value: standing.p50Ms, unit: "ms" },
      {
        what: `${name}: due to received, p99`,
        value: standing.p99Ms,
        unit: "ms",
        ...(own ? { target: "<= 50 ms", met: standing.p99Ms <= 50 } : {}),
      },
    ];
  }),
  `10,000 streams on 100 connections, 100 events/s of 250 B, all exact, medians of ${rounds} rounds in turn`,
);
