import { connect } from "node:http2";
import { describe, expect, it } from "vitest";
import { type BodyServer, startBodyServer } from "../../support/h2/body-server.ts";
import { connectFrames, type FrameClient } from "../../support/h2/frame-client.ts";
import { windowUpdate } from "../../support/h2/frames.ts";

const answer = Buffer.alloc(60_000, "u");

/** Answers `/unary` through the session, with trailers. */
function withUnary(options: Parameters<typeof startBodyServer>[0] = {}): Promise<BodyServer> {
  return startBodyServer({
    ...options,
    answer(request, response) {
      if (!request.url.startsWith("/unary")) return false;
      response.sendDate = false;
      response.writeHead(200);
      response.write(answer);
      response.addTrailers({ "grpc-status": "0" });
      response.end();
      return true;
    },
  });
}

async function openMany(server: BodyServer, client: FrameClient, ids: readonly number[]) {
  for (const id of ids) client.request(id, `/${id}`);
  return Promise.all(ids.map((id) => server.opened(`/${id}`)));
}

const odd = (count: number, from = 1) => Array.from({ length: count }, (_, i) => from + 2 * i);

describe("the window of a connection", () => {
  it("is shared by bodies and the session's own answers, to the byte", async () => {
    await using server = await withUnary();
    await using client = await connectFrames(server.port, { streamWindow: 1 << 20 });
    const [body] = await openMany(server, client, [1]);
    body?.sink.write(Buffer.alloc(50_000));
    await client.until(() => client.stream(1).length === 50_000);
    client.request(3, "/unary");
    // Neither waits for the other to give up what it does not use: all 65,535 bytes go out.
    body?.sink.write(Buffer.alloc(50_000));
    await client.until(() => client.stream(1).length + client.stream(3).length === 65_535);
    client.send(windowUpdate(0, 200_000));
    body?.sink.end(undefined, undefined);
    await client.until(() => client.stream(1).ended && client.stream(3).ended);
    expect(client.stream(1).length).toBe(100_000);
    expect(client.body(3).equals(answer)).toBe(true);
    expect(client.judge.violations).toEqual([]);
  });

  it("reaches the session's answers although bodies always want more", async () => {
    await using server = await withUnary();
    await using client = await connectFrames(server.port, { streamWindow: 1 << 20 });
    const bodies = await openMany(server, client, odd(4));
    for (const { sink } of bodies) sink.write(Buffer.alloc(900_000));
    await client.until(() => client.frames.length > 0 && total(client) === 65_535);
    client.request(101, "/unary");
    let granted = 65_535;
    while (!client.stream(101).ended) {
      client.send(windowUpdate(0, 4_000));
      granted += 4_000;
      await client.settled();
    }
    expect(client.body(101).equals(answer)).toBe(true);
    // A quarter of what is granted meanwhile is the session's; with what it needs to begin with.
    expect(granted).toBeLessThan(65_535 + 60_000 * 8);
    expect(client.judge.violations).toEqual([]);
  });

  it.each([1, 3, 50])("reaches everybody in steps of %i bytes", async (step) => {
    await using server = await withUnary();
    await using client = await connectFrames(server.port, { streamWindow: 1 << 20 });
    const bodies = await openMany(server, client, odd(3));
    for (const { sink } of bodies) sink.write(Buffer.alloc(60_000));
    await client.until(() => total(client) === 65_535);
    client.request(101, "/unary");
    await client.settled();
    const before = odd(3).map((id) => client.stream(id).length);
    for (let i = 0; i < 80; i += 1) {
      client.send(windowUpdate(0, step));
      await client.until(() => total(client) >= 65_535 + step * i);
    }
    await client.settled();
    for (const [index, id] of odd(3).entries()) {
      expect(client.stream(id).length).toBeGreaterThan(before[index] ?? 0);
    }
    expect(client.stream(101).length).toBeGreaterThan(0);
    client.send(windowUpdate(0, 1_000_000));
    for (const { sink } of bodies) sink.end(undefined, [["grpc-status", "0"]]);
    await client.until(() => [...odd(3), 101].every((id) => client.stream(id).ended));
    expect(client.judge.violations).toEqual([]);
  });

  it("is the session's again once no body is left", async () => {
    await using server = await withUnary();
    await using client = await connectFrames(server.port, { streamWindow: 1 << 20 });
    const [body] = await openMany(server, client, [1]);
    body?.sink.end(Buffer.alloc(5_000), [["grpc-status", "0"]]);
    await client.until(() => client.stream(1).ended);
    client.request(3, "/unary");
    await client.until(() => client.stream(3).ended);
    expect(client.body(3).equals(answer)).toBe(true);
    expect(client.judge.violations).toEqual([]);
  });

  it("is not given away to one stream while others are ready", async () => {
    await using server = await startBodyServer();
    await using client = await connectFrames(server.port, { streamWindow: 1 << 20 });
    const ids = odd(5);
    const bodies = await openMany(server, client, ids);
    await client.settled();
    bodies[0]?.sink.write(Buffer.alloc(500_000));
    for (const { sink } of bodies.slice(1)) sink.write(Buffer.alloc(12_000));
    await client.until(() => ids.slice(1).every((id) => client.stream(id).length === 12_000));
    expect(client.stream(1).length).toBeLessThanOrEqual(65_535 - 4 * 12_000);
    expect(client.stream(1).length).toBeGreaterThan(0);
    expect(client.judge.violations).toEqual([]);
  });

  it("is left half to the others by a stream whose reader has stopped", async () => {
    await using server = await startBodyServer();
    await using client = await connectFrames(server.port, { acknowledge: "all" });
    const ids = odd(100);
    client.mute.add(1);
    const bodies = await openMany(server, client, ids);
    bodies[0]?.sink.write(Buffer.alloc(200_000));
    await client.settled();
    expect(client.stream(1).length).toBeLessThanOrEqual(32_768);
    // The others are served for as long as it takes: far more than the window holds, event after event.
    const event = Buffer.alloc(250, "e");
    for (let round = 1; round <= 40; round += 1) {
      for (const { sink } of bodies) sink.write(event);
      await client.until(() => ids.slice(1).every((id) => client.stream(id).length === round * 250));
    }
    expect(client.stream(1).length).toBeLessThanOrEqual(32_768);
    client.mute.clear();
    client.send(windowUpdate(0, client.stream(1).length), windowUpdate(1, client.stream(1).length));
    await client.until(() => client.stream(1).length === 200_000 + 40 * 250);
    expect(client.judge.violations).toEqual([]);
  });

  it("is given up to a heavy stream after a while, for a peer that acknowledges nothing before it is used up", async () => {
    await using server = await startBodyServer({ relentMs: 50 });
    await using client = await connectFrames(server.port);
    const [body] = await openMany(server, client, [1, 3]);
    body?.sink.write(Buffer.alloc(100_000));
    await client.until(() => client.stream(1).length === 65_535);
    expect(client.judge.violations).toEqual([]);
  });

  it("is all of a stream's that is the only one", async () => {
    await using server = await startBodyServer();
    await using client = await connectFrames(server.port);
    const [body] = await openMany(server, client, [1]);
    body?.sink.write(Buffer.alloc(100_000));
    await client.until(() => client.stream(1).length === 65_535);
    expect(client.judge.violations).toEqual([]);
  });
});

describe("connections and streams", () => {
  it("are a thousand streams on one connection", async () => {
    await using server = await startBodyServer();
    const options = { streamWindow: 1 << 30, connectionWindow: 2 ** 31 - 1 - 65_535 } as const;
    await using client = await connectFrames(server.port, options);
    const ids = odd(1_000);
    const bodies = await openMany(server, client, ids);
    const event = Buffer.alloc(250, "e");
    for (let round = 0; round < 20; round += 1) {
      for (const { sink } of bodies) sink.write(event);
      await client.until(() => ids.every((id) => client.stream(id).length === (round + 1) * 250));
    }
    for (const { sink } of bodies) sink.end(undefined, [["grpc-status", "0"]]);
    await client.until(() => ids.every((id) => client.stream(id).ended));
    expect(client.judge.violations).toEqual([]);
  });

  it("are one stream on each of a thousand connections, default windows", async () => {
    await using server = await startBodyServer();
    await using stack = new AsyncDisposableStack();
    const clients: FrameClient[] = [];
    for (let i = 0; i < 1_000; i += 1)
      clients.push(stack.use(await connectFrames(server.port, { acknowledge: "all" })));
    for (const [i, client] of clients.entries()) client.request(1, `/${i}`);
    const bodies = await Promise.all(clients.map((_, i) => server.opened(`/${i}`)));
    const event = Buffer.alloc(250, "e");
    for (let round = 0; round < 5; round += 1) for (const { sink } of bodies) sink.write(event);
    for (const { sink } of bodies) sink.end(undefined, [["grpc-status", "0"]]);
    for (const client of clients) {
      await client.until(() => client.stream(1).ended);
      expect(client.stream(1).length).toBe(1_250);
      expect(client.judge.violations).toEqual([]);
    }
  });

  it("bound what waits for a connection that reads nothing, and leave each stream a little", async () => {
    const bounds = { streamPendingMaxBytes: 10_000, connectionPendingMaxBytes: 25_000, streamPendingMinBytes: 2_000 };
    await using server = await startBodyServer(bounds);
    await using client = await connectFrames(server.port, { streamWindow: 0 });
    const bodies = await openMany(server, client, odd(10));
    for (const { sink } of bodies) {
      while (sink.ready) sink.write(Buffer.alloc(1_000));
    }
    // The first three fill up what the connection may hold; each other one gets the least.
    expect(bodies.map(({ sink }) => sink.pending)).toEqual([10_000, 10_000, 5_000, ...Array(7).fill(2_000)]);
    for (const id of odd(2)) client.send(windowUpdate(id, 20_000));
    await client.settled();
    expect(bodies.map(({ readyCalls }) => readyCalls)).toEqual([1, 1, ...Array(8).fill(1)]);
  });

  it("send what a slow connection has not taken yet from where it stays as it was", async () => {
    await using server = await startBodyServer({ streamPendingMaxBytes: 1 << 25, connectionPendingMaxBytes: 1 << 26 });
    const wide = { streamWindow: 1 << 30, connectionWindow: 2 ** 31 - 1 - 65_535 } as const;
    await using slow = await connectFrames(server.port, wide);
    await using quick = await connectFrames(server.port, wide);
    const [stuck] = await openMany(server, slow, [1]);
    quick.request(1, "/quick");
    const other = await server.opened("/quick");
    await slow.settled();
    slow.pause();
    const chunk = (seed: number) => Buffer.alloc(5_000, `${seed},`);
    const count = 3_000;
    for (let i = 0; i < count; i += 1) stuck?.sink.write(chunk(i));
    // Meanwhile buffers go round among the others.
    for (let i = 0; i < 20; i += 1) {
      other.sink.write(Buffer.alloc(250_000, i));
      await quick.until(() => quick.stream(1).length === (i + 1) * 250_000);
    }
    expect(stuck?.sink.pending).toBeGreaterThan(1_000_000);
    slow.resume();
    stuck?.sink.end(undefined, undefined);
    await slow.until(() => slow.stream(1).ended);
    expect(slow.body(1).equals(Buffer.concat(Array.from({ length: count }, (_, i) => chunk(i))))).toBe(true);
    expect(stuck?.sink.pending).toBe(0);
    expect(slow.judge.violations).toEqual([]);
  });

  it("say nothing wrong to a real client that reads slowly, over many calls", async () => {
    await using server = await withUnary();
    const session = connect(`http://127.0.0.1:${server.port}`);
    const calls = Array.from({ length: 30 }, async (_, i) => {
      const stream = session.request({ ":path": i % 3 === 0 ? `/unary/${i}` : `/${i}`, ":method": "POST" });
      stream.end();
      let length = 0;
      for await (const chunk of stream) {
        length += chunk.length;
        await new Promise((resolve) => setImmediate(resolve));
      }
      return length;
    });
    for (let i = 0; i < 30; i += 1) {
      if (i % 3 === 0) continue;
      const { sink } = await server.opened(`/${i}`);
      for (let k = 0; k < 100; k += 1) sink.write(Buffer.alloc(1_000));
      sink.end(undefined, [["grpc-status", "0"]]);
    }
    expect(await Promise.all(calls)).toEqual(Array.from({ length: 30 }, (_, i) => (i % 3 === 0 ? 60_000 : 100_000)));
    await new Promise((resolve) => session.close(() => resolve(undefined)));
  });
});

describe("what the session writes in parts", () => {
  it("is not broken up by DATA of bodies: neither a frame nor a header block", async () => {
    await using server = await withUnary({ chop: 4_096, slow: true, fields: { "x-long": "y".repeat(60_000) } });
    await using client = await connectFrames(server.port, { streamWindow: 1 << 20, connectionWindow: 1 << 24 });
    client.request(1, "/1");
    const { sink } = await server.opened("/1");
    const ids = odd(6, 3);
    for (const id of ids) client.request(id, id % 4 === 3 ? `/${id}` : "/unary");
    let written = 0;
    while (!ids.every((id) => (id % 4 === 3 ? client.stream(id).headers.length > 3 : client.stream(id).ended))) {
      sink.write(Buffer.alloc(100));
      written += 100;
      await new Promise((resolve) => setImmediate(resolve));
    }
    sink.end(undefined, undefined);
    await client.until(() => client.stream(1).ended);
    expect(client.stream(1).length).toBe(written);
    expect(client.judge.violations).toEqual([]);
  });
});

describe.each([1, 2, 5, 9, 10, 13, 4_096])("everything cut into pieces of %i bytes", (chop) => {
  it("arrives as it should", async () => {
    await using server = await withUnary({ chop, fields: { "x-long": "y".repeat(20_000) } });
    await using client = await connectFrames(server.port, { streamWindow: 9_000, acknowledge: "all" });
    client.request(1, "/1", { parts: 5, end: false });
    client.request(3, "/unary");
    client.request(5, "/5");
    const { sink, request } = await server.opened("/1");
    const other = await server.opened("/5");
    const upload = request.toArray();
    const { data } = await import("../../support/h2/frames.ts");
    client.send(data(1, Buffer.alloc(3_000, "q"), true));
    sink.write(Buffer.alloc(10_000, "a"));
    other.sink.end(Buffer.alloc(30_000, "b"), [["grpc-status", "0"]]);
    sink.end(Buffer.alloc(10_000, "c"), [["grpc-status", "0"]]);
    await client.until(() => [1, 3, 5].every((id) => client.stream(id).ended));
    expect(Buffer.concat(await upload).length).toBe(3_000);
    expect(client.body(1).equals(Buffer.concat([Buffer.alloc(10_000, "a"), Buffer.alloc(10_000, "c")]))).toBe(true);
    expect(client.body(3).equals(answer)).toBe(true);
    expect(client.body(5).equals(Buffer.alloc(30_000, "b"))).toBe(true);
    expect(client.judge.violations).toEqual([]);
  });
});

function total(client: FrameClient): number {
  let sum = 0;
  for (const { length } of client.streams.values()) sum += length;
  return sum;
}
