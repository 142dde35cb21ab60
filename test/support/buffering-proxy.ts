import { once } from "node:events";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";

/** How a proxy holds answers back. It lets go at the end of an answer in any case. */
export interface Buffering {
  /** Until so many bytes have gathered. */
  readonly bytes: number;
  /** Until so long after the first of them came. Default: for ever. */
  readonly ms?: number;
  /** As nginx does: not when the answer says `X-Accel-Buffering: no`. */
  readonly heeds: boolean;
}

/** A proxy that buffers, as many between browsers and servers do. */
export interface BufferingProxy extends AsyncDisposable {
  readonly url: string;
  /** What it holds back at the moment, of all answers. */
  readonly held: () => string;
}

export async function startBufferingProxy(target: string, buffering: Buffering): Promise<BufferingProxy> {
  const held = new Map<object, Buffer[]>();
  const server = createServer((incoming, outgoing) => {
    const upstream = request(new URL(incoming.url ?? "/", target), {
      method: incoming.method,
      headers: incoming.headers,
    });
    upstream.on("error", () => outgoing.destroy());
    outgoing.on("close", () => upstream.destroy());
    incoming.pipe(upstream);
    upstream.on("response", (response) => {
      const passes = buffering.heeds && response.headers["x-accel-buffering"] === "no";
      const chunks: Buffer[] = [];
      let timer: NodeJS.Timeout | undefined;
      held.set(response, chunks);
      const letGo = () => {
        clearTimeout(timer);
        timer = undefined;
        if (!outgoing.headersSent) outgoing.writeHead(response.statusCode ?? 502, response.headers);
        outgoing.write(Buffer.concat(chunks.splice(0)));
      };
      response.on("data", (chunk: Buffer) => {
        chunks.push(chunk);
        if (passes || chunks.reduce((sum, { length }) => sum + length, 0) >= buffering.bytes) letGo();
        else if (buffering.ms !== undefined) timer ??= setTimeout(letGo, buffering.ms);
      });
      response.on("error", () => outgoing.destroy());
      response.on("end", () => {
        letGo();
        outgoing.end();
      });
      response.on("close", () => {
        clearTimeout(timer);
        held.delete(response);
      });
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    held: () => [...held.values()].map((chunks) => Buffer.concat(chunks).toString()).join(""),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
