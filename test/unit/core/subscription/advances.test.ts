import { describe, expect, it } from "vitest";
import { Advances } from "../../../../src/core/subscription/advances.ts";
import { storedPosition } from "../../../../src/core/subscription/positions.ts";
import type { Advance, AdvanceOutcome } from "../../../../src/core/subscription/subscription-store.ts";

const epoch = "0b61a2d6-7c0c-4b5e-9d52-4c1f3d0e7a11";
const at = (version: number) => storedPosition({ epoch, version, fingerprint: 0, snapshot: undefined });
const never = new AbortController().signal;

/** A store whose writes end when the test says so. */
class Writes {
  readonly batches: { readonly advances: readonly Advance[]; readonly end: (error?: unknown) => void }[] = [];

  advance(advances: readonly Advance[]): Promise<readonly AdvanceOutcome[]> {
    const { promise, resolve, reject } = Promise.withResolvers<readonly AdvanceOutcome[]>();
    const outcomes = advances.map(({ position }) => ({ kind: "advanced", position: position ?? at(0) }) as const);
    this.batches.push({ advances, end: (error) => (error === undefined ? resolve(outcomes) : reject(error)) });
    return promise;
  }

  /** Everything that has begun. */
  async end(error?: unknown): Promise<void> {
    await Promise.resolve();
    this.batches.at(-1)?.end(error);
    for (let turn = 0; turn < 5; turn++) {
      await Promise.resolve();
    }
  }
}

describe("acknowledgements", () => {
  it("that come while a write is under way share the next one", async () => {
    const writes = new Writes();
    const advances = new Advances(writes, never);
    const first = advances.say({ id: "first", generation: 1, position: at(1) });
    await writes.end();
    await first;
    const held = advances.say({ id: "a", generation: 1, position: at(1) });
    await Promise.resolve();
    const others = Array.from({ length: 500 }, (_, index) =>
      advances.say({ id: `s${index % 100}`, generation: 1, position: at(index + 1) }),
    );
    await writes.end();
    await held;
    await writes.end();
    const outcomes = await Promise.all(others);
    expect(writes.batches.map(({ advances: each }) => each.length)).toEqual([1, 1, 100]);
    expect(advances.flushes).toBe(3);
    // Each learns of where its subscription stands now, which is at or behind what it said.
    for (const [index, outcome] of outcomes.entries()) {
      expect(outcome.kind === "advanced" ? outcome.position.version : 0).toBe(400 + (index % 100) + 1);
    }
  });

  it("never lead back within a write", async () => {
    const writes = new Writes();
    const advances = new Advances(writes, never);
    const said = [5, 9, 7].map((version) => advances.say({ id: "a", generation: 2, position: at(version) }));
    await writes.end();
    await Promise.all(said);
    expect(writes.batches[0]?.advances.map(({ position }) => position?.version)).toEqual([9]);
  });

  it("of two generations are written one after the other", async () => {
    const writes = new Writes();
    const advances = new Advances(writes, never);
    const old = advances.say({ id: "a", generation: 1, position: at(5) });
    const young = advances.say({ id: "a", generation: 2, position: at(3) });
    await writes.end();
    await old;
    await writes.end();
    await young;
    expect(writes.batches.map(({ advances: each }) => each.map(({ generation }) => generation))).toEqual([[1], [2]]);
  });

  it("fail with the write that carried them, and with no other", async () => {
    const writes = new Writes();
    const advances = new Advances(writes, never);
    const lost = expect(advances.say({ id: "a", generation: 1, position: at(1) })).rejects.toThrow("no answer");
    await Promise.resolve();
    const kept = advances.say({ id: "a", generation: 1, position: at(2) });
    await writes.end(new Error("no answer"));
    await lost;
    await writes.end();
    expect((await kept).kind).toBe("advanced");
    await advances.settled();
  });
});
