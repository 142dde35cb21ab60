import { afterEach, describe, expect, test, vi } from "vitest";
import { GroupDeadLetters } from "../../../../src/core/group/group-dead-letters.ts";
import { GroupDeal } from "../../../../src/core/group/group-deal.ts";
import { GroupMember } from "../../../../src/core/group/group-member.ts";
import { KeptProgress } from "../../../../src/core/group/group-progress.ts";
import { GroupSlot } from "../../../../src/core/group/group-slots.ts";
import { GroupWindow } from "../../../../src/core/group/group-window.ts";
import { GroupWalk, type Seen } from "./group-walk.ts";

/** `GROUP_WALKS=100000 GROUP_SEED=1` for a long one. */
const WALKS = Number(process.env.GROUP_WALKS ?? 400);
const FIRST = Number(process.env.GROUP_SEED ?? 1);
const STEPS = 400;

function walk(seed: number): Seen {
  const walked = new GroupWalk(seed);
  try {
    walked.run(STEPS);
  } catch (error) {
    throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  return walked.seen;
}

/** What the walks say of a machine with a fault in it. */
function verdicts(walks = 60): readonly string[] {
  const said: string[] = [];
  for (let seed = 1; seed <= walks; seed++) {
    try {
      walk(seed);
    } catch (error) {
      said.push(String(error));
    }
  }
  return said;
}

/** Another getter in place of a part's own. */
function getter<T extends object>(of: T, name: keyof T & string, get: (this: T) => unknown): () => void {
  const own = Object.getOwnPropertyDescriptor(of, name);
  Object.defineProperty(of, name, { ...own, get, configurable: true });
  return () => own !== undefined && Object.defineProperty(of, name, own);
}

describe("group machine", () => {
  test("keeps what groups promise, whatever happens", () => {
    const total: Record<string, number> = {};
    for (let seed = FIRST; seed < FIRST + WALKS; seed++) {
      for (const [what, count] of Object.entries(walk(seed))) {
        total[what] = (total[what] ?? 0) + count;
      }
    }
    for (const [what, count] of Object.entries(total)) {
      expect(count, what).toBeGreaterThan(WALKS / 4);
    }
  });
});

describe("the model sees", () => {
  const undo: (() => void)[] = [];
  afterEach(() => {
    vi.restoreAllMocks();
    for (const back of undo.splice(0)) {
      back();
    }
  });

  test("a key that moves while something of it is in flight", () => {
    undo.push(
      getter(GroupSlot.prototype, "taker", function () {
        return this.heir;
      }),
    );
    expect(verdicts().join()).toMatch(/came to \d+ before|went before|is in flight/);
  });

  test("a position beyond what is not acknowledged", () => {
    undo.push(
      getter(GroupWindow.prototype, "settledUpTo", function () {
        return this.passed;
      }),
    );
    expect(verdicts().join()).toMatch(/the position \d+ is beyond/);
  });

  test("more in flight than a member may have", () => {
    undo.push(getter(GroupMember.prototype, "room", () => 100));
    expect(verdicts().join()).toMatch(/more in flight than the member may have/);
  });

  test("acknowledgements that are forgotten in a crash", () => {
    vi.spyOn(KeptProgress.prototype, "find").mockReturnValue(undefined);
    expect(verdicts().join()).toMatch(/is acked, and was delivered/);
  });

  test("deliveries that are forgotten in a crash", () => {
    const { find } = KeptProgress.prototype;
    vi.spyOn(KeptProgress.prototype, "find").mockImplementation(function (this: KeptProgress, version) {
      const found: ReturnType<typeof find> = Reflect.apply(find, this, [version]);
      return found?.deliveries === 0 ? found : undefined;
    });
    expect(verdicts().join()).toMatch(/says attempt|dead letter/);
  });

  test("a barrier that is passed", () => {
    vi.spyOn(GroupDeal.prototype, "add").mockImplementation(function (this: GroupDeal, item) {
      this.assign(item);
    });
    expect(verdicts().join()).toMatch(/passed (the barrier )?\d+/);
  });

  test("a key that goes on behind its dead letter", () => {
    vi.spyOn(GroupDeadLetters.prototype, "parks").mockReturnValue(false);
    expect(verdicts().join()).toMatch(/behind the dead letter|came to/);
  });

  test("a late word that counts", () => {
    vi.spyOn(GroupMember.prototype, "has").mockImplementation((item) => item.state === "in_flight");
    expect(verdicts().join()).toMatch(/accepted \d+ and not|in flight/);
  });

  test("a cursor that covers what came after it", () => {
    const { give } = GroupMember.prototype;
    vi.spyOn(GroupMember.prototype, "give").mockImplementation(function (this: GroupMember, item, nowMs) {
      Reflect.apply(give, this, [item, nowMs]);
      item.inOrder = true;
    });
    expect(verdicts().join()).toMatch(/accepted \d+ and not/);
  });

  test("dead letters that are lost when a write fails", () => {
    const { written } = GroupDeadLetters.prototype;
    vi.spyOn(GroupDeadLetters.prototype, "written").mockImplementation(function (this: GroupDeadLetters) {
      Reflect.apply(written, this, [true]);
    });
    expect(verdicts().join()).toMatch(/did not replay|behind the dead letter/);
  });
});
