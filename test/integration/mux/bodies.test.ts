import { connect } from "node:http2";
import { describe, expect, it } from "vitest";
import { startBodyServer } from "../../support/h2/body-server.ts";
import { connectFrames } from "../../support/h2/frame-client.ts";
import { errorCode, rstStream, settings, type, windowUpdate } from "../../support/h2/frames.ts";

const bytes = (length: number, seed = 1) => Buffer.from(Array.from({ length }, (_, i) => (i * 31 + seed * 7) & 0xff));

describe("a handed-off body", () => {
  it("arrives whole, after what was written before, and ends with its trailers", async () => {
    await using server = await startBodyServer({ opening: Buffer.from("opened ") });
    const session = connect(`http://127.0.0.1:${server.port}`);
    const stream = session.request({ ":path": "/a", ":method": "POST" });
    stream.end();
    const trailers = new Promise<Record<string, unknown>>((resolve) => stream.once("trailers", resolve));
    const text = (async () => Buffer.concat(await stream.toArray()).toString())();
    const body = await server.opened("/a");
    body.sink.write(Buffer.from("one "));
    body.sink.write(Buffer.from("two "));
    body.sink.end(Buffer.from("three"), [
      ["grpc-status", "0"],
      ["x-many", "1"],
      ["x-many", "2"],
    ]);
    expect(await text).toBe("opened one two three");
    expect(await trailers).toMatchObject({ "grpc-status": "0", "x-many": "1, 2" });
    const closed = new Promise((resolve) => session.close(() => resolve(undefined)));
    await closed;
    expect(body.closedCalls).toBe(1);
  });

  it.each([0, 1, 5, 100])("comes after what was written before, through a window of %i bytes", async (streamWindow) => {
    await using server = await startBodyServer({ opening: Buffer.from("what was written before, ") });
    await using client = await connectFrames(server.port, { streamWindow });
    client.request(1, "/a");
    const body = await server.opened("/a");
    body.sink.write(Buffer.from("and what came "));
    body.sink.end(Buffer.from("after"), [["grpc-status", "0"]]);
    await client.settled();
    while (!client.stream(1).ended) {
      client.send(windowUpdate(1, 1));
      await client.settled();
    }
    expect(client.body(1).toString()).toBe("what was written before, and what came after");
    expect(client.judge.violations).toEqual([]);
  });

  it("ends without trailers where there are none", async () => {
    await using server = await startBodyServer();
    await using client = await connectFrames(server.port, { acknowledge: "all" });
    client.request(1, "/a");
    const body = await server.opened("/a");
    body.sink.end(Buffer.from("all"), undefined);
    await client.until(() => client.stream(1).ended);
    expect(client.body(1).toString()).toBe("all");
    expect(client.judge.violations).toEqual([]);
  });

  it.each([1, 2, 7, 100, 4_096, 65_535])("arrives through stream windows of %i bytes", async (window) => {
    await using server = await startBodyServer();
    await using client = await connectFrames(server.port, { streamWindow: window, acknowledge: "all" });
    client.request(1, "/a");
    client.request(3, "/b");
    const length = window < 100 ? 300 : 200_000;
    for (const [index, path] of ["/a", "/b"].entries()) {
      (await server.opened(path)).sink.end(bytes(length, index), [["grpc-status", "0"]]);
    }
    await client.until(() => client.stream(1).ended && client.stream(3).ended);
    expect(client.body(1).equals(bytes(length, 0))).toBe(true);
    expect(client.body(3).equals(bytes(length, 1))).toBe(true);
    expect(client.judge.violations).toEqual([]);
  });

  it("arrives through a connection's window that opens byte by byte", async () => {
    await using server = await startBodyServer();
    await using client = await connectFrames(server.port, { streamWindow: 1 << 20 });
    client.request(1, "/a");
    const body = await server.opened("/a");
    body.sink.end(bytes(65_535 + 50), [["grpc-status", "0"]]);
    await client.until(() => client.stream(1).length === 65_535);
    for (let i = 1; i <= 50; i += 1) {
      client.send(windowUpdate(0, 1));
      await client.until(() => client.stream(1).length === 65_535 + i);
    }
    client.send(windowUpdate(0, 1));
    await client.until(() => client.stream(1).ended);
    expect(client.body(1).equals(bytes(65_535 + 50))).toBe(true);
    expect(client.judge.violations).toEqual([]);
  });

  it("waits where SETTINGS make its window negative, and goes on from there", async () => {
    await using server = await startBodyServer();
    await using client = await connectFrames(server.port, { streamWindow: 1_000 });
    client.request(1, "/a");
    const body = await server.opened("/a");
    body.sink.write(bytes(3_000));
    await client.until(() => client.stream(1).length === 1_000);
    client.send(settings({ initialWindowSize: 200 }));
    client.send(windowUpdate(1, 800));
    await client.settled();
    expect(client.stream(1).length).toBe(1_000);
    client.send(windowUpdate(1, 1));
    await client.until(() => client.stream(1).length === 1_001);
    client.send(settings({ initialWindowSize: 1_200 }));
    await client.until(() => client.stream(1).length === 2_001);
    client.send(windowUpdate(1, 5_000));
    body.sink.end(undefined, [["grpc-status", "0"]]);
    await client.until(() => client.stream(1).ended);
    expect(client.body(1).equals(bytes(3_000))).toBe(true);
    expect(client.judge.violations).toEqual([]);
  });

  it("ends while the stream's window is used up", async () => {
    await using server = await startBodyServer();
    await using client = await connectFrames(server.port, { streamWindow: 0 });
    client.request(1, "/a");
    const body = await server.opened("/a");
    body.sink.end(undefined, [["grpc-status", "0"]]);
    await client.until(() => client.stream(1).ended);
    expect(client.judge.violations).toEqual([]);
  });

  it("stops at a reset by the peer, and tells its owner once", async () => {
    await using server = await startBodyServer();
    await using client = await connectFrames(server.port, { streamWindow: 1 << 20, connectionWindow: 1 << 20 });
    client.request(1, "/a");
    const { sink } = await server.opened("/a");
    sink.write(bytes(1_000));
    await client.until(() => client.stream(1).length === 1_000);
    client.send(rstStream(1, errorCode.cancel));
    await client.settled();
    sink.write(bytes(1_000));
    sink.end(bytes(10), undefined);
    sink.abort();
    await client.settled();
    expect(client.stream(1).length).toBe(1_000);
    expect(server.bodies[0]?.closedCalls).toBe(1);
    expect(sink.pending).toBe(0);
    expect(client.judge.violations).toEqual([]);
  });

  it("sends nothing after it was aborted, not even what was written before", async () => {
    await using server = await startBodyServer();
    await using client = await connectFrames(server.port, { streamWindow: 1 << 20, connectionWindow: 1 << 20 });
    client.request(1, "/a");
    const body = await server.opened("/a");
    body.sink.write(bytes(1_000));
    body.sink.abort();
    await client.until(() => client.stream(1).reset !== undefined);
    await client.settled();
    expect(client.stream(1)).toMatchObject({ length: 0, reset: errorCode.internal });
    expect(body.closedCalls).toBe(1);
    expect(client.judge.violations).toEqual([]);
  });

  it("is cut when a trailer is none", async () => {
    await using server = await startBodyServer();
    await using client = await connectFrames(server.port);
    client.request(1, "/a");
    const body = await server.opened("/a");
    body.sink.end(Buffer.from("x"), [["bad name", "1"]]);
    await client.until(() => client.stream(1).reset !== undefined);
    expect(client.stream(1)).toMatchObject({ ended: false, reset: errorCode.internal });
  });

  it("says when it is full, and when it is not any more", async () => {
    await using server = await startBodyServer({ streamPendingMaxBytes: 10_000 });
    await using client = await connectFrames(server.port, { streamWindow: 4_000 });
    client.request(1, "/a");
    const body = await server.opened("/a");
    body.sink.write(bytes(9_999));
    expect(body.sink.ready).toBe(true);
    body.sink.write(bytes(1));
    expect(body.sink.ready).toBe(false);
    expect(body.sink.pending).toBe(10_000);
    await client.until(() => client.stream(1).length === 4_000);
    expect(body.sink).toMatchObject({ ready: false, pending: 6_000 });
    client.send(windowUpdate(1, 1_000));
    await client.settled();
    expect(body.sink).toMatchObject({ ready: true, pending: 5_000 });
    expect(body.readyCalls).toBe(1);
  });

  it("may be written from onReady, and ended", async () => {
    await using server = await startBodyServer({ streamPendingMaxBytes: 1_000 });
    await using client = await connectFrames(server.port, { streamWindow: 500, acknowledge: "all" });
    client.request(1, "/a");
    const body = await server.opened("/a");
    let left = 50;
    const fill = () => {
      while (body.sink.ready && left > 0) {
        left -= 1;
        body.sink.write(bytes(300));
      }
      if (left === 0) body.sink.end(undefined, [["grpc-status", "0"]]);
    };
    body.whenReady = fill;
    fill();
    await client.until(() => client.stream(1).ended);
    expect(client.stream(1).length).toBe(15_000);
    expect(client.judge.violations).toEqual([]);
  });

  it("is not taken twice, nor before its head, nor after its end", async () => {
    const { muxedBody } = await import("../../../src/mux/mux.ts");
    const owner = { onReady() {}, onClosed() {} };
    const early: unknown[] = [];
    await using server = await startBodyServer({
      answer(request, response) {
        if (request.url !== "/early") return false;
        early.push(muxedBody(response.stream, owner));
        response.end("done");
        early.push(muxedBody(response.stream, owner));
        return true;
      },
    });
    await using client = await connectFrames(server.port);
    client.request(1, "/early");
    await client.until(() => client.stream(1).ended);
    expect(early).toEqual([undefined, undefined]);
    client.request(3, "/a");
    const body = await server.opened("/a");
    expect(muxedBody(body.response.stream, owner)).toBeUndefined();
  });

  it("has a session that knows its peer", async () => {
    await using server = await startBodyServer();
    await using client = await connectFrames(server.port);
    client.request(1, "/a");
    const body = await server.opened("/a");
    expect(body.request.socket.remoteAddress).toBe("127.0.0.1");
    expect(body.request.socket.remotePort).toBeGreaterThan(0);
  });

  it("is waited for by a session that closes", async () => {
    await using server = await startBodyServer();
    await using client = await connectFrames(server.port);
    client.request(1, "/a");
    const body = await server.opened("/a");
    server.sessions[0]?.close();
    await client.until(() => client.goaway !== undefined);
    await client.settled();
    body.sink.write(Buffer.from("still "));
    await client.until(() => client.stream(1).length === 6);
    body.sink.end(Buffer.from("here"), [["grpc-status", "0"]]);
    await client.until(() => client.stream(1).ended);
    await client.untilClosed();
    expect(client.body(1).toString()).toBe("still here");
    expect(client.judge.violations).toEqual([]);
  });

  it("goes on after the peer's GOAWAY", async () => {
    await using server = await startBodyServer();
    await using client = await connectFrames(server.port);
    client.request(1, "/a");
    const body = await server.opened("/a");
    const { goaway } = await import("../../support/h2/frames.ts");
    client.send(goaway(0, errorCode.none));
    await client.settled();
    body.sink.end(Buffer.from("here"), [["grpc-status", "0"]]);
    await client.until(() => client.stream(1).ended);
    expect(client.body(1).toString()).toBe("here");
    await client.untilClosed();
  });

  it("is over when the connection is", async () => {
    await using server = await startBodyServer();
    await using client = await connectFrames(server.port);
    client.request(1, "/a");
    const body = await server.opened("/a");
    const closed = new Promise((resolve) => body.response.stream.once("close", resolve));
    client.destroy();
    await closed;
    body.sink.write(Buffer.from("late"));
    body.sink.end(undefined, undefined);
    expect(body).toMatchObject({ closedCalls: 1 });
    expect(body.sink.pending).toBe(0);
  });

  it("sends its bytes in frames of no more than 16,384", async () => {
    await using server = await startBodyServer();
    await using client = await connectFrames(server.port, { streamWindow: 1 << 24, connectionWindow: 1 << 24 });
    client.request(1, "/a");
    const body = await server.opened("/a");
    body.sink.end(bytes(1_000_000), [["grpc-status", "0"]]);
    await client.until(() => client.stream(1).ended);
    expect(client.body(1).equals(bytes(1_000_000))).toBe(true);
    const sizes = client.frames.filter((frame) => frame.type === type.data).map((frame) => frame.payload.length);
    expect(Math.max(...sizes)).toBe(16_384);
  });
});
