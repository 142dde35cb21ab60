import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { expect, test } from "vitest";
import { PostgresWakeUp } from "../../../src/postgres/wake-up.ts";
import { never } from "./stage.ts";

/** An authentication that asks for nothing, and `ready for query`. */
const greeting = Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0, 0x5a, 0, 0, 0, 5, 0x49]);

test("a session that opens and then answers nothing is given up: the feed opens without it, and polls", async () => {
  const sockets: Socket[] = [];
  await using server = createServer((socket) => {
    sockets.push(socket);
    socket.once("data", () => socket.write(greeting));
    socket.on("error", () => undefined);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const wakeUp = new PostgresWakeUp({ directUrl: `postgres://nobody@127.0.0.1:${port}/nothing?sslmode=disable` });
  try {
    await wakeUp.start(never);
    expect(wakeUp.listening).toBe(false);
    expect(sockets.length).toBe(1);
  } finally {
    await wakeUp.stop();
    for (const socket of sockets) socket.destroy();
  }
});
