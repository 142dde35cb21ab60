import { describe, expect, it } from "vitest";
import { startBodyServer } from "../../support/h2/body-server.ts";
import { connectFrames, type FrameClient } from "../../support/h2/frame-client.ts";
import {
  data,
  errorCode,
  flags,
  frame,
  ping,
  request,
  requestBlock,
  rstStream,
  settings,
  type,
  uint32,
  windowUpdate,
} from "../../support/h2/frames.ts";

const MAX = 0x7fff_ffff;

/** What a server says to frames that are wrong; stream 1 is a body that is being written, stream 3 is not opened. */
interface WrongFrames {
  readonly what: string;
  readonly frames: readonly Buffer[];
  readonly goaway?: number;
  readonly reset?: number;
}

const block = requestBlock("/b");
const wrong: readonly WrongFrames[] = [
  // WINDOW_UPDATE (RFC 9113, 6.9).
  { what: "adds nothing to the connection's window", frames: [windowUpdate(0, 0)], goaway: errorCode.protocol },
  { what: "adds nothing to the body's window", frames: [windowUpdate(1, 0)], goaway: errorCode.protocol },
  {
    what: "adds to the connection's window what it cannot hold",
    frames: [windowUpdate(0, MAX)],
    goaway: errorCode.flowControl,
  },
  {
    what: "adds to the connection's window in two steps what it cannot hold",
    frames: [windowUpdate(0, MAX - 65_535), windowUpdate(0, 1_001)],
    goaway: errorCode.flowControl,
  },
  {
    what: "adds to the body's window what it cannot hold",
    frames: [windowUpdate(1, MAX)],
    goaway: errorCode.flowControl,
  },
  {
    what: "adds to the body's window in two steps what it cannot hold",
    frames: [windowUpdate(1, MAX - 65_535), windowUpdate(1, 1_001)],
    goaway: errorCode.flowControl,
  },
  { what: "adds to the window of a stream that is not open", frames: [windowUpdate(3, 1)], goaway: errorCode.protocol },
  {
    what: "adds to a window with too few bytes",
    frames: [frame(type.windowUpdate, 0, 0, uint32(9).subarray(1))],
    goaway: errorCode.frameSize,
  },
  {
    what: "adds to the body's window with too many bytes",
    frames: [frame(type.windowUpdate, 0, 1, Buffer.alloc(5))],
    goaway: errorCode.frameSize,
  },
  // SETTINGS (6.5).
  {
    what: "wants larger windows than there are",
    frames: [settings({ initialWindowSize: 2 ** 31 })],
    goaway: errorCode.flowControl,
  },
  {
    what: "wants the body's window larger than windows are",
    frames: [windowUpdate(1, MAX - 65_535), settings({ initialWindowSize: 70_000 })],
    goaway: errorCode.flowControl,
  },
  {
    what: "sends settings of a length that none have",
    frames: [frame(type.settings, 0, 0, Buffer.alloc(5))],
    goaway: errorCode.frameSize,
  },
  { what: "sends settings for a stream", frames: [frame(type.settings, 0, 1)], goaway: errorCode.protocol },
  {
    what: "acknowledges with settings",
    frames: [frame(type.settings, flags.ack, 0, Buffer.alloc(6))],
    goaway: errorCode.frameSize,
  },
  { what: "wants frames that are too short", frames: [settings({ maxFrameSize: 16_383 })], goaway: errorCode.protocol },
  { what: "wants to be pushed to twice", frames: [settings({ enablePush: 2 })], goaway: errorCode.protocol },
  // Order (6.2, 6.10): an update inside a header block is wrong although it would be none elsewhere.
  {
    what: "adds to the connection's window inside a header block",
    frames: [
      frame(type.headers, 0, 3, block.subarray(0, 5)),
      windowUpdate(0, 1),
      frame(type.continuation, flags.endHeaders, 3, block.subarray(5)),
    ],
    goaway: errorCode.protocol,
  },
  {
    what: "adds to the body's window inside a header block",
    frames: [frame(type.headers, 0, 3, block.subarray(0, 5)), windowUpdate(1, 1)],
    goaway: errorCode.protocol,
  },
  {
    what: "resets the body inside a header block",
    frames: [frame(type.headers, 0, 3, block.subarray(0, 5)), rstStream(1, errorCode.cancel)],
    goaway: errorCode.protocol,
  },
  {
    what: "goes on with a header block that nobody began",
    frames: [frame(type.continuation, flags.endHeaders, 1, block)],
    goaway: errorCode.protocol,
  },
  // Others.
  { what: "resets a stream that is not open", frames: [rstStream(3, errorCode.cancel)], goaway: errorCode.protocol },
  {
    what: "resets with too few bytes",
    frames: [frame(type.rstStream, 0, 1, Buffer.alloc(3))],
    goaway: errorCode.frameSize,
  },
  {
    what: "promises a push",
    frames: [frame(type.pushPromise, flags.endHeaders, 1, Buffer.concat([uint32(2), block]))],
    goaway: errorCode.protocol,
  },
  { what: "sends a ping of 6 bytes", frames: [frame(type.ping, 0, 0, Buffer.alloc(6))], goaway: errorCode.frameSize },
  { what: "sends a ping for a stream", frames: [frame(type.ping, 0, 1, Buffer.alloc(8))], goaway: errorCode.protocol },
  { what: "opens a stream of the server's", frames: [request(2, "/b")], goaway: errorCode.protocol },
  {
    what: "sends headers that cannot be read",
    frames: [frame(type.headers, flags.endHeaders, 3, Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff]))],
    goaway: errorCode.compression,
  },
  {
    what: "pads with more than there is",
    frames: [frame(type.data, flags.padded, 1, Buffer.from([9, 0, 0]))],
    goaway: errorCode.protocol,
  },
];

/** Only the head: what is wrong must be said before the rest comes. */
const wrongHeads: readonly WrongFrames[] = [
  {
    what: "begins a frame that is too long",
    frames: [frame(type.data, 0, 1, Buffer.alloc(16_385)).subarray(0, 9)],
    goaway: errorCode.frameSize,
  },
  { what: "begins data of no stream", frames: [data(0, Buffer.alloc(100)).subarray(0, 9)], goaway: errorCode.protocol },
  {
    what: "begins an update of 5 bytes",
    frames: [frame(type.windowUpdate, 0, 0, Buffer.alloc(5)).subarray(0, 9)],
    goaway: errorCode.frameSize,
  },
];

async function openBody(mux: boolean) {
  const server = await startBodyServer({ mux });
  const client = await connectFrames(server.port);
  client.request(1, "/a", { end: false });
  const body = await server.opened("/a");
  // So much is taken off both windows, beside the session where there is a mux.
  body.sink.write(Buffer.alloc(1_000));
  await client.until(() => client.stream(1).length === 1_000);
  const stack = new AsyncDisposableStack();
  stack.use(server);
  stack.use(client);
  return { server, client, body, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

async function verdict(client: FrameClient): Promise<{ goaway: number | undefined; reset: number | undefined }> {
  await client.until(() => client.goaway !== undefined || client.stream(1).reset !== undefined);
  return { goaway: client.goaway?.code, reset: client.goaway === undefined ? client.stream(1).reset : undefined };
}

describe.each([
  { mux: true, how: "with a mux" },
  { mux: false, how: "without" },
])("a peer, $how", ({ mux }) => {
  it.each(wrong)("that $what is answered as it always is", async ({ frames, goaway, reset }) => {
    await using open = await openBody(mux);
    open.client.send(...frames);
    expect(await verdict(open.client)).toEqual({ goaway, reset });
    if (goaway !== undefined) await open.client.untilClosed();
    open.body.sink.write(Buffer.alloc(100));
    expect(open.client.judge.violations).toEqual([]);
    expect(open.client.stream(1).length).toBe(1_000);
  });

  it.each(wrongHeads)("that $what is answered without waiting for the rest", async ({ frames, goaway }) => {
    await using open = await openBody(mux);
    for (const bytes of frames) open.client.sendRaw(bytes);
    expect(await verdict(open.client)).toEqual({ goaway, reset: undefined });
  });

  it("that begins with something else than settings is refused", async () => {
    await using server = await startBodyServer({ mux });
    const { once } = await import("node:events");
    const { connect } = await import("node:net");
    const { FrameReader, preface } = await import("../../support/h2/frames.ts");
    const socket = connect(server.port, "127.0.0.1");
    const chunks: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.write(Buffer.concat([preface, windowUpdate(0, 1), settings({})]));
    await once(socket, "close");
    const goaway = new FrameReader().push(Buffer.concat(chunks)).find((each) => each.type === type.goaway);
    expect(goaway?.payload.readUInt32BE(4)).toBe(errorCode.protocol);
  });

  it("that is sent away while a stream of its is reset learns why", async () => {
    await using server = await startBodyServer({
      mux,
      answer(received, response) {
        received.resume();
        if (received.url !== "/stuck") return false;
        response.end(Buffer.alloc(10_000));
        return true;
      },
    });
    await using client = await connectFrames(server.port, { streamWindow: 3_000 });
    client.request(1, "/a", { end: false });
    client.request(3, "/stuck", { end: false });
    const body = await server.opened("/a");
    body.sink.end(Buffer.alloc(2_000), [["grpc-status", "0"]]);
    await client.until(() => client.stream(1).ended && client.stream(3).length === 3_000);
    client.send(settings({ maxFrameSize: 1 }));
    await client.untilClosed();
    expect(client.goaway).toEqual({ lastId: 3, code: errorCode.protocol });
  });

  it("that pads, and sends what nobody knows, is understood", async () => {
    await using open = await openBody(mux);
    const padded = Buffer.concat([Buffer.from([4]), Buffer.from("body"), Buffer.alloc(4)]);
    open.client.send(
      frame(0xbe, 0xff, 1, Buffer.alloc(40)),
      frame(type.data, flags.padded, 1, padded),
      frame(0xef, 0, 0, Buffer.alloc(9)),
      frame(type.priority, 0, 1, Buffer.from([0, 0, 0, 0, 10])),
      data(1, Buffer.from("!"), true),
    );
    const { request: received } = open.body;
    expect(Buffer.concat(await received.toArray()).toString()).toBe("body!");
    open.body.sink.end(Buffer.from("x"), [["grpc-status", "0"]]);
    await open.client.until(() => open.client.stream(1).ended);
    expect(open.client.judge.violations).toEqual([]);
  });

  it("that resets streams as fast as it opens them is sent away", async () => {
    await using server = await startBodyServer({ mux });
    await using client = await connectFrames(server.port);
    for (let id = 1; id < 2_400 && !client.closed; id += 2) {
      client.send(request(id, "/a"), rstStream(id, errorCode.cancel));
    }
    await client.untilClosed();
    expect(client.goaway?.code ?? errorCode.internal).not.toBe(errorCode.none);
  });

  it.each([
    { what: "pings", flood: ping("flood") },
    { what: "settings", flood: settings({ initialWindowSize: 65_535 }) },
  ])("that floods with $what and reads no answer is cut off", async ({ flood }) => {
    await using server = await startBodyServer({ mux });
    await using client = await connectFrames(server.port);
    await client.settled();
    client.pause();
    const session = server.sessions[0];
    const closed = new Promise<void>((resolve) => session?.once("close", () => resolve()));
    let over = false;
    void closed.then(() => {
      over = true;
    });
    const many = Buffer.concat(Array.from({ length: 4_000 }, () => flood));
    while (!over) {
      client.sendRaw(many);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await closed;
    expect(session?.destroyed).toBe(true);
  });
});

describe("a peer that stays within what windows can hold", () => {
  it("is not taken for one that does not, although the session does not know what was sent beside it", async () => {
    await using open = await openBody(true);
    const { client, body } = open;
    // Near the most there is, then used, then raised by less than was used.
    client.send(windowUpdate(1, 300_000), windowUpdate(0, 2_000_000));
    // In one write, so that the session knows of it before the body is handed over.
    client.send(request(3, "/c"), windowUpdate(3, MAX - 65_535));
    const late = await open.server.opened("/c");
    late.sink.write(Buffer.alloc(100_000));
    await client.until(() => client.stream(3).length === 100_000);
    client.send(settings({ initialWindowSize: 65_535 + 90_000 }));
    client.request(5, "/d");
    const last = await open.server.opened("/d");
    last.sink.end(Buffer.alloc(155_535), undefined);
    await client.until(() => client.stream(5).ended);
    late.sink.end(Buffer.alloc(10), undefined);
    await client.until(() => client.stream(3).ended);
    body.sink.end(undefined, undefined);
    await client.until(() => client.stream(1).ended);
    expect(client.goaway).toBeUndefined();
    expect(client.judge.violations).toEqual([]);
  });
});
