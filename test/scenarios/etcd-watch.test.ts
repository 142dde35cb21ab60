import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Stage, untilLast } from "../integration/guarantees/stage.ts";
import type { Recording, SeenCall, SeenEvent, SeenFrame } from "../support/checker/seen.ts";
import { eventsOf } from "../support/checker/seen.ts";
import { rowsThat, type Selection } from "../support/checker/selection.ts";
import { lastKey, startWorkload } from "../support/workload/workload.ts";
import { validateWatches, type Watch, type WatchProperty } from "./watch-validators.ts";

const counterOf = (row: string) => Number(/"counter":\s*(\d+)/.exec(row)?.[1] ?? Number.NaN);
const isLast = ({ key }: SeenEvent) => key === lastKey;

/** Every client also wants the workload's last message, to know when it has all. */
const END = { keys: [lastKey] };

interface Asked {
  readonly selection: Selection;
  readonly start: Readonly<Record<string, unknown>>;
  readonly selectors: readonly Readonly<Record<string, unknown>>[];
}

function watcher(
  name: string,
  start: Asked["start"],
  selectors: Asked["selectors"],
  see: (event: SeenEvent) => SeenEvent | undefined,
): Asked {
  const everything = selectors.length === 0;
  const selection = { name, everything, see: (event: SeenEvent) => (isLast(event) ? event : see(event)) };
  return { selection, start, selectors: everything ? [] : [...selectors, END] };
}

const ASKED: readonly Asked[] = [
  watcher("everything", { oldest: {} }, [], (event) => event),
  watcher("everything from now", { now: {} }, [], (event) => event),
  watcher("one topic", { oldest: {} }, [{ topics: ["orders"] }], (event) =>
    event.topic === "orders" ? event : undefined,
  ),
  watcher("one key", { now: {} }, [{ topics: ["parts"], keys: ["1", "2"] }], (event) =>
    event.topic === "parts" && (event.key === "1" || event.key === "2") ? event : undefined,
  ),
  watcher("no deletes", { oldest: {} }, [{ operations: ["OPERATION_INSERT", "OPERATION_UPDATE"] }], (event) =>
    event.operation === "INSERT" || event.operation === "UPDATE" ? event : undefined,
  ),
  watcher("rows that match", { oldest: {} }, [{ topics: ["orders"], filter: "row.counter % 3 == 0" }], (event) =>
    event.topic === "orders" ? rowsThat((row) => counterOf(row) % 3 === 0, event) : undefined,
  ),
  watcher("next to nothing", { oldest: {} }, [{ topics: ["nobody"] }], () => undefined),
];

let stage: Stage;
let watches: readonly Watch[] = [];
let history: readonly SeenEvent[] = [];

describe("etcd's watch validators over recorded histories, with cuts and servers killed", () => {
  beforeAll(async () => {
    stage = await Stage.open();
    const servers = [await stage.server(), await stage.server()];
    const workload = await startWorkload(stage.url, { writers: 6 });
    const clients = await Promise.all(
      ASKED.map(({ selection, start, selectors }, index) => {
        let turn = index;
        const port = () => servers[turn++ % servers.length]?.port ?? 0;
        return stage.client({ client: selection.name, port, start, request: { selectors } });
      }),
    );
    for (let round = 0; round < 4; round += 1) {
      await workload.untilCommitted(60);
      for (const client of clients.filter((_, index) => index % 2 === round % 2)) client.cut();
      await servers[round % 2]?.kill9();
      servers[round % 2] = await stage.server();
    }
    await workload.untilCommitted(60);
    const { failures } = await workload.finish();
    expect(failures).toEqual([]);
    await Promise.all(clients.map(untilLast));
    const fresh = await stage.client({ client: "fresh", port: () => servers[0]?.port ?? 0, start: { oldest: {} } });
    await untilLast(fresh);
    history = eventsOf(fresh.recording);
    watches = clients.map(({ recording }, at) => ({ recording, selection: ASKED[at]?.selection ?? nothing }));
  }, 240_000);

  afterAll(() => stage[Symbol.asyncDispose]());

  it("G3, G5, G8 Ordered, Unique, Atomic, Reliable, Resumable, Bookmarkable, Filterable", () => {
    expect(history.map(({ version }) => version)).toEqual(history.map((_, at) => at + 1));
    expect(history.length).toBeGreaterThan(300);
    expect(Math.min(...watches.map(({ recording }) => recording.calls.length))).toBeGreaterThan(1);
    expect(validateWatches(watches, history).slice(0, 10)).toEqual([]);
  });

  it.each(SPOILS())("sees a story that is not $property: $how", ({ property, spoil, client }) => {
    const watch = watches.find(({ recording }) => recording.client === client);
    if (watch === undefined) throw new Error(`There is no ${client}.`);
    const spoiled = { ...watch, recording: spoil(watch.recording) };
    const complaints = validateWatches([spoiled], history).map((complaint) => complaint.property);
    expect(complaints).toContain(property);
  });
});

const nothing: Selection = { name: "nothing", everything: false, see: () => undefined };

interface Spoil {
  readonly property: WatchProperty;
  readonly how: string;
  readonly client: string;
  readonly spoil: (recording: Recording) => Recording;
}

/** The same story with other frames. */
function reframed(recording: Recording, frames: (frame: SeenFrame, at: number) => readonly SeenFrame[]): Recording {
  let at = 0;
  const calls = recording.calls.map((call) => ({ ...call, frames: call.frames.flatMap((each) => frames(each, at++)) }));
  return { ...recording, calls };
}

/** The same story with other events in its longest call, which come in one batch. */
function withEvents(recording: Recording, change: (events: readonly SeenEvent[]) => readonly SeenEvent[]): Recording {
  const eventsIn = ({ frames }: SeenCall) => frames.flatMap((frame) => (frame.kind === "events" ? frame.events : []));
  const longest = recording.calls.toSorted((a, b) => eventsIn(b).length - eventsIn(a).length)[0];
  const calls = recording.calls.map((call) => {
    const last = call.frames.findLast(isEvents);
    if (call !== longest || last?.kind !== "events") return call;
    const opened = call.frames.filter(({ kind }) => kind === "opened");
    return { ...call, frames: [...opened, { ...last, events: change(eventsIn(call)) }] };
  });
  return { ...recording, calls };
}

function SPOILS(): readonly Spoil[] {
  const client = "everything";
  const swap = ([a, b, ...rest]: readonly SeenEvent[]) => [b, a, ...rest].flatMap((event) => event ?? []);
  return [
    { property: "Ordered", how: "two events swapped", client, spoil: (story) => withEvents(story, swap) },
    {
      property: "Unique",
      how: "an event doubled",
      client,
      spoil: (story) => withEvents(story, ([first, ...rest]) => (first === undefined ? rest : [first, first, ...rest])),
    },
    {
      property: "Atomic",
      how: "a batch cut within a transaction, and called complete",
      client,
      spoil: (story) =>
        reframed(story, (frame) => {
          if (frame.kind !== "events") return [frame];
          return frame.events.map((event) => ({ ...frame, events: [event], complete: true }));
        }),
    },
    {
      property: "Reliable",
      how: "an event left out",
      client: "one topic",
      spoil: (story) => withEvents(story, (events) => events.slice(1)),
    },
    {
      property: "Resumable",
      how: "a call that begins one event late",
      client,
      spoil: (story) => {
        const resumed = story.calls.findIndex(({ from, frames }) => from !== undefined && frames.some(isEvents));
        const calls = story.calls.map((call, at) => {
          const first = call.frames.findIndex(isEvents);
          if (at !== resumed) return call;
          const frames = call.frames.flatMap((frame, place): readonly SeenFrame[] => {
            if (place !== first || frame.kind !== "events") return [frame];
            return frame.events.length === 1 ? [] : [{ ...frame, events: frame.events.slice(1) }];
          });
          return { ...call, frames };
        });
        return { ...story, calls };
      },
    },
    {
      property: "Bookmarkable",
      how: "a checkpoint that is said before the events that it covers",
      client,
      spoil: (story) =>
        reframed(story, (frame) => {
          if (frame.kind !== "events") return [frame];
          const version = frame.events.at(-1)?.version ?? 0;
          return [{ kind: "checkpoint", version, cursor: frame.cursor, state: "LIVE" }, frame];
        }),
    },
    {
      property: "Filterable",
      how: "a row that does not match",
      client: "rows that match",
      spoil: (story) => withEvents(story, (events) => events.map((event) => ({ ...event, transition: "OTHER" }))),
    },
  ];
}

function isEvents({ kind }: SeenFrame): boolean {
  return kind === "events";
}
