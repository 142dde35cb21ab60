// What the mux reaches beside Node's own HTTP/2, in one run, by a sink in another process that ends the run unless it counts
// every event of every stream, in order.
//   node bench/mux.ts [--seconds 3] [--rounds 3]
import { parseArgs } from "node:util";
import { type Contender, contest } from "./load/contest.ts";

const { values } = parseArgs({ options: { seconds: { type: "string" }, rounds: { type: "string" } } });
const contenders: readonly Contender[] = [
  { name: "Http2Stream.write", server: "raw-http2", burst: 1 },
  { name: "mux", server: "mux", burst: 1 },
  { name: "mux, 8 messages a turn", server: "mux", burst: 8, options: { separate: true } },
  { name: "Http2Stream.write, 10 events a message", server: "raw-http2", burst: 10 },
  { name: "mux, 10 events a message", server: "mux", burst: 10 },
  {
    name: "nothing but frames: no flow control, no pacing",
    server: "below-nghttp2",
    burst: 1,
    options: { reuse: true },
  },
];
const course = { connections: 10, streams: 100, seconds: Number(values.seconds ?? 3), warmup: 1.5 };
const standings = await contest(contenders, course, Number(values.rounds ?? 3));

process.stdout.write(
  "| how | deliveries/s | server CPU per delivery | server's share of its core |\n|---|---|---|---|\n",
);
for (const [{ name }, standing] of standings) {
  const figures =
    "missing" in standing
      ? `${standing.missing} | |`
      : `${Math.round(standing.perSecond / 1000)} k | ${standing.serverMicros.toFixed(2)} us | ${standing.serverCores.toFixed(2)}`;
  process.stdout.write(`| ${name} | ${figures} |\n`);
}
