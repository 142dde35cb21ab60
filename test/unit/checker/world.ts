import type { Change, CommittedTransaction, Ledger } from "../../support/checker/ledger.ts";
import type { Recording, SeenEvent, SeenFrame } from "../../support/checker/seen.ts";

/** A small history that keeps every promise, to plant faults in. */
export interface World {
  readonly ledger: Ledger;
  /** Each inner list is a tick. */
  readonly ticks: readonly (readonly SeenEvent[])[];
}

interface Row {
  readonly life: string;
  readonly counter: number;
}

const image = (key: string, row: Row) => JSON.stringify({ id: key, life: row.life, counter: row.counter });

/** Three keys, transactions of three changes that overlap in keys, a delete and rebirth now and then, two per tick. */
export function createWorld(transactions = 24): World {
  const rows = new Map<string, Row>();
  const buried = new Map<string, string>();
  const committed: CommittedTransaction[] = [];
  const ticks: SeenEvent[][] = [];
  let version = 0;
  for (let number = 1; number <= transactions; number += 1) {
    const xid = String(1000 + number);
    const changes: Change[] = [];
    const events: SeenEvent[] = [];
    for (const key of ["1", "2", "3"]) {
      const row = rows.get(key);
      const operation = row === undefined ? "INSERT" : (number + Number(key)) % 7 === 0 ? "DELETE" : "UPDATE";
      const next =
        row === undefined
          ? { life: `${number}-${key}`, counter: 1 }
          : { life: row.life, counter: row.counter + (operation === "UPDATE" ? 1 : 0) };
      version += 1;
      changes.push({ topic: "orders", key, operation, ...next, previousLife: buried.get(key) });
      events.push({
        version,
        topic: "orders",
        key,
        operation,
        before: row === undefined ? undefined : image(key, row),
        after: operation === "DELETE" ? undefined : image(key, next),
        transaction: xid,
        occurredAtMicros: version,
        headers: undefined,
      });
      if (operation === "DELETE") {
        rows.delete(key);
        buried.set(key, next.life);
      } else rows.set(key, next);
    }
    committed.push({ writer: 1, number, xid, changes, prepared: false });
    const tick = ticks.at(-1);
    if (number % 2 === 0 && tick !== undefined) tick.push(...events);
    else ticks.push(events);
  }
  const table = new Map([...rows].map(([key, row]) => [key, image(key, row)]));
  return { ledger: { committed, rolledBack: new Set(["999"]), tables: new Map([["orders", table]]) }, ticks };
}

/** Frames of a stream from the first version on: a batch per tick, a checkpoint after every other. */
export function framesOfWorld(world: World): readonly SeenFrame[] {
  const frames: SeenFrame[] = [{ kind: "opened", epoch: "e", version: 0, cursor: "c0" }];
  world.ticks.forEach((events, index) => {
    const version = events.at(-1)?.version ?? 0;
    frames.push({ kind: "events", events, cursor: `c${version}`, complete: true });
    if (index % 2 === 1) frames.push({ kind: "checkpoint", version, cursor: `c${version}`, state: "LIVE" });
  });
  return frames;
}

/** A story of one call. */
export function story(frames: readonly SeenFrame[], client = "client"): Recording {
  return { client, calls: [{ from: undefined, frames }] };
}

/** The same frames with each list of events replaced. */
export function mapEvents(
  frames: readonly SeenFrame[],
  change: (events: readonly SeenEvent[]) => readonly SeenEvent[],
): readonly SeenFrame[] {
  return frames.map((frame) => (frame.kind === "events" ? { ...frame, events: change(frame.events) } : frame));
}

/** The state after `version`, as a snapshot's rows. */
export function rowsAt(world: World, version: number): readonly SeenEvent[] {
  const rows = new Map<string, SeenEvent>();
  for (const event of world.ticks.flat().filter((candidate) => candidate.version <= version)) {
    if (event.after === undefined) rows.delete(event.key ?? "");
    else rows.set(event.key ?? "", { ...event, version, operation: "SNAPSHOT", before: undefined, transaction: "" });
  }
  return [...rows.values()];
}
