// One event to a thousand streams, as fast as they take it: Millrace beside what one would use instead, each server on one
// core, with the same streams, connections, bytes and events outstanding, and every event counted in every stream.
import { type Contender, contest, type Standing } from "./load/contest.ts";
import { benchOptions, type Measurement, report } from "./report.ts";

const { seconds } = benchOptions(3);
const rounds = 3;
const mux = { config: { delivery: "mux" } };
const handOff = { config: { delivery: "hand-off" } };
const millrace: Contender = { name: "Millrace", server: "millrace", burst: 1, options: mux };
const millraceBursts: Contender = { name: "Millrace, bursts of 8", server: "millrace", burst: 8, options: mux };
const handed: Contender = { name: "Millrace without the mux", server: "millrace", burst: 1, options: handOff };
const handedBursts: Contender = { ...handed, name: "Millrace without the mux, bursts of 8", burst: 8 };
const stock: Contender = { name: "stock connect-node", server: "stock-connect", burst: 1 };
const grpc: Contender = { name: "stock grpc-js", server: "grpc-js", burst: 1 };
const raw: Contender = { name: "Http2Stream.write of a shared buffer", server: "raw-http2", burst: 1 };
const rawBursts: Contender = { name: "the same, 8 events a write", server: "raw-http2", burst: 8 };
const nats: Contender = { name: "NATS", server: "nats", burst: 1 };
const natsBursts: Contender = { name: "NATS, bursts of 8", server: "nats", burst: 8 };

const standings = await contest(
  [millrace, millraceBursts, handed, handedBursts, stock, grpc, raw, rawBursts, nats, natsBursts],
  { connections: 10, streams: 100, seconds },
  rounds,
);

report(
  "fan-out",
  [
    line(millrace, nats, 1_000_000),
    line(millraceBursts, natsBursts, 5_000_000),
    ...timesStock(),
    ...[handed, handedBursts, raw, rawBursts, grpc, nats, natsBursts].map((contender) => line(contender, stock)),
    ...[millrace, millraceBursts].map((contender) => batching(contender)),
  ],
  `1,000 streams on 10 connections, 250 B, 64 events outstanding, all exact, medians of ${rounds} rounds in turn; ` +
    "per core = by the server's own CPU time",
);

/** What one core would bring, by CPU time: the same as was seen where the server had the whole core. */
function perCore(contender: Contender): number | undefined {
  const standing = standingOf(contender);
  return standing === undefined ? undefined : 1e6 / standing.serverMicros;
}

function standingOf(contender: Contender): Standing | undefined {
  const standing = standings.get(contender);
  return standing === undefined || "missing" in standing ? undefined : standing;
}

function line(contender: Contender, beside: Contender, target?: number): Measurement {
  const value = perCore(contender);
  const standing = standings.get(contender);
  if (value === undefined || standing === undefined || "missing" in standing) {
    const reason = standing !== undefined && "missing" in standing ? standing.missing : "it did not run";
    return { what: `${contender.name}: ${reason}`, value: Number.NaN, unit: "" };
  }
  const seen = `${Math.round(standing.perSecond / 1_000)} k/s seen on ${standing.serverCores.toFixed(2)} of the core`;
  const baseline = perCore(beside);
  return {
    what: `${contender.name} (${standing.serverMicros.toFixed(2)} us each; ${seen})`,
    value,
    unit: "deliveries/s per core",
    ...(baseline === undefined ? {} : { baseline: { what: beside.name, value: baseline } }),
    ...(target === undefined
      ? {}
      : { target: `>= ${target / 1e6} M/s, >= NATS`, met: value >= target && value >= (baseline ?? 0) }),
  };
}

function timesStock(): Measurement[] {
  const value = perCore(millrace);
  const baseline = perCore(stock);
  if (value === undefined || baseline === undefined) return [];
  const target = ">= 100 times stock";
  const what = "Millrace over stock connect-node";
  return [
    {
      what,
      value,
      unit: "deliveries/s per core",
      baseline: { what: stock.name, value: baseline },
      target,
      met: value >= 100 * baseline,
    },
  ];
}

function batching(contender: Contender): Measurement {
  const value = standingOf(contender)?.eventsPerMessage ?? Number.NaN;
  return { what: `${contender.name}: events per message`, value, unit: "" };
}
