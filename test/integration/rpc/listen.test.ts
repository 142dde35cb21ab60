import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { connect as connectHttp2 } from "node:http2";
import { Agent, get as getHttp1, request as requestHttps } from "node:https";
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { fileURLToPath } from "node:url";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { describe, expect, it } from "vitest";
import { FeedService } from "../../../gen/millrace/v1/feed_service_pb.js";
import { FeedError } from "../../../src/core/errors.ts";
import { type ListenOptions, listen } from "../../../src/server/listen.ts";
import { createScriptedFeed } from "./scripted-feed.ts";
import { serve } from "./served.ts";

const certificate = new URL("./certificates/localhost.crt", import.meta.url);
const key = new URL("./certificates/localhost.key", import.meta.url);

/** Says which HTTP version carried the request. */
function versionEcho(options: Partial<ListenOptions> = {}) {
  return listen({
    host: "127.0.0.1",
    port: 0,
    tls: undefined,
    maxConcurrentStreams: 100,
    handler: (request, response) => response.end(`HTTP/${request.httpVersion} ${request.url}`),
    ...options,
  });
}

/** Everything that the peer says until it closes. */
async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  await once(socket, "close");
  return Buffer.concat(chunks);
}

async function http2Get(url: string, path: string, ca?: Buffer): Promise<string> {
  const session = connectHttp2(url, ca === undefined ? {} : { ca });
  try {
    const stream = session.request({ ":path": path });
    const chunks: Buffer[] = [];
    for await (const chunk of stream) chunks.push(chunk);
    return Buffer.concat(chunks).toString();
  } finally {
    session.close();
  }
}

/** Lets each byte leave in a segment of its own: a write is flushed before the next begins. */
async function writeBytewise(socket: Socket, bytes: Buffer): Promise<void> {
  for (const byte of bytes) {
    await new Promise<void>((resolve, reject) =>
      socket.write(Buffer.from([byte]), (error) => (error ? reject(error) : setImmediate(resolve))),
    );
  }
}

describe("the one port", () => {
  it("speaks HTTP/1.1 and cleartext HTTP/2 at the same time", async () => {
    await using stack = new AsyncDisposableStack();
    const listener = await versionEcho();
    stack.defer(() => listener.close(0));
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        index % 2 === 0
          ? fetch(`${listener.url}/${index}`).then((response) => response.text())
          : http2Get(listener.url, `/${index}`),
      ),
    );
    expect(answers).toEqual(answers.map((_, index) => `HTTP/${index % 2 === 0 ? "1.1" : "2.0"} /${index}`));
  });

  it("recognizes HTTP/1.1 byte by byte, also methods that begin like the preface of HTTP/2", async () => {
    await using stack = new AsyncDisposableStack();
    const listener = await versionEcho();
    stack.defer(() => listener.close(0));
    for (const method of ["GET", "POST", "PUT", "PATCH", "PROPFIND"]) {
      const socket = connect({ port: listener.port, host: "127.0.0.1", noDelay: true });
      const answer = readAll(socket);
      await writeBytewise(
        socket,
        Buffer.from(`${method} /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`),
      );
      expect((await answer).toString()).toContain("HTTP/1.1 /x");
    }
  });

  it("recognizes HTTP/2 however its first bytes are cut", async () => {
    await using stack = new AsyncDisposableStack();
    const listener = await versionEcho();
    stack.defer(() => listener.close(0));
    const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    const settings = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    const hello = Buffer.concat([preface, settings]);
    for (let cut = 1; cut <= hello.length; cut++) {
      const socket = connect({ port: listener.port, host: "127.0.0.1", noDelay: true });
      await writeBytewise(socket, hello.subarray(0, 1));
      socket.write(hello.subarray(1, cut));
      await new Promise(setImmediate);
      socket.write(hello.subarray(cut));
      // The server's SETTINGS come first: type 4 at the fourth byte.
      const [answer]: Buffer[] = await once(socket, "data");
      expect(answer?.[3]).toBe(4);
      socket.destroy();
    }
    const socket = connect({ port: listener.port, host: "127.0.0.1", noDelay: true });
    await writeBytewise(socket, hello);
    const [answer]: Buffer[] = await once(socket, "data");
    expect(answer?.[3]).toBe(4);
    socket.destroy();
  });

  it.each([
    ["nothing", ""],
    ["half a preface", "PRI * HTTP/2.0\r\n"],
    ["half a request", "GET / HTTP/1.1\r\nHost: x\r\n"],
  ])("lets go of a connection that sends %s and waits", async (_what, bytes) => {
    await using stack = new AsyncDisposableStack();
    const listener = await versionEcho({ headersTimeoutMs: 100 });
    stack.defer(() => listener.close(0));
    const socket = connect({ port: listener.port, host: "127.0.0.1" });
    socket.write(bytes);
    const answer = (await readAll(socket)).toString();
    expect(answer === "" || answer.startsWith("HTTP/1.1 408")).toBe(true);
  });

  it("survives connections that break or end before they have said anything", async () => {
    await using stack = new AsyncDisposableStack();
    const listener = await versionEcho();
    stack.defer(() => listener.close(0));
    for (const end of ["destroy", "end", "resetAndDestroy"] as const) {
      const socket = connect({ port: listener.port, host: "127.0.0.1" });
      await once(socket, "connect");
      socket.write("PRI");
      socket[end]();
      await once(socket, "close");
    }
    expect(await fetch(`${listener.url}/after`).then((response) => response.text())).toBe("HTTP/1.1 /after");
  });

  it("answers an HTTP/1.1 client that ends its side after the request", async () => {
    await using stack = new AsyncDisposableStack();
    const listener = await versionEcho();
    stack.defer(() => listener.close(0));
    const socket = connect({ port: listener.port, host: "127.0.0.1", allowHalfOpen: true });
    const answer = readAll(socket);
    socket.end("GET /half HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    expect((await answer).toString()).toContain("HTTP/1.1 /half");
  });

  it("closes idle connections of both kinds at once", async () => {
    const listener = await versionEcho();
    const session = connectHttp2(listener.url);
    const idle = connect({ port: listener.port, host: "127.0.0.1" });
    idle.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    await Promise.all([once(session, "remoteSettings"), once(idle, "data")]);
    const ended = Promise.all([once(session, "close"), once(idle, "close")]);
    // A minute: were they not closed by themselves, the test would run out of time first.
    await listener.close(60_000);
    await ended;
  }, 20_000);

  it("says in a sentence that the port is taken, and how to choose another", async () => {
    await using stack = new AsyncDisposableStack();
    const listener = await versionEcho();
    stack.defer(() => listener.close(0));
    const error = await versionEcho({ port: listener.port }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(FeedError);
    expect(String(error)).toContain(`Port ${listener.port} on 127.0.0.1 is taken`);
    expect(error instanceof FeedError && error.action).toContain("--port");
  });

  it("says in a sentence that the address is none of this machine's", async () => {
    await expect(versionEcho({ host: "192.0.2.1" })).rejects.toThrow("192.0.2.1 is no address of this machine.");
  });
});

describe("TLS", () => {
  async function secured() {
    const [cert, privateKey] = await Promise.all([readFile(certificate, "utf8"), readFile(key, "utf8")]);
    return versionEcho({ tls: { cert, key: privateKey } });
  }

  it("lets ALPN choose, and serves those who do not negotiate by their first bytes", async () => {
    await using stack = new AsyncDisposableStack();
    const listener = await secured();
    stack.defer(() => listener.close(0));
    const ca = await readFile(certificate);
    expect(await http2Get(listener.url, "/h2", ca)).toBe("HTTP/2.0 /h2");
    const http1 = await new Promise<string>((resolve, reject) => {
      const agent = new Agent({ ca });
      getHttp1(`${listener.url}/h1`, { agent }, (response) => {
        response.setEncoding("utf8").on("data", resolve);
      }).on("error", reject);
    });
    expect(http1).toBe("HTTP/1.1 /h1");
    const silent = connectTls({ port: listener.port, host: "127.0.0.1", ca });
    await once(silent, "secureConnect");
    expect(silent.alpnProtocol).toBe(false);
    const answer = readAll(silent);
    silent.write("GET /no-alpn HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    expect((await answer).toString()).toContain("HTTP/1.1 /no-alpn");
  });

  it("carries gRPC", async () => {
    await using served = await serve(createScriptedFeed({}), {
      config: { tlsCert: fileURLToPath(certificate), tlsKey: fileURLToPath(key) },
    });
    const ca = await readFile(certificate);
    const client = createClient(FeedService, createGrpcTransport({ baseUrl: served.url, nodeOptions: { ca } }));
    expect((await client.getStatus({})).headVersion).toBe(7n);
  });

  it("is cut when it closes, also where the handshake has not been made", async () => {
    const listener = await secured();
    const silent = connect({ port: listener.port, host: "127.0.0.1" });
    await once(silent, "connect");
    const ended = once(silent, "close");
    await listener.close(0);
    await ended;
  });

  it("says in a sentence that the certificate is none, or not the key's", async () => {
    const privateKey = await readFile(key, "utf8");
    await expect(versionEcho({ tls: { cert: "no PEM", key: privateKey } })).rejects.toMatchObject({
      code: "INVALID_REQUEST",
      message: expect.stringContaining("cannot be used"),
      action: expect.stringContaining("--tls-cert"),
    });
  });

  it("is not taken for cleartext: a plain request to it fails alone", async () => {
    await using stack = new AsyncDisposableStack();
    const listener = await secured();
    stack.defer(() => listener.close(0));
    await expect(fetch(listener.url.replace("https", "http"))).rejects.toThrow();
    const ca = await readFile(certificate);
    expect(await http2Get(listener.url, "/still", ca)).toBe("HTTP/2.0 /still");
    const request = requestHttps(`${listener.url}/x`, { ca });
    request.end();
    const [response] = await once(request, "response");
    expect(response.statusCode).toBe(200);
    response.resume();
  });
});
