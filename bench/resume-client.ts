// Ten thousand streams in a process of their own: they note where they stand, and when the server is gone they wait to be
// told where it is, and all go on at once. Driven by messages: see `Order` and `Answer`.
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from "node:http2";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { SubscribeRequestSchema, SubscribeResponseSchema } from "../gen/millrace/v1/feed_service_pb.js";

/** `start` opens every stream at a position of its own; `resume` after its last cursor. */
export type Order =
  | { readonly kind: "start"; readonly port: number; readonly streams: number; readonly connections: number }
  | { readonly kind: "resume"; readonly port: number; readonly marker: string; readonly firstVersions?: Versions }
  | { readonly kind: "end" };

/** Positions by chance, from `from` to `to`: for streams that are to begin elsewhere than where they were. */
export interface Versions {
  readonly from: number;
  readonly to: number;
}

/** `at` is when the last stream had it, by the wall clock in milliseconds. */
export type Answer =
  | { readonly kind: "open"; readonly atMs: number }
  | { readonly kind: "live"; readonly atMs: number; readonly halfAtMs: number; readonly events: number }
  | { readonly kind: "failed"; readonly reason: string };

/** The topic that the streams are for. */
export const topic = "bench.few";

interface Resumed {
  cursor: string;
  version: number;
  live: boolean;
}

let resumed: Resumed[] = [];
let sessions: ClientHttp2Session[] = [];
let connections = 1;
let open = 0;
let live = 0;
let events = 0;
let halfAtMs = 0;
let marker: Buffer | undefined;
let ending = false;

const tell = (answer: Answer): void => void process.send?.(answer);
const fail = (reason: string) => {
  if (!ending) tell({ kind: "failed", reason });
  ending = true;
};

process.on("message", (order: Order) => {
  if (order.kind === "start") {
    connections = order.connections;
    resumed = Array.from({ length: order.streams }, () => ({ cursor: "", version: 0, live: true }));
    openAll(order.port, undefined);
  } else if (order.kind === "resume") {
    marker = Buffer.from(order.marker);
    [open, live, events] = [0, 0, 0];
    for (const stream of resumed) stream.live = false;
    openAll(order.port, order.firstVersions);
  } else {
    ending = true;
    for (const session of sessions) session.destroy();
    process.disconnect?.();
  }
});

function openAll(port: number, versions: Versions | undefined): void {
  for (const session of sessions) session.destroy();
  sessions = Array.from({ length: connections }, () => {
    const session = connect(`http://127.0.0.1:${port}`, {
      settings: { initialWindowSize: 1024 * 1024 },
      maxSessionMemory: 1000,
    });
    session.on("connect", () => session.setLocalWindowSize(16 * 1024 * 1024));
    // Killed servers are expected.
    session.on("error", () => undefined);
    return session;
  });
  resumed.forEach((stream, index) => {
    const session = sessions[index % connections];
    if (session !== undefined) subscribe(session, stream, versions);
  });
}

function subscribe(session: ClientHttp2Session, stream: Resumed, versions: Versions | undefined): void {
  const version =
    versions === undefined ? 0 : versions.from + Math.floor(Math.random() * (versions.to - versions.from));
  if (versions !== undefined) stream.version = version;
  const body = toBinary(
    SubscribeRequestSchema,
    create(SubscribeRequestSchema, {
      start:
        versions !== undefined
          ? { case: "afterVersion", value: BigInt(version) }
          : stream.cursor === ""
            ? { case: "now", value: {} }
            : { case: "afterCursor", value: stream.cursor },
      selectors: [{ topics: [topic] }],
      delivery: { checkpointInterval: { seconds: 60n } },
    }),
  );
  const call = session.request({
    ":method": "POST",
    ":path": "/millrace.v1.FeedService/Subscribe",
    "content-type": "application/grpc+proto",
    te: "trailers",
  });
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  call.end(Buffer.concat([head, body]));
  listen(call, stream);
}

function listen(call: ClientHttp2Stream, stream: Resumed): void {
  let held: Buffer = Buffer.alloc(0);
  call.on("data", (chunk: Buffer) => {
    held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    while (held.length >= 5 && held.length >= 5 + held.readUInt32BE(1)) {
      const end = 5 + held.readUInt32BE(1);
      take(stream, held.subarray(5, end));
      held = held.subarray(end);
    }
  });
  const note = (headers: Readonly<Record<string, unknown>>) => {
    const status = headers["grpc-status"];
    if (status !== undefined && status !== "0")
      fail(`grpc-status ${String(status)}: ${String(headers["grpc-message"])}`);
  };
  call.on("response", note);
  call.on("trailers", note);
  call.on("error", (error) => {
    const { rstCode } = call;
    if (rstCode !== constants.NGHTTP2_CANCEL && rstCode !== constants.NGHTTP2_NO_ERROR && !stream.live)
      fail(String(error));
  });
}

function take(stream: Resumed, bytes: Uint8Array): void {
  const { frame } = fromBinary(SubscribeResponseSchema, bytes);
  if (frame.case === "opened") {
    open += 1;
    if (stream.cursor === "") stream.cursor = frame.value.cursor;
    if (open === resumed.length) tell({ kind: "open", atMs: Date.now() });
  } else if (frame.case === "checkpoint") {
    stream.cursor = frame.value.cursor;
  } else if (frame.case === "events") {
    stream.cursor = frame.value.cursor;
    for (const event of frame.value.events) {
      const version = Number(event.version);
      if (version <= stream.version) fail(`version ${version} after ${stream.version}`);
      stream.version = version;
      events += 1;
      const { after } = event;
      if (
        marker !== undefined &&
        !stream.live &&
        after?.form.case === "json" &&
        marker.equals(Buffer.from(after.form.value))
      ) {
        stream.live = true;
        live += 1;
        if (live * 2 === resumed.length) halfAtMs = Date.now();
        if (live === resumed.length) tell({ kind: "live", atMs: Date.now(), halfAtMs, events });
      }
    }
  } else if (frame.case === "closing") {
    fail("the server says that it closes");
  }
}
