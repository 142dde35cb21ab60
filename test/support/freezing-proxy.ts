import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** First bytes of what clients send when they ask something: Query and Parse. */
const statements: ReadonlySet<unknown> = new Set([0x51, 0x50]);

/** One connection through the proxy. */
interface Passing {
  readonly client: Socket;
  readonly server: Socket;
  /** As the client calls itself; empty until it has said so. */
  application: string;
  /** From the server, so far. */
  bytes: number;
  frozen: boolean;
}

/** Freezes connections of this name, those to come included. */
interface Frost {
  readonly name: string;
  /** What still comes from the server before it freezes; `undefined`: its first statement is what is swallowed. */
  readonly afterBytes: number | undefined;
  left: number;
}

/**
 * Stands before a Postgres, and can have single connections go dead without a word, as a network does that swallows: what
 * either side sends on them is lost, and neither hears that the other has closed. Connections are told apart by the beginning
 * of their application_name.
 */
export class FreezingProxy implements AsyncDisposable {
  readonly url: string;
  readonly #listener: Server;
  readonly #passing = new Set<Passing>();
  readonly #frosts: Frost[] = [];
  /** Connections that were frozen so far. */
  frozen = 0;
  #translation: { readonly name: string; readonly from: string; readonly to: string } | undefined;

  private constructor(listener: Server, url: string) {
    this.#listener = listener;
    this.url = url;
  }

  /** Listens on a port of its own; `url` is where Postgres is. */
  static async before(url: string): Promise<FreezingProxy> {
    const target = new URL(url);
    const listener = createServer().listen(0, "127.0.0.1");
    await once(listener, "listening");
    const own = new URL(url);
    own.host = `127.0.0.1:${(listener.address() as AddressInfo).port}`;
    const proxy = new FreezingProxy(listener, own.href);
    listener.on("connection", (client) => proxy.#pass(client, target));
    return proxy;
  }

  /** Freezes the connections that are open now; how many they are. */
  freeze(name: string): number {
    const open = [...this.#passing].filter((one) => !one.frozen && one.application.startsWith(name));
    for (const one of open) this.#freeze(one);
    return open.length;
  }

  /** Freezes so many connections of those to come, each once so many bytes have come from the server. */
  freezeNext(name: string, afterBytes: number, count: number): void {
    this.#frosts.push({ name, afterBytes, left: count });
  }

  /** Freezes all connections to come, each at its first statement: they open in order, and answer nothing. */
  freezeAllNext(name: string): void {
    this.#frosts.push({ name, afterBytes: undefined, left: Number.POSITIVE_INFINITY });
  }

  /** Says another thing to the server than the first client of this name that says `from`; as many bytes, once. */
  translateOnce(name: string, from: string, to: string): void {
    this.#translation = { name, from, to };
  }

  /** New connections pass from now on. Those that are frozen stay so. */
  thaw(): void {
    this.#frosts.length = 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { client, server } of this.#passing) {
      client.destroy();
      server.destroy();
    }
    this.#listener.close();
    await once(this.#listener, "close");
  }

  #pass(client: Socket, { hostname, port }: URL): void {
    const server = connect(Number(port), hostname);
    const one: Passing = { client, server, application: "", bytes: 0, frozen: false };
    this.#passing.add(one);
    client.on("data", (chunk) => {
      if (one.application === "") one.application = applicationOf(Buffer.from(chunk));
      const frost = this.#frostOf(one);
      if (frost !== undefined && frost.afterBytes === undefined && statements.has(chunk[0])) this.#freeze(one);
      if (!one.frozen) server.write(this.#translated(one, Buffer.from(chunk)));
    });
    server.on("data", (chunk) => {
      if (one.frozen) return;
      one.bytes += chunk.length;
      const frost = this.#frostOf(one);
      if (frost?.afterBytes !== undefined && one.bytes > frost.afterBytes) {
        frost.left -= 1;
        this.#freeze(one);
      } else client.write(chunk);
    });
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      from.on("error", () => undefined);
      from.on("close", () => {
        if (!one.frozen) to.destroy();
      });
    }
  }

  #translated({ application }: Passing, chunk: Buffer): Buffer {
    const { name = "", from = "", to = "" } = this.#translation ?? {};
    const at = this.#translation !== undefined && application.startsWith(name) ? chunk.indexOf(from) : -1;
    if (at !== -1) {
      chunk.write(to, at);
      this.#translation = undefined;
    }
    return chunk;
  }

  #frostOf({ application }: Passing): Frost | undefined {
    return this.#frosts.find(({ name, left }) => left > 0 && application.startsWith(name));
  }

  #freeze(one: Passing): void {
    one.frozen = true;
    this.frozen += 1;
  }
}

/** Out of a startup packet: a length, a version, then names and values, each with a zero behind it. */
function applicationOf(chunk: Buffer): string {
  const words = chunk.subarray(8).toString("utf8").split("\0");
  return words[words.indexOf("application_name") + 1] ?? "";
}
