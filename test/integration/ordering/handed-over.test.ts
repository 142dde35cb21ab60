import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { expect, test } from "vitest";
import { createPool } from "../../../src/postgres/database.ts";
import { withLease } from "../../../src/postgres/lease.ts";
import { never } from "./stage.ts";

const message = (type: string, body: Buffer) => {
  const head = Buffer.alloc(5);
  head.write(type, 0, "latin1");
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
};
const authenticated = message("R", Buffer.alloc(4));
const ready = message("Z", Buffer.from("I"));
const terminated = message(
  "E",
  Buffer.from("SFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"),
);

test("G1 a session that is ended in the packet that opens it fails its caller, and never the process", async () => {
  const opened: Socket[] = [];
  const server = createServer((socket) => {
    opened.push(socket);
    // What Postgres writes to a session that is terminated between two packets arrives as one.
    socket.once("data", () => socket.end(Buffer.concat([authenticated, ready, terminated])));
    socket.on("error", () => undefined);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const uncaught: unknown[] = [];
  const note = (error: unknown) => uncaught.push(error);
  process.prependListener("uncaughtException", note);
  const pool = createPool({ url: `postgres://nobody@127.0.0.1:${port}/nothing?sslmode=disable`, max: 1, idleMs: 0 });
  try {
    await expect(withLease(pool, never, (lease) => lease.rows("select 1"))).rejects.toThrow();
    expect(opened.length).toBe(1);
    expect(uncaught).toEqual([]);
  } finally {
    process.off("uncaughtException", note);
    await pool.end();
    server.close();
  }
});
