import type { Recording, SeenEvent, SeenFrame } from "../support/checker/seen.ts";
import { describeEvent, eventsOf, framesOf, identityOf } from "../support/checker/seen.ts";
import { Matching, type Selection } from "../support/checker/selection.ts";

/** A client's story and what it asked for. */
export interface Watch {
  readonly recording: Recording;
  readonly selection: Selection;
}

/** The properties that etcd's robustness tests hold watches to, with their meaning for streams of settled versions. */
export type WatchProperty = "Ordered" | "Unique" | "Atomic" | "Reliable" | "Resumable" | "Bookmarkable" | "Filterable";

/** What is broken, by which client, and where. */
export interface WatchComplaint {
  readonly property: WatchProperty;
  readonly client: string;
  readonly text: string;
}

type Validator = (watch: Watch, history: readonly SeenEvent[]) => readonly string[];

/** Versions never go back, within a call and from a call to the next. */
const ordered: Validator = ({ recording }) => {
  let last = 0;
  return eventsOf(recording).flatMap((event) => {
    const before = last;
    last = Math.max(last, event.version);
    return event.version < before ? [`${describeEvent(event)} came after v${before}`] : [];
  });
};

/** No event comes twice. */
const unique: Validator = ({ recording }) => {
  const seen = new Set<number>();
  return eventsOf(recording).flatMap((event) => {
    const again = seen.has(event.version);
    seen.add(event.version);
    return again ? [`${describeEvent(event)} came again`] : [];
  });
};

function isBoundary(frame: SeenFrame): boolean {
  return frame.kind === "checkpoint" || (frame.kind === "events" && frame.complete);
}

/** What was written together is seen together: nobody finds a part of a transaction at a consistent moment. */
const atomic: Validator = ({ recording }) => {
  const complaints: string[] = [];
  const closed = new Set<string>();
  let open = new Set<string>();
  for (const frame of framesOf(recording)) {
    for (const event of frame.kind === "events" ? frame.events : []) {
      if (closed.has(event.transaction))
        complaints.push(`${describeEvent(event)} came after its transaction was whole`);
      open.add(event.transaction);
    }
    if (isBoundary(frame)) {
      for (const transaction of open) closed.add(transaction);
      open = new Set();
    }
  }
  return complaints;
};

/** From where it began to where it has come, all that it asked for was delivered. */
const reliable: Validator = ({ recording, selection }, history) => {
  const opened = framesOf(recording).find((frame) => frame.kind === "opened");
  const start = opened?.kind === "opened" ? opened.version : 0;
  const came = new Set(eventsOf(recording).map(({ version }) => version));
  const wanted = new Matching(selection, history).between(start, reachOf(recording));
  return wanted.filter(({ version }) => !came.has(version)).map((event) => `${describeEvent(event)} never came`);
};

/** Up to which version a story says that it is whole. */
function reachOf(recording: Recording): number {
  const reached = framesOf(recording).map((frame) => {
    if (frame.kind === "checkpoint") return frame.version;
    return frame.kind === "events" ? (frame.events.at(-1)?.version ?? 0) : 0;
  });
  return Math.max(0, ...reached);
}

/** A call that goes on from a cursor begins with the very next event that it asked for after what the cursor covers. */
const resumable: Validator = ({ recording, selection }, history) => {
  const matching = new Matching(selection, history);
  return recording.calls.flatMap(({ from, frames }, index) => {
    const opened = frames[0];
    const first = frames.find((frame) => frame.kind === "events");
    if (from === undefined || opened?.kind !== "opened") return [];
    const before = recording.calls.slice(0, index).findLast((call) => call.frames.some(({ cursor }) => cursor !== ""));
    const known = before?.frames.findLast(({ cursor }) => cursor !== "")?.cursor;
    if (known !== from) return [`call ${index} went on from a cursor that was not the last`];
    const due = matching.after(opened.version);
    const came = first?.kind === "events" ? first.events[0] : undefined;
    if (came === undefined || came.version === due?.version) return [];
    return [
      `call ${index}, opened after v${opened.version}, begins with v${came.version}, and v${due?.version} is due`,
    ];
  });
};

/** A checkpoint covers all that came before it; nothing at or below it comes later, and none goes back. */
const bookmarkable: Validator = ({ recording }) => {
  const complaints: string[] = [];
  let mark = 0;
  let last = 0;
  for (const frame of framesOf(recording)) {
    if (frame.kind === "checkpoint") {
      if (frame.version < last) complaints.push(`the checkpoint at v${frame.version} comes after event v${last}`);
      if (frame.version < mark) complaints.push(`the checkpoint at v${frame.version} comes after one at v${mark}`);
      mark = Math.max(mark, frame.version);
    }
    for (const event of frame.kind === "events" ? frame.events : []) {
      if (event.version <= mark) complaints.push(`${describeEvent(event)} comes after the checkpoint at v${mark}`);
      last = Math.max(last, event.version);
    }
  }
  return complaints;
};

/** Every event is one that was asked for, and looks as the selection shows it. */
const filterable: Validator = ({ recording, selection }, history) => {
  return eventsOf(recording).flatMap((event) => {
    const settled = history[event.version - 1];
    const view = settled && selection.see(settled);
    const same = view !== undefined && identityOf(view) === identityOf(event) && view.transition === event.transition;
    return same ? [] : [`${describeEvent(event)} ${event.transition ?? ""} was not asked for, or looks otherwise`];
  });
};

const VALIDATORS: Readonly<Record<WatchProperty, Validator>> = {
  Ordered: ordered,
  Unique: unique,
  Atomic: atomic,
  Reliable: reliable,
  Resumable: resumable,
  Bookmarkable: bookmarkable,
  Filterable: filterable,
};

/** Holds watches to all properties. `history` is every event from version 1 on, as the store has them. */
export function validateWatches(watches: readonly Watch[], history: readonly SeenEvent[]): readonly WatchComplaint[] {
  const properties = Object.keys(VALIDATORS) as readonly WatchProperty[];
  return watches.flatMap((watch) =>
    properties.flatMap((property) =>
      VALIDATORS[property](watch, history).map((text) => ({ property, client: watch.recording.client, text })),
    ),
  );
}
