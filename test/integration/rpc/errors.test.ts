import { readFile } from "node:fs/promises";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { ErrorCode, type ErrorDetail, ErrorDetailSchema } from "../../../gen/millrace/v1/error_pb.js";
import { FeedService } from "../../../gen/millrace/v1/feed_service_pb.js";
import { FeedError, type FeedErrorCode, type FeedErrorDetail } from "../../../src/core/errors.ts";
import { errorTable } from "../../../src/rpc/errors.ts";
import { createScriptedFeed, opened, untilAborted } from "./scripted-feed.ts";
import { serve, transports } from "./served.ts";

const codes = Object.keys(errorTable).filter((name): name is FeedErrorCode => name in errorTable);
const detail: FeedErrorDetail = {
  epoch: "0b61a2d6-7c0c-4b5e-9d52-4c1f3d0e7a11",
  oldestVersion: 3,
  headVersion: 9_007_199_254_740_991,
  cursor: "AQID",
  retryAfterMs: 1_500,
  violations: [{ field: "selectors[0].topics[1]", message: "must be a pattern" }],
  filter: { selector: 1, line: 2, column: 3 },
};

function failing(error: unknown) {
  return createScriptedFeed({
    async *frames() {
      yield* [];
      throw error;
    },
    publish: () => Promise.reject(error),
  });
}

async function failureOf(call: Promise<unknown>): Promise<{ error: ConnectError; detail: ErrorDetail | undefined }> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof ConnectError)) throw new Error(`expected a ConnectError, got ${String(error)}`);
  return { error, detail: error.findDetails(ErrorDetailSchema)[0] };
}

async function firstFrame(frames: AsyncIterable<unknown>): Promise<unknown> {
  for await (const frame of frames) return frame;
  return undefined;
}

const publishable = { events: [{ topic: "orders" }] };

describe.each(transports)("errors by $name", ({ create }) => {
  it.each(codes)("%s arrives with code, sentence, action and everything that lets the client go on", async (code) => {
    await using served = await serve(failing(new FeedError(code, "Something is so.", "Do something else.", detail)));
    const client = createClient(FeedService, create(served.url));
    for (const call of [firstFrame(client.subscribe({})), client.publish(publishable)]) {
      const failure = await failureOf(call);
      expect(failure.error.code).toBe(errorTable[code].connect);
      expect(failure.error.rawMessage).toBe("Something is so. Do something else.");
      expect(failure.detail).toMatchObject({
        code: errorTable[code].wire,
        action: "Do something else.",
        epoch: detail.epoch,
        oldestVersion: 3n,
        headVersion: 9_007_199_254_740_991n,
        filterPosition: { selector: 1, line: 2, column: 3 },
        cursor: "AQID",
        retryAfter: { seconds: 1n, nanos: 500_000_000 },
        violations: [{ field: "selectors[0].topics[1]", message: "must be a pattern" }],
      });
    }
  });

  it("a stream that is cut after its grace says DRAINING, and where to go on", async () => {
    await using served = await serve(
      createScriptedFeed({
        async *frames(_request, signal) {
          yield opened;
          await untilAborted(signal);
        },
      }),
    );
    const frames = createClient(FeedService, create(served.url)).subscribe({})[Symbol.asyncIterator]();
    const first = await frames.next();
    const stopped = served.server.stop(0);
    const failure = await failureOf(frames.next());
    expect(failure.error.code).toBe(Code.Unavailable);
    const { frame } = first.value ?? {};
    expect(failure.detail).toMatchObject({
      code: ErrorCode.DRAINING,
      cursor: frame?.case === "opened" ? frame.value.cursor : "no cursor",
      retryAfter: { seconds: 1n },
    });
    await stopped;
  });

  it("an unforeseen failure tells the client nothing of our insides, and the log everything", async () => {
    await using served = await serve(failing(new TypeError("password hunter2 is not a function")));
    const client = createClient(FeedService, create(served.url));
    for (const call of [firstFrame(client.subscribe({})), client.publish(publishable)]) {
      const failure = await failureOf(call);
      expect(failure.error.code).toBe(Code.Internal);
      expect(failure.error.message).not.toContain("hunter2");
      expect(failure.detail?.code).toBe(ErrorCode.INTERNAL);
    }
    const lines = served.logged.filter((line) => line.level === 50);
    // Both calls were made at once.
    expect(lines.map((line) => String(line.procedure)).toSorted()).toEqual([
      "millrace.v1.FeedService/Publish",
      "millrace.v1.FeedService/Subscribe",
    ]);
    expect(JSON.stringify(lines)).toContain("hunter2");
  });

  it("a failure in the middle of a stream comes after the frames before it", async () => {
    const feed = createScriptedFeed({
      async *frames() {
        yield opened;
        throw new FeedError("HISTORY_LOST", "It is gone.", "Start from `oldest`.", { oldestVersion: 3 });
      },
    });
    await using served = await serve(feed);
    const frames: (string | undefined)[] = [];
    const failure = await failureOf(
      (async () => {
        for await (const { frame } of createClient(FeedService, create(served.url)).subscribe({})) {
          frames.push(frame.case);
        }
      })(),
    );
    expect(frames).toEqual(["opened"]);
    expect(failure.detail).toMatchObject({ code: ErrorCode.HISTORY_LOST, oldestVersion: 3n });
  });
});

describe("the closed set of errors", () => {
  const enumNames = Object.values(ErrorCode).filter((name): name is string => typeof name === "string");

  it("is the wire's enum, code by code", () => {
    expect(codes.toSorted()).toEqual(enumNames.filter((name) => name !== "UNSPECIFIED").toSorted());
    for (const code of codes) expect(ErrorCode[errorTable[code].wire]).toBe(code);
  });

  it("always says when to come back where coming back is all there is to do", async () => {
    for (const code of ["DRAINING", "DATABASE_UNAVAILABLE"] as const) {
      await using served = await serve(failing(new FeedError(code, "Not now.", "Try again.")));
      const client = createClient(FeedService, transports[0]?.create(served.url) ?? raise());
      const failure = await failureOf(client.publish(publishable));
      expect(failure.detail?.retryAfter?.seconds).toBeGreaterThan(0n);
    }
  });

  it("is documented in docs/errors.md: every code there is one of ours, and every one of ours is there", async () => {
    const text = await readFile(new URL("../../../docs/errors.md", import.meta.url), "utf8");
    const sections = [...text.matchAll(/^## ([A-Z_]+)\n([\s\S]*?)(?=^## |$(?![\s\S]))/gm)];
    expect(sections.map(([, name]) => name).toSorted()).toEqual(codes.toSorted());
    for (const [, name, body] of sections) {
      const code = codes.find((one) => one === name) ?? raise();
      const connect = Code[errorTable[code].connect].replace(/(?<=.)([A-Z])/g, "_$1").toLowerCase();
      expect(body, name).toContain(`\`${connect}\``);
      expect(body, name).toContain(`gRPC ${errorTable[code].connect}`);
      for (const part of ["**Cause**", "**What to do**", "**Detail**"]) expect(body, name).toContain(part);
      const fields = ErrorDetailSchema.fields.map((field) => field.name);
      const [, line] = /\*\*Detail\*\*:? (.*)/.exec(body ?? "") ?? [];
      const named = [...(line ?? "").matchAll(/`([a-z_]+)`/g)].map(([, field]) => field);
      expect(named.filter((field) => !fields.includes(field ?? ""))).toEqual([]);
      expect(named).toEqual(documentedFields(await errorProto(), code));
    }
  });
});

/** The proto says of each field of the detail which codes carry it; `code` and `action` every one does. */
function documentedFields(proto: string, code: FeedErrorCode): string[] {
  const message = /message ErrorDetail \{([\s\S]*?)\n\}/.exec(proto)?.[1] ?? "";
  return [...message.matchAll(/((?:\s*\/\/.*\n)+)\s*(?:optional |repeated )?[\w.]+ (\w+) = \d+;/g)].flatMap(
    ([, comment, field]) => (new RegExp(`\\b${code}\\b`).test(comment ?? "") ? [field ?? ""] : []),
  );
}

function errorProto(): Promise<string> {
  return readFile(new URL("../../../proto/millrace/v1/error.proto", import.meta.url), "utf8");
}

function raise(): never {
  throw new Error("unreachable");
}
