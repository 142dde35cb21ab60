// What a stream costs that only waits: resident memory of the server's process for each of ten thousand, after garbage
// was collected, beside what other ways to hold a stream open in Node cost.
import { type ServerName, startLoadServer } from "./load/load-server.ts";
import { buildSink, holdStreams } from "./load/sink.ts";
import { benchOptions, report } from "./report.ts";

benchOptions(1);
const connections = 10;
const streams = 1_000;
interface Held {
  readonly name: string;
  readonly server: ServerName;
  readonly config?: Readonly<Record<string, unknown>>;
}
const stock: Held = { name: "stock connect-node", server: "stock-connect" };
const millrace: Held = { name: "Millrace", server: "millrace", config: { delivery: "mux" } };
const measured: readonly Held[] = [
  millrace,
  { name: "Millrace without the mux", server: "millrace", config: { delivery: "hand-off" } },
  stock,
  { name: "stock grpc-js", server: "grpc-js" },
  { name: "a bare Http2Stream", server: "raw-http2" },
];
const kilobytes = new Map<Held, number>();

await buildSink();
// One round: it takes minutes for V8 to give memory back, and the figures hardly differ from one to the next.
for (const held of measured) kilobytes.set(held, (await bytesPerStream(held)) / 1_000);
const kilobytesOf = (held: Held) => kilobytes.get(held) ?? Number.NaN;

report(
  "idle-stream",
  measured.map((held) => ({
    what: held.name,
    value: kilobytesOf(held),
    unit: "kB per stream",
    ...(held === stock ? {} : { baseline: { what: stock.name, value: kilobytesOf(stock) } }),
    ...(held === millrace ? { target: "<= 10 kB", met: kilobytesOf(held) <= 10 } : {}),
  })),
  `${connections * streams} streams on ${connections} connections, RSS from /proc once it has settled`,
);

/** Above what the same server holds after streams have come and gone: its code and buffers are not the streams'. */
async function bytesPerStream({ name, server: kind, config }: Held): Promise<number> {
  await using server = await startLoadServer(kind, { config: { maxStreams: 20_000, ...config } });
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
