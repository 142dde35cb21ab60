import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { describe, expect, it, vi } from "vitest";
import { ErrorCode, ErrorDetailSchema } from "../../../gen/millrace/v1/error_pb.js";
import { Operation, PayloadOmitted, Transition } from "../../../gen/millrace/v1/event_pb.js";
import {
  ClosingReason,
  FeedService,
  GapReason,
  PolicyKind,
  type SubscribeResponse,
} from "../../../gen/millrace/v1/feed_service_pb.js";
import { createFeed, type FeedOptions } from "../../../src/core/feed/feed-service.ts";
import { createMemoryStore, type MemoryStore } from "../../../src/memory/store.ts";
import { type Served, type ServedOptions, serve, transports } from "./served.ts";

type Request = Parameters<ReturnType<typeof createClient<typeof FeedService>>["subscribe"]>[0];
type Frame = SubscribeResponse["frame"];

async function serveMemory(feedOptions: Partial<FeedOptions> = {}, options: ServedOptions = {}) {
  const store = createMemoryStore({ sources: ["orders"] });
  const feed = createFeed({ store, wakeUp: store.wakeUp, ...feedOptions });
  await feed.start(new AbortController().signal);
  const served = await serve(feed, options);
  return { store, feed, served, [Symbol.asyncDispose]: () => served[Symbol.asyncDispose]() };
}

/** One transaction of messages with these keys. */
function emit(store: MemoryStore, keys: readonly string[], payload = "{}"): void {
  const transaction = store.begin();
  for (const key of keys) {
    transaction.emit({ topic: "notes", key, operation: "UPDATE", payload, headers: {} });
  }
  transaction.commit();
}

/** Reads until the condition holds, then cancels the call. */
async function readUntil(
  served: Served,
  create: (typeof transports)[number]["create"],
  request: Request,
  done: (frames: readonly Frame[]) => boolean,
): Promise<readonly Frame[]> {
  const cancel = new AbortController();
  const frames: Frame[] = [];
  try {
    const stream = createClient(FeedService, create(served.url)).subscribe(request, { signal: cancel.signal });
    for await (const { frame } of stream) {
      frames.push(frame);
      if (done(frames)) break;
    }
  } finally {
    cancel.abort();
  }
  return frames;
}

const eventsOf = (frames: readonly Frame[]) =>
  frames.flatMap((frame) => (frame.case === "events" ? frame.value.events : []));
const versionsOf = (frames: readonly Frame[]) => eventsOf(frames).map(({ version }) => Number(version));
const oldest: Pick<Request & object, "start"> = { start: { case: "oldest", value: {} } };

describe.each(transports)("a policy by $name", ({ create }) => {
  it("G10 says in a gap what it leaves out, before what it keeps, and goes on from the gap's cursor", async () => {
    await using memory = await serveMemory();
    for (let n = 0; n < 100; n++) emit(memory.store, ["a", "b", "c"]);
    await vi.waitUntil(() => memory.feed.status().head === 300);
    const delivery = { policy: { kind: PolicyKind.LATEST, maxLagEvents: 100n } };
    const whole = (frames: readonly Frame[]) => versionsOf(frames).at(-1) === 300;
    const frames = await readUntil(memory.served, create, { ...oldest, delivery }, whole);
    const [, gap, batch] = frames;
    expect(gap).toMatchObject({
      case: "gap",
      value: { firstVersion: 1n, lastVersion: 300n, dropped: 297n, reason: GapReason.LATEST },
    });
    expect(batch).toMatchObject({ case: "events", value: { complete: true } });
    expect(versionsOf(frames)).toEqual([298, 299, 300]);
    const afterCursor = gap?.case === "gap" ? gap.value.cursor : "";
    const resumed = await readUntil(
      memory.served,
      create,
      { start: { case: "afterCursor", value: afterCursor } },
      whole,
    );
    expect(resumed.map((frame) => frame.case)).toEqual(["opened", "events"]);
    expect(versionsOf(resumed)).toEqual([298, 299, 300]);
  });

  it("G8 G9 of DISCONNECT ends a client that does not read, with a cursor for when it does", async () => {
    await using memory = await serveMemory({ limits: { maxStreamBytes: 65_536 } });
    const delivery = { policy: { kind: PolicyKind.DISCONNECT, maxLagEvents: 20n }, batch: { maxEvents: 1 } };
    const call = new AbortController();
    const stream = createClient(FeedService, create(memory.served.url)).subscribe({ ...oldest, delivery }, call);
    const iterator = stream[Symbol.asyncIterator]();
    const frames: Frame[] = [(await iterator.next()).value?.frame ?? never()];
    const payload = JSON.stringify("x".repeat(100_000));
    for (let n = 0; n < 150; n++) emit(memory.store, ["a"], payload);
    await vi.waitUntil(() => memory.feed.status().streams === 0, { timeout: 10_000 });
    const error = await (async () => {
      try {
        for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) {
          frames.push(next.value.frame);
        }
        return undefined;
      } catch (failure) {
        return ConnectError.from(failure);
      }
    })();
    expect(error?.code).toBe(Code.ResourceExhausted);
    const [detail] = error?.findDetails(ErrorDetailSchema) ?? [];
    expect(detail?.code).toBe(ErrorCode.SLOW_CONSUMER);
    const start = { case: "afterCursor", value: detail?.cursor ?? "" } as const;
    const resumed = await readUntil(memory.served, create, { start }, (seen) => versionsOf(seen).at(-1) === 150);
    const all = Array.from({ length: 150 }, (_, i) => i + 1);
    expect([...versionsOf(frames), ...versionsOf(resumed)]).toEqual(all);
  });

  it("G8 ends streams at their age, and tells it beforehand", async () => {
    await using memory = await serveMemory({ maxStreamAgeMs: 500 }, { config: { maxStreamAgeMs: 500 } });
    emit(memory.store, ["a"]);
    const frames = await readUntil(memory.served, create, oldest, (seen) => seen.at(-1)?.case === "closing");
    expect(frames[0]?.case === "opened" && frames[0].value.maxAge).toMatchObject({ seconds: 0n, nanos: 500_000_000 });
    const last = frames.at(-1);
    expect(last?.case === "closing" && last.value).toMatchObject({ reason: ClosingReason.MAX_AGE });
    expect(last?.case === "closing" && last.value.cursor).not.toBe("");
  });

  it("obeys limits of batches and rates, and tells the terms in force", async () => {
    await using memory = await serveMemory();
    emit(
      memory.store,
      Array.from({ length: 30 }, () => "a"),
    );
    await vi.waitUntil(() => memory.feed.status().head === 30);
    const delivery = {
      batch: { maxEvents: 4, maxBytes: 8_192, maxDelay: { nanos: 5_000_000 } },
      maxEventsPerSecond: 25,
      checkpointEveryTick: true,
    };
    const all = (frames: readonly Frame[]) => eventsOf(frames).length === 30 && frames.at(-1)?.case === "checkpoint";
    const frames = await readUntil(memory.served, create, { ...oldest, delivery }, all);
    const batches = frames.flatMap((frame) => (frame.case === "events" ? [frame.value.events.length] : []));
    expect(Math.max(...batches)).toBe(4);
    expect(frames[0]?.case === "opened" && frames[0].value.delivery).toMatchObject({
      ...delivery,
      policy: { kind: PolicyKind.BLOCK, maxLagEvents: 0n, sampleEvery: 0 },
      checkpointInterval: { seconds: 15n },
    });
    expect(frames.filter((frame) => frame.case === "checkpoint").length).toBe(1);
  });

  it("fills in the defaults of a policy", async () => {
    await using memory = await serveMemory();
    const delivery = { policy: { kind: PolicyKind.SAMPLE } };
    const [opened] = await readUntil(memory.served, create, { delivery }, (seen) => seen.length === 1);
    expect(opened?.case === "opened" && opened.value.delivery?.policy).toMatchObject({
      kind: PolicyKind.SAMPLE,
      maxLagEvents: 10_000n,
      sampleEvery: 10,
    });
  });
});

describe("terms of delivery", () => {
  const [{ create } = never()] = transports;

  it.each([
    ["delivery.policy.sample_every", { policy: { kind: PolicyKind.SAMPLE, sampleEvery: 1 } }],
    ["delivery.policy.max_lag_events", { policy: { kind: PolicyKind.LATEST, maxLagEvents: 1_000_000_001n } }],
    ["delivery.policy.kind", { policy: { kind: 99 as PolicyKind } }],
    ["delivery.batch.max_bytes", { batch: { maxBytes: 100 } }],
    ["delivery.batch.max_delay", { batch: { maxDelay: { seconds: 61n } } }],
  ])("are refused where %s is wrong", async (field, delivery) => {
    await using memory = await serveMemory();
    const error = await readUntil(memory.served, create, { delivery }, () => true).catch(ConnectError.from);
    expect(error).toBeInstanceOf(ConnectError);
    const [detail] = error instanceof ConnectError ? error.findDetails(ErrorDetailSchema) : [];
    expect(detail).toMatchObject({ code: ErrorCode.INVALID_REQUEST, violations: [{ field }] });
  });

  it("G1 an event that is too large for its client goes without payload, and never stalls the stream", async () => {
    await using memory = await serveMemory();
    const large = JSON.stringify({ id: 1, open: true, text: "x".repeat(10_000) });
    const left = JSON.stringify({ id: 1, open: false, text: "y".repeat(10_000) });
    for (const json of [large, left, '{"id":2,"open":true}']) {
      const transaction = memory.store.begin();
      await transaction.put("orders", json.includes('"id":2') ? "2" : "1", json);
      transaction.commit();
    }
    const read = async (selector: { filter?: string; fields?: string[] }, count: number) => {
      const request = { ...oldest, maxMessageBytes: 4_096, selectors: [selector] };
      return eventsOf(await readUntil(memory.served, create, request, (seen) => eventsOf(seen).length === count));
    };
    const { TOO_LARGE, UNSPECIFIED } = PayloadOmitted;
    const omitted = ({ payloadOmitted }: { payloadOmitted: PayloadOmitted }) => payloadOmitted;
    expect((await read({}, 3)).map(omitted)).toEqual([TOO_LARGE, TOO_LARGE, UNSPECIFIED]);
    const rows = await read({ filter: "row.open" }, 3);
    expect(rows.map(omitted)).toEqual([TOO_LARGE, UNSPECIFIED, UNSPECIFIED]);
    expect(rows[1]).toMatchObject({ operation: Operation.UPDATE, transition: Transition.LEFT, key: "1" });
    const cut = await read({ filter: "row.open", fields: ["id"] }, 3);
    expect(cut.map(omitted)).toEqual([UNSPECIFIED, UNSPECIFIED, UNSPECIFIED]);
    expect(cut[0]?.after?.form.value).toBe('{"id":1}');
  });
});

function never(): never {
  throw new Error("no such thing");
}
