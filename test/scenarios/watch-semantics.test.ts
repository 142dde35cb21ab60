import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Stage } from "../integration/guarantees/stage.ts";
import type { SeenFrame } from "../support/checker/seen.ts";
import type { Recorder } from "../support/recorder/recorder.ts";

const STARTS = ["now", "oldest", "version", "snapshot"] as const;
const CHECKPOINTS = ["at every tick", "off"] as const;
const FILTERS = ["matches nothing", "matches all"] as const;

/** What is there before the streams begin, one transaction each; and what comes after that. */
const BEFORE = 3;
const ALL = 6;
/** `version` begins after this. */
const AFTER_VERSION = 2;

const CASES = STARTS.flatMap((start) =>
  CHECKPOINTS.flatMap((checkpoints) => FILTERS.map((filter) => ({ start, checkpoints, filter }))),
);
type Case = (typeof CASES)[number];
const nameOf = ({ start, checkpoints, filter }: Case) =>
  `${start}, checkpoints ${checkpoints}, a filter that ${filter}`;

const REQUESTS: Readonly<Record<Case["start"], Readonly<Record<string, unknown>>>> = {
  now: { now: {} },
  oldest: { oldest: {} },
  version: { after_version: AFTER_VERSION },
  snapshot: { snapshot: {} },
};

/** What is received, in its order, as short words. */
function expected({ start, checkpoints, filter }: Case): readonly string[] {
  const first = { now: BEFORE, oldest: 0, version: AFTER_VERSION, snapshot: BEFORE }[start];
  const matches = filter === "matches all";
  const rows = matches ? ["row 1", "row 2", "row 3"] : [];
  const snapshot = start === "snapshot" ? [`started ${BEFORE}`, ...rows, `complete ${BEFORE} of ${rows.length}`] : [];
  const ticks = Array.from({ length: ALL - first }, (_, at) => first + 1 + at);
  const events = ticks.flatMap((version) => [
    ...(matches ? [`event ${version}`] : []),
    ...(checkpoints === "off" ? [] : [`checkpoint ${version}`]),
  ]);
  return [`opened ${first}`, ...snapshot, ...events, "closing"];
}

function wordsOf(frame: SeenFrame): readonly string[] {
  switch (frame.kind) {
    case "events":
      return frame.events.map(({ operation, version, key }) =>
        operation === "SNAPSHOT" ? `row ${key}` : `event ${version}`,
      );
    case "snapshot_started":
      return [`started ${frame.version}`];
    case "snapshot_complete":
      return [`complete ${frame.version} of ${frame.rows}`];
    case "closing":
      return ["closing"];
    case "gap":
      return [`gap ${frame.firstVersion} to ${frame.lastVersion}`];
    default:
      return [`${frame.kind} ${frame.version}`];
  }
}

let stage: Stage;
const received = new Map<string, readonly SeenFrame[]>();

/** Inserts rows one by one: each is settled, in a tick of its own, before the next. */
async function insert(from: number, to: number, witness: Recorder): Promise<void> {
  for (let id = from; id <= to; id += 1) {
    await stage.sql(`insert into orders values (${id}, 'x')`);
    await witness.untilVersion(id);
  }
}

describe("Kubernetes' watch semantics", () => {
  beforeAll(async () => {
    stage = await Stage.open();
    await stage.sql("create table orders (id int primary key, text text)");
    await stage.sql("select millrace.watch('orders')");
    const server = await stage.server();
    const port = () => server.port;
    const witness = await stage.client({ client: "witness", port, start: { oldest: {} } });
    await insert(1, BEFORE, witness);
    const clients = await Promise.all(
      CASES.map(async (each) => {
        const selectors = each.filter === "matches all" ? [] : [{ topics: ["nobody"] }];
        const delivery = { checkpoint_every_tick: each.checkpoints !== "off", checkpoint_interval: { seconds: 300 } };
        const request = { selectors, delivery };
        return {
          each,
          recorder: await stage.client({ client: nameOf(each), port, start: REQUESTS[each.start], request }),
        };
      }),
    );
    await Promise.all(clients.map(({ each, recorder }) => untilBegun(each, recorder)));
    await insert(BEFORE + 1, ALL, witness);
    await Promise.all(clients.map(({ each, recorder }) => untilWhole(each, recorder)));
    await server.terminate();
    for (const { each, recorder } of clients) {
      const { calls } = await recorder.stop();
      received.set(nameOf(each), calls[0]?.frames ?? []);
    }
  }, 120_000);

  afterAll(() => stage[Symbol.asyncDispose]());

  it.each(CASES.map((each) => ({ name: nameOf(each), each })))("G8, G10 $name", ({ name, each }) => {
    expect((received.get(name) ?? []).flatMap(wordsOf)).toEqual(expected(each));
  });

  it("sees a checkpoint that stands still, one that is missing, and an event out of its place", () => {
    const each: Case = { start: "oldest", checkpoints: "at every tick", filter: "matches all" };
    const words = (received.get(nameOf(each)) ?? []).flatMap(wordsOf);
    const [opened = "", event = "", checkpoint = "", ...rest] = words;
    expect(words).toEqual(expected(each));
    expect([opened, event, "checkpoint 0", ...rest]).not.toEqual(expected(each));
    expect([opened, event, ...rest]).not.toEqual(expected(each));
    expect([opened, checkpoint, event, ...rest]).not.toEqual(expected(each));
  });
});

/** A snapshot is as of the moment that it is taken: nothing is to be written before. */
async function untilBegun({ start }: Case, recorder: Recorder): Promise<void> {
  const frames = () => recorder.recording.calls.flatMap((call) => call.frames);
  const begun = (frame: SeenFrame) => frame.kind === "snapshot_complete";
  if (start === "snapshot" && !frames().some(begun)) await recorder.until(begun);
}

async function untilWhole({ checkpoints, filter }: Case, recorder: Recorder): Promise<void> {
  if (checkpoints === "off" && filter === "matches nothing") return;
  const frames = () => recorder.recording.calls.flatMap((call) => call.frames);
  const last = (frame: SeenFrame) =>
    wordsOf(frame).includes(`${checkpoints === "off" ? "event" : "checkpoint"} ${ALL}`);
  if (!frames().some(last)) await recorder.until(last);
}
