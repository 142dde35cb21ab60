import { once } from "node:events";
import { request as requestHttp1 } from "node:http";
import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2 } from "node:http2";
import { create, type MessageInitShape, toBinary, toJsonString } from "@bufbuild/protobuf";
import { SubscribeRequestSchema } from "../../../gen/millrace/v1/feed_service_pb.js";

/** A protocol and a codec, over a version of HTTP. */
export interface Shape {
  readonly http: "1.1" | "2";
  readonly contentType: string;
}

/** Everything that a client may choose. */
export const shapes: readonly Shape[] = (["2", "1.1"] as const).flatMap((http) =>
  ["grpc", "grpc-web", "connect"].flatMap((protocol) =>
    ["proto", "json"].map((codec) => ({ http, contentType: `application/${protocol}+${codec}` })),
  ),
);

/** What a server answered, to the byte. */
export interface RawAnswer {
  readonly status: number;
  readonly headers: readonly (readonly [string, string])[];
  readonly body: Buffer;
  readonly trailers: readonly (readonly [string, string])[];
  /** How an HTTP/2 stream was closed; 0 is as it should be. */
  readonly reset: number;
}

export const subscribePath = "/millrace.v1.FeedService/Subscribe";

/** A request in its envelope, in the codec of the content type. */
export function envelope(contentType: string, request: MessageInitShape<typeof SubscribeRequestSchema>): Buffer {
  const message = create(SubscribeRequestSchema, request);
  const data = contentType.endsWith("+json")
    ? Buffer.from(toJsonString(SubscribeRequestSchema, message))
    : Buffer.from(toBinary(SubscribeRequestSchema, message));
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(data.length, 1);
  return Buffer.concat([prefix, data]);
}

/** Makes the call and takes all of the answer. */
export function call(
  url: string,
  shape: Shape,
  body: Buffer,
  headers: Readonly<Record<string, string>> = {},
): Promise<RawAnswer> {
  const all = { "content-type": shape.contentType, te: "trailers", ...headers };
  return shape.http === "2" ? callHttp2(url, body, all) : callHttp1(url, body, all);
}

async function callHttp1(url: string, body: Buffer, headers: Readonly<Record<string, string>>): Promise<RawAnswer> {
  const sent = requestHttp1(url + subscribePath, { method: "POST", headers });
  sent.end(body);
  const [answer] = await once(sent, "response");
  const chunks: Buffer[] = [];
  for await (const chunk of answer) chunks.push(chunk);
  return {
    status: answer.statusCode,
    headers: pairs(answer.rawHeaders),
    body: Buffer.concat(chunks),
    trailers: pairs(answer.rawTrailers),
    reset: 0,
  };
}

async function callHttp2(url: string, body: Buffer, headers: Readonly<Record<string, string>>): Promise<RawAnswer> {
  const session = connectHttp2(url);
  session.on("error", () => undefined);
  try {
    return await takeAnswer(openCall(session, body, headers));
  } finally {
    session.destroy();
  }
}

/** One call of a session. */
export function openCall(
  session: ClientHttp2Session,
  body: Buffer,
  headers: Readonly<Record<string, string>>,
): ClientHttp2Stream {
  const stream = session.request({ ":method": "POST", ":path": subscribePath, ...headers });
  stream.on("error", () => undefined);
  stream.end(body);
  return stream;
}

async function takeAnswer(stream: ClientHttp2Stream): Promise<RawAnswer> {
  const chunks: Buffer[] = [];
  const trailers: (readonly [string, string])[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  stream.on("trailers", (_fields, _flags, raw: string[]) => trailers.push(...pairs(raw)));
  const responded = new Promise<{ status: number; headers: readonly (readonly [string, string])[] }>((resolve) => {
    stream.on("response", (fields, _flags, raw: string[]) =>
      resolve({ status: Number(fields[":status"]), headers: pairs(raw) }),
    );
  });
  await new Promise((resolve) => stream.once("close", resolve));
  return { ...(await responded), body: Buffer.concat(chunks), trailers, reset: stream.rstCode ?? 0 };
}

function pairs(raw: readonly string[]): readonly (readonly [string, string])[] {
  return raw.flatMap((name, index) => {
    const value = raw[index + 1] ?? "";
    return index % 2 === 1 ? [] : [[name, name.toLowerCase() === "date" ? "" : value] as const];
  });
}
