import { readFile } from "node:fs/promises";
import { type ClientHttp2Session, connect } from "node:http2";
import { describe, expect, it } from "vitest";
import { muxedBody } from "../../../src/mux/mux.ts";
import type { BodySink } from "../../../src/rpc/hand-off/body-sink.ts";
import { type Listener, listen } from "../../../src/server/listen.ts";
import { until } from "../../support/deadline.ts";

const certificate = new URL("../rpc/certificates/localhost.crt", import.meta.url);
const key = new URL("../rpc/certificates/localhost.key", import.meta.url);

/** `/unary` is answered as always; other bodies are handed over, into `sinks`. */
async function startListener(tls: boolean, sinks: Map<string, BodySink>, onClosed = () => {}): Promise<Listener> {
  return listen({
    host: "127.0.0.1",
    port: 0,
    tls: tls ? { cert: await readFile(certificate, "utf8"), key: await readFile(key, "utf8") } : undefined,
    maxConcurrentStreams: 200,
    mux: {},
    handler(request, response) {
      if (request.url === "/unary" || !("stream" in response)) {
        response.end("answer");
        return;
      }
      response.writeHead(200);
      const sink = muxedBody(response.stream, { onReady() {}, onClosed });
      if (sink === undefined) throw new Error("the body cannot be handed over");
      sinks.set(request.url ?? "", sink);
    },
  });
}

function open(session: ClientHttp2Session, path: string) {
  const stream = session.request({ ":path": path, ":method": "POST" });
  stream.end();
  const trailers = new Promise<unknown>((resolve) => stream.once("trailers", resolve));
  const body = stream.toArray().then((chunks) => Buffer.concat(chunks));
  return { trailers, body };
}

describe.each([
  { tls: false, how: "without TLS" },
  { tls: true, how: "under TLS" },
])("the one port with a mux, $how", ({ tls }) => {
  it("carries handed-off bodies beside answers, and HTTP/1.1", async () => {
    const sinks = new Map<string, BodySink>();
    const listener = await startListener(tls, sinks);
    await using stack = new AsyncDisposableStack();
    stack.defer(() => listener.close(0));
    const session = connect(listener.url, tls ? { ca: await readFile(certificate) } : {});
    stack.defer(() => session.destroy());
    const paths = Array.from({ length: 100 }, (_, i) => `/${i}`);
    const calls = paths.map((path) => open(session, path));
    await until("all are open", async () => sinks.size === 100);
    const shared = Buffer.alloc(10_000, "shared");
    for (let i = 0; i < 20; i += 1) for (const sink of sinks.values()) sink.write(shared);
    const unary = open(session, "/unary");
    for (const [path, sink] of sinks) sink.end(Buffer.from(path), [["grpc-status", "0"]]);
    expect((await unary.body).toString()).toBe("answer");
    const whole = Buffer.concat(Array.from({ length: 20 }, () => shared));
    for (const [index, { body, trailers }] of calls.entries()) {
      expect((await body).equals(Buffer.concat([whole, Buffer.from(`/${index}`)]))).toBe(true);
      expect(await trailers).toMatchObject({ "grpc-status": "0" });
    }
  });

  it("lets handed-off bodies end before it closes", async () => {
    const sinks = new Map<string, BodySink>();
    const listener = await startListener(tls, sinks);
    const session = connect(listener.url, tls ? { ca: await readFile(certificate) } : {});
    const call = open(session, "/late");
    await until("it is open", async () => sinks.size === 1);
    const goaway = new Promise((resolve) => session.once("goaway", resolve));
    const closed = listener.close(60_000);
    await goaway;
    sinks.get("/late")?.write(Buffer.from("not yet, "));
    sinks.get("/late")?.end(Buffer.from("now"), [["grpc-status", "0"]]);
    expect((await call.body).toString()).toBe("not yet, now");
    await closed;
    session.destroy();
  });

  it("cuts them when its grace is over", async () => {
    const sinks = new Map<string, BodySink>();
    const { promise: bodyClosed, resolve: onClosed } = Promise.withResolvers<void>();
    const listener = await startListener(tls, sinks, onClosed);
    const session = connect(listener.url, tls ? { ca: await readFile(certificate) } : {});
    session.on("error", () => {});
    const closed = new Promise((resolve) => session.once("close", resolve));
    const call = open(session, "/never");
    call.body.catch(() => {});
    await until("it is open", async () => sinks.size === 1);
    await listener.close(1);
    await Promise.all([bodyClosed, closed]);
    sinks.get("/never")?.write(Buffer.from("too late"));
  });
});
