// Reads streams of server-sent events, or of lines, over a connection each, and counts. Run by `runTextSink` on a core of its
// own: node text-sink.ts '{"port":…}'
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import type { TextSinkOptions, TextSinkReport } from "./run-text-sink.ts";

const options: TextSinkOptions = JSON.parse(process.argv[2] ?? "{}");
const { port, control, pid, path, mark, streams, seconds, outstanding } = options;

/** One connection, and the events that came over it. */
class CountedStream {
  count = 0;
  readonly socket: Socket;
  readonly #mark = Buffer.from(mark);
  #tail = Buffer.alloc(0);

  constructor(onEvents: () => void) {
    this.socket = connect(port, "127.0.0.1");
    this.socket.on("data", (chunk: Buffer) => {
      this.#take(chunk);
      onEvents();
    });
  }

  async open(): Promise<void> {
    this.socket.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`);
    let head = "";
    while (!head.includes("opened")) head += String((await once(this.socket, "data"))[0]);
  }

  /** A mark may lie across two chunks. */
  #take(chunk: Buffer): void {
    const keep = this.#mark.length - 1;
    if (this.#tail.length > 0) this.#count(Buffer.concat([this.#tail, chunk.subarray(0, keep)]));
    this.#count(chunk);
    this.#tail = Buffer.from(
      chunk.length < keep ? Buffer.concat([this.#tail, chunk]).subarray(-keep) : chunk.subarray(-keep),
    );
  }

  #count(bytes: Buffer): void {
    for (let at = bytes.indexOf(this.#mark); at >= 0; at = bytes.indexOf(this.#mark, at + this.#mark.length)) {
      this.count += 1;
      total += 1;
    }
  }
}

let total = 0;
let credited = 0;
/** Once every stream is open: whoever opens later has missed what came before. */
let begun = false;
const controlSocket = connect(control, "127.0.0.1");
const give = (): void => {
  const due = Math.floor(total / streams) + outstanding - credited;
  if (!begun || due < Math.max(1, outstanding / 8)) return;
  credited += due;
  controlSocket.write(`credit ${due}\n`);
};

const all: CountedStream[] = [];
for (let at = 0; at < streams; at += 1) {
  const stream = new CountedStream(give);
  all.push(stream);
  await stream.open();
}
begun = true;
give();
await pause(1_000);
const before = { total, cpu: cpuOf(pid), own: process.cpuUsage(), at: performance.now() };
await pause(seconds * 1_000);
const elapsed = (performance.now() - before.at) / 1_000;
const delivered = total - before.total;
const server = cpuOf(pid) - before.cpu;
const own = process.cpuUsage(before.own);
controlSocket.write("stop\n");
const published = Number(/\d+/.exec(String((await once(controlSocket, "data"))[0]))?.[0]);
for (let tries = 0; tries < 200 && all.some(({ count }) => count < published); tries += 1) await pause(50);

const report: TextSinkReport = {
  exact: all.every(({ count }) => count === published),
  published,
  delivered: all.reduce((sum, { count }) => sum + count, 0),
  perSecond: delivered / elapsed,
  serverMicros: (server / delivered) * 1e6,
  serverCores: server / elapsed,
  sinkCores: (own.user + own.system) / 1e6 / elapsed,
};
process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit());

/** Seconds of processor time of a process, in hundredths. */
function cpuOf(process: number): number {
  const fields = readFileSync(`/proc/${process}/stat`, "latin1").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
