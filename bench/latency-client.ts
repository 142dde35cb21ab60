// One client in a thread of its own, so that neither the writer nor the other client delays it: notes when each message
// arrived and posts the times by id when asked.
import { parentPort, workerData } from "node:worker_threads";
import pg from "pg";
import { subscribe } from "./wire-client.ts";
import { readEvents, readFrame } from "./wire-reader.ts";

const { mode, port, url }: { mode: "millrace" | "notify"; port: number; url: string } = workerData;
const arrivals: [number, number][] = [];
const note = (id: number) => arrivals.push([id, performance.timeOrigin + performance.now()]);

if (mode === "millrace") {
  const stream = subscribe(port, { start: { case: "now", value: {} } }, (message) => {
    const frame = readFrame(message);
    if (frame.kind === 1) parentPort?.postMessage("ready");
    if (frame.kind !== 2) return;
    readEvents(frame.body, ({ after }) => {
      if (after !== undefined) note(JSON.parse(Buffer.from(after).toString()).id);
    });
  });
  parentPort?.on("message", () => {
    parentPort?.postMessage(arrivals);
    stream.cancel();
    parentPort?.close();
  });
} else {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  client.on("notification", ({ payload }) => note(Number(payload)));
  await client.query("listen bare");
  parentPort?.postMessage("ready");
  parentPort?.on("message", () => {
    parentPort?.postMessage(arrivals);
    void client.end();
    parentPort?.close();
  });
}
