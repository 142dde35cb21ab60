// How events reach streams, on several versions of Node: what docs/decisions/0007-node-version.md stands on.
//   node bench/node-versions.ts /path/to/node22 /path/to/node24 …      (default: the one that runs this)
import { execFileSync } from "node:child_process";
import { parseArgs } from "node:util";
import { type Contender, contest } from "./load/contest.ts";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: "string" }, rounds: { type: "string" } },
});
const seconds = Number(values.seconds ?? 3);
const rounds = Number(values.rounds ?? 3);
const nodes = positionals.length === 0 ? [process.execPath] : positionals;
const ways: readonly Omit<Contender, "options">[] = [
  { name: "stock connect-node", server: "stock-connect", burst: 1 },
  { name: "stock grpc-js", server: "grpc-js", burst: 1 },
  { name: "Http2Stream.write", server: "raw-http2", burst: 1 },
  { name: "Http2Stream.write, 10 events in one", server: "raw-http2", burst: 10 },
  { name: "below nghttp2, fresh buffers", server: "below-nghttp2", burst: 1 },
  { name: "below nghttp2, buffers used again", server: "below-nghttp2", burst: 1 },
  { name: "below nghttp2, fresh buffers, 8 events in one", server: "below-nghttp2", burst: 8 },
  { name: "below nghttp2, buffers used again, 8 in one", server: "below-nghttp2", burst: 8 },
];
const contenders = ways.flatMap((way) =>
  nodes.map((node): Contender => ({ ...way, options: { node, reuse: way.name.includes("used again") } })),
);
const nats: readonly Contender[] = [
  { name: "NATS", server: "nats", burst: 1 },
  { name: "NATS, 8 events in one", server: "nats", burst: 8 },
];
const course = { connections: 10, streams: 100, seconds, warmup: 1.5 };
const standings = await contest([...contenders, ...nats], course, rounds);

process.stdout.write(
  "| how | node | deliveries/s | server CPU per delivery | server's share of its core |\n|---|---|---|---|---|\n",
);
for (const [{ name, options }, standing] of standings) {
  const node =
    options?.node === undefined ? "" : execFileSync(options.node, ["--version"], { encoding: "utf8" }).trim();
  const figures =
    "missing" in standing
      ? `${standing.missing} | | `
      : `${Math.round(standing.perSecond / 1000)} k | ${standing.serverMicros.toFixed(2)} us | ${standing.serverCores.toFixed(2)}`;
  process.stdout.write(`| ${name} | ${node} | ${figures} |\n`);
}
