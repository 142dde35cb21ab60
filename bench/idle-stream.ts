// What a stream costs that only waits: resident memory of the server's process for each of ten thousand, after garbage
// was collected, beside what other ways to hold a stream open in Node cost.
import { medianOf } from "./load/contest.ts";
import { type ServerName, startLoadServer } from "./load/load-server.ts";
import { buildSink, holdStreams } from "./load/sink.ts";
import { benchOptions, report } from "./report.ts";

benchOptions(1);
const rounds = 3;
const connections = 10;
const streams = 1_000;
const measured: readonly (readonly [ServerName, string])[] = [
  ["millrace", "Millrace"],
  ["stock-connect", "stock connect-node"],
  ["grpc-js", "stock grpc-js"],
  ["raw-http2", "a bare Http2Stream"],
];
const samples = new Map<ServerName, number[]>();

await buildSink();
for (let round = 0; round < rounds; round += 1) {
  for (const [name] of measured) {
    samples.set(name, [...(samples.get(name) ?? []), await bytesPerStream(name)]);
  }
}
const medians = new Map([...samples].map(([name, bytes]) => [name, medianOf(bytes) / 1_000]));
const stock = { what: "stock connect-node", value: medians.get("stock-connect") ?? Number.NaN };

report(
  "idle-stream",
  measured.map(([name, what]) => {
    const value = medians.get(name) ?? Number.NaN;
    return {
      what,
      value,
      unit: "kB per stream",
      ...(name === "stock-connect" ? {} : { baseline: stock }),
      ...(name === "millrace" ? { target: "<= 10 kB", met: value <= 10 } : {}),
    };
  }),
  `${connections * streams} streams on ${connections} connections, RSS from /proc, medians of ${rounds} rounds in turn`,
);

/** Above what the same server holds after streams have come and gone: its code and buffers are not the streams'. */
async function bytesPerStream(name: ServerName): Promise<number> {
  await using server = await startLoadServer(name, { config: { maxStreams: 20_000 } });
  const target = { port: server.port, pid: server.pid };
  await hold({ ...target, connections, streams: 20 });
  const before = await server.settledRss();
  await using held = await holdStreams({ ...target, connections, streams });
  if (held.open !== connections * streams) throw new Error(`${name}: only ${held.open} streams opened.`);
  return ((await server.settledRss()) - before) / (connections * streams);
}

async function hold(options: Parameters<typeof holdStreams>[0]): Promise<void> {
  await using _held = await holdStreams(options);
}
