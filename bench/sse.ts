// One event to a thousand streams of server-sent events, each on a connection of its own as browsers have them, beside a loop
// of response.write, and beside gRPC, in one run.
import { type Contender, contest, medianOf } from "./load/contest.ts";
import { type ServerName, startLoadServer } from "./load/load-server.ts";
import { runTextSink, type TextSinkReport } from "./load/run-text-sink.ts";
import { benchOptions, type Measurement, report } from "./report.ts";

const { seconds } = benchOptions(3);
const rounds = 3;
const streams = 1_000;

interface TextContender {
  readonly name: string;
  readonly server: ServerName;
  readonly path: string;
  readonly mark: string;
  readonly burst: number;
}

const query = "/v1/events?topic=bench";
const sse: TextContender = { name: "SSE", server: "millrace", path: query, mark: "event: change", burst: 1 };
const sseBursts: TextContender = { ...sse, name: "SSE, bursts of 8", burst: 8 };
const lines: TextContender = { ...sse, name: "ndjson", path: `${query}&format=ndjson`, mark: '"operation":' };
const plain: TextContender = { ...sse, name: "a loop of response.write", server: "plain-sse" };
const plainBursts: TextContender = { ...plain, name: "a loop of response.write, bursts of 8", burst: 8 };
const contenders = [sse, plain, sseBursts, plainBursts, lines];

const reports = new Map<TextContender, TextSinkReport[]>();
for (let round = 0; round < rounds; round += 1) {
  for (const contender of contenders) {
    reports.set(contender, [...(reports.get(contender) ?? []), await runOnce(contender)]);
  }
}

const grpc: Contender = { name: "gRPC, 1,000 connections", server: "millrace", burst: 1 };
const standings = await contest([grpc], { connections: streams, streams: 1, seconds }, rounds);
const standing = standings.get(grpc);
const grpcMicros = standing === undefined || "missing" in standing ? Number.NaN : standing.serverMicros;

report(
  "sse",
  [
    line(sse, plain),
    line(sseBursts, plainBursts),
    line(lines, plain),
    { what: `SSE beside ${grpc.name}`, ...perCore(sse), baseline: { what: grpc.name, value: 1e6 / grpcMicros } },
  ],
  `${streams} connections with a stream each, HTTP/1.1 without TLS, 250 B, 64 events outstanding, all exact, medians of ${rounds} rounds in turn; by the server's own CPU time`,
);

async function runOnce({ name, server, path, mark, burst }: TextContender): Promise<TextSinkReport> {
  await using running = await startLoadServer(server, { burst });
  const { port, control, pid } = running;
  const seen = await runTextSink({ port, control, pid, path, mark, streams, seconds, outstanding: 64 });
  if (!seen.exact) throw new Error(`${name}: ${seen.delivered} deliveries of ${seen.published} events`);
  return seen;
}

function of(contender: TextContender, key: "serverMicros" | "perSecond" | "serverCores" | "sinkCores"): number {
  return medianOf((reports.get(contender) ?? []).map((seen) => seen[key]));
}

function perCore(contender: TextContender) {
  return { value: 1e6 / of(contender, "serverMicros"), unit: "deliveries/s per core" };
}

function line(contender: TextContender, beside: TextContender): Measurement {
  const seen = `${Math.round(of(contender, "perSecond") / 1_000)} k/s seen on ${of(contender, "serverCores").toFixed(2)} of the core`;
  const what = `${contender.name} (${of(contender, "serverMicros").toFixed(2)} us each; ${seen})`;
  return { what, ...perCore(contender), baseline: { what: beside.name, value: perCore(beside).value } };
}
