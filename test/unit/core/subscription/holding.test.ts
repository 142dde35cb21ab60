import { describe, expect, it } from "vitest";
import type { Cursor } from "../../../../src/core/cursor.ts";
import type { Frame } from "../../../../src/core/frame.ts";
import { Holding } from "../../../../src/core/subscription/holding.ts";
import { storedPosition } from "../../../../src/core/subscription/positions.ts";

const epoch = "0b61a2d6-7c0c-4b5e-9d52-4c1f3d0e7a11";
const at = (version: number, snapshot?: Cursor["snapshot"]): Cursor => ({ epoch, version, fingerprint: 0, snapshot });

function held(): Holding {
  const record = {
    id: "s",
    definition: "{}",
    isGroup: false,
    topics: [],
    owner: "",
    labels: {},
    expireAfterMs: undefined,
    state: "ACTIVE",
    position: storedPosition(at(0)),
    generation: 1,
    createdAtMs: 0,
    lastUsedAtMs: 0,
    expiresAtMs: undefined,
    deadLetters: 0,
    oldestVersion: undefined,
  } as const;
  const holding = new Holding({ record, delivered: [], bornAtLook: 0, nowMs: 0 });
  holding.begin(record.position, 0);
  return holding;
}

const events = (cursor: Cursor): Frame => ({ kind: "events", events: [], cursor, complete: true });
const gap = (cursor: Cursor): Frame => {
  const { version: lastVersion } = cursor;
  return { kind: "gap", firstVersion: 1, lastVersion, dropped: 1, reason: "DROP_OLDEST", cursor };
};
const checkpoint = (cursor: Cursor, rows?: number): Frame => ({
  kind: "checkpoint",
  cursor,
  version: cursor.version,
  state: rows === undefined ? "LIVE" : "SNAPSHOT",
  lagVersions: 0,
  lagMs: 0,
  timeMicros: undefined,
  progress: rows === undefined ? undefined : { rows, estimatedRows: undefined },
});

describe("what needs no acknowledgement", () => {
  it("is a checkpoint behind which nothing is owed", () => {
    const holding = held();
    holding.saw(checkpoint(at(5)));
    expect(holding.moment).toEqual(at(5));
    holding.saw(events(at(7)));
    holding.saw(checkpoint(at(9)));
    expect(holding.moment).toBeUndefined();
    holding.acknowledged(storedPosition(at(7)));
    expect(holding.moment).toEqual(at(9));
    holding.acknowledged(storedPosition(at(9)));
    expect(holding.moment).toBeUndefined();
  });

  it("is what a policy left out, and not what it kept", () => {
    const holding = held();
    holding.saw(gap(at(7)));
    holding.saw(checkpoint(at(9)));
    expect(holding.moment).toEqual(at(9));
    holding.saw(gap(at(20)));
    holding.saw(events(at(20)));
    holding.saw(checkpoint(at(21)));
    expect(holding.moment).toBeUndefined();
  });

  it("is nothing of a snapshot before its end is acknowledged", () => {
    const holding = held();
    const place = { shape: 1, sources: 0, key: "k", rows: 3 };
    holding.saw(events(at(4, place)));
    holding.saw(checkpoint(at(4, place), 3));
    expect(holding.moment).toBeUndefined();
    holding.saw({ kind: "snapshot_complete", version: 4, cursor: at(4), rows: 3 });
    holding.saw(checkpoint(at(6)));
    holding.acknowledged(storedPosition(at(4, place)));
    expect(holding.moment).toBeUndefined();
    holding.acknowledged(storedPosition(at(4)));
    expect(holding.moment).toEqual(at(6));
    expect(holding.deliveries).toEqual([]);
  });
});
