import { createServer, type Socket } from "node:net";

/** Publishes the next events. `stampNs`: when they were due, by the monotonic clock. */
export type Publish = (count: number, stampNs: bigint) => void;

/**
 * Beside the server that is measured, in its process: publishes as the sink says on a port of its own. `credit N` allows N
 * more, a burst in each turn of the event loop; `rate R` publishes R per second, stamped with the time at which each was due,
 * so that a server that is late is seen to be; `stop` ends it.
 */
export function startPublisher(publish: Publish, burst: number): Promise<number> {
  const server = createServer((socket) => follow(socket, publish, burst));
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : 0);
    });
  });
}

function follow(socket: Socket, publish: Publish, burst: number): void {
  let credit = 0;
  let published = 0;
  let stopped = false;
  let turning = false;
  const turn = () => {
    turning = false;
    if (stopped || credit < burst) return;
    publish(burst, process.hrtime.bigint());
    credit -= burst;
    published += burst;
    takeTurn();
  };
  const takeTurn = () => {
    if (turning || credit < burst) return;
    turning = true;
    setImmediate(turn);
  };
  const run = (perSecond: number) => {
    const begun = process.hrtime.bigint();
    const dueAt = (n: number) => begun + BigInt(Math.round((n * 1e9) / perSecond));
    const step = () => {
      if (stopped) return;
      const now = process.hrtime.bigint();
      let due = dueAt(published + 1);
      for (; due <= now; due = dueAt(published + 1)) {
        publish(1, due);
        published += 1;
      }
      setTimeout(step, Math.max(0, Number(due - process.hrtime.bigint()) / 1e6));
    };
    step();
  };
  const obey = (line: string) => {
    const [word, value] = line.split(" ");
    if (word === "credit") {
      credit += Number(value);
      takeTurn();
    } else if (word === "rate") run(Number(value));
    else if (word === "stop") {
      stopped = true;
      socket.write(`published ${published}\n`);
    } else if (word === "collect") {
      globalThis.gc?.();
      socket.write("collected\n");
    }
  };
  let rest = "";
  socket.setEncoding("latin1");
  socket.on("error", () => {});
  socket.on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) obey(line);
  });
}
