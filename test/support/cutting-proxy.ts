import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** A TCP proxy that breaks connections off, as networks do: anywhere, also in the middle of a character. */
export interface CuttingProxy extends AsyncDisposable {
  readonly url: string;
  /** Of every connection so far, what its client sent first. */
  readonly requests: readonly string[];
  readonly cuts: number;
  /** Where new connections go. */
  target: string;
}

/**
 * @param lifeBytes - of the next connection: so many bytes reach the client, and it is cut
 */
export async function startCuttingProxy(target: string, lifeBytes: () => number): Promise<CuttingProxy> {
  const requests: string[] = [];
  const sockets = new Set<Socket>();
  let cuts = 0;
  const server = createServer((client) => {
    const { hostname, port } = new URL(proxy.target);
    const upstream = connect(Number(port), hostname);
    let left = lifeBytes();
    let request = "";
    const end = () => {
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
      socket.on("error", end);
    }
    client.on("data", (chunk: Buffer) => {
      if (request === "") requests.push(chunk.toString("latin1"));
      request += chunk.toString("latin1");
      upstream.write(chunk);
    });
    upstream.on("data", (chunk: Buffer) => {
      const whole = chunk.length < left;
      client.write(whole ? chunk : chunk.subarray(0, left), whole ? undefined : end);
      left -= chunk.length;
      if (!whole) {
        cuts += 1;
        upstream.destroy();
      }
    });
    client.on("close", end);
    upstream.on("end", () => client.end());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const proxy = {
    url: `http://127.0.0.1:${port}`,
    requests,
    get cuts() {
      return cuts;
    },
    target,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
  return proxy;
}
