import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/**
 * A way to the database on which a copy stands still: of each connection only so many bytes come through from the server
 * until the gate opens. What asks and answers in few words does not notice. A client that goes takes its session along.
 */
export interface Gate extends AsyncDisposable {
  readonly url: string;
  /** Some copy has come to the gate. */
  readonly reached: Promise<void>;
  open(): void;
}

export async function createGate(databaseUrl: string, bytes: number): Promise<Gate> {
  const address = new URL(databaseUrl);
  const { hostname, port } = address;
  const sockets = new Set<Socket>();
  const held = new Set<Socket>();
  const { promise: reached, resolve: reach } = Promise.withResolvers<void>();
  let isOpen = false;
  const gate = createServer((client) => {
    const server = connect(Number(port), hostname);
    let passed = 0;
    client.on("data", (chunk) => server.write(chunk));
    server.on("data", (chunk) => {
      client.write(chunk);
      passed += chunk.length;
      if (isOpen || passed < bytes) return;
      server.pause();
      held.add(server);
      reach();
    });
    for (const [one, other] of [
      [client, server],
      [server, client],
    ] as const) {
      sockets.add(one);
      one.on("error", () => undefined);
      one.on("close", () => {
        sockets.delete(one);
        other.destroy();
      });
    }
  });
  gate.listen(0, "127.0.0.1");
  await once(gate, "listening");
  address.port = String((gate.address() as AddressInfo).port);
  return {
    url: address.href,
    reached,
    open: () => {
      isOpen = true;
      for (const server of held) server.resume();
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      gate.close();
      await once(gate, "close");
    },
  };
}
