import { describe, expect, it } from "vitest";
import { createFeed } from "../../src/core/feed/feed-service.ts";
import type { StreamRequest } from "../../src/core/feed.ts";
import type { Frame } from "../../src/core/frame.ts";
import { createRandom } from "../support/workload/random.ts";
import { Database, SeededWakeUp } from "./database.ts";
import { type Appetite, FAST, SeededOutlet } from "./outlet.ts";
import { VirtualTime } from "./virtual-time.ts";
import { measure } from "./wants.ts";

const OTHERS = 12;
const TICKS = 600;
const STUCK: Appetite = { capacity: 3, takesMs: Number.POSITIVE_INFINITY };

interface Run {
  /** What each of the others got, and when, in virtual milliseconds. */
  readonly others: readonly string[];
  /** Frames that the one in question got. */
  readonly frames: number;
  readonly heldBytes: number;
}

/** A feed with one stream of this appetite, and others that take everything. Time goes by the happenings alone. */
async function run(appetite: Appetite, costMs = 0): Promise<Run> {
  const time = new VirtualTime(createRandom(1), { lateMs: 0, turnMs: 0, lookMs: 0 });
  const database = new Database({ time, random: createRandom(2), latencyMs: 0, pageEvents: 100, failing: 0 });
  const clock = { now: () => time.now(), monotonic: () => time.monotonic(), random: () => 0.5 };
  const wakeUp = new SeededWakeUp(time);
  const limits = { logMaxBytes: 20_000, maxLaneBytes: 10_000, maxLanesBytes: 30_000, historyCacheBytes: 10_000 };
  const feed = createFeed({ store: database.storeFor(() => undefined), wakeUp, clock, timers: time, limits });
  const others: string[] = [];
  let frames = 0;
  const open = async (name: string, inline: boolean, how: Appetite, take: (frame: Frame) => void) => {
    const request: StreamRequest = {
      start: { kind: "now" },
      selectors: [],
      checkpointIntervalMs: 1_000,
      maxBatchBytes: 1_000_000,
      codec: { identity: "isolation", measure },
      afterTransaction: undefined,
      deadlineMs: undefined,
    };
    const stream = await feed.open(request, new AbortController().signal);
    const object = (text: string) => expect.fail(`${name}: ${text}`);
    const outlet = new SeededOutlet(time, { take, ended: () => undefined, object }, { inline, appetite: how });
    outlet.control = stream.attach(outlet);
  };
  let ready = false;
  const play = async () => {
    await feed.start(new AbortController().signal);
    for (let i = 0; i < OTHERS; i++) {
      await open(`other ${i}`, i % 3 === 0, FAST, (frame) => {
        const what = frame.kind === "events" ? frame.events.map(({ version }) => version).join() : frame.kind;
        others.push(`${time.nowMs.toFixed(3)} ${i} ${what} ${frame.cursor.version}`);
      });
    }
    await open("the one", false, appetite, () => {
      frames += 1;
      // A machine that spends its time on one stream: what isolation must not look like.
      time.spend(costMs);
    });
    for (let tick = 0; tick < TICKS; tick++) {
      const transaction = database.memory.begin();
      for (let i = 0; i <= tick % 4; i++) {
        transaction.emit({ topic: "notes", key: `k${i}`, operation: "MESSAGE", payload: '{"n":1}', headers: {} });
      }
      transaction.commit();
      wakeUp.nudge();
      await time.pause(7);
    }
    await time.pause(5_000);
    ready = true;
  };
  const playing = play();
  await time.runUntil(() => ready);
  await playing;
  const { laneBytes, history } = feed.stats();
  const { logBytes } = feed.status();
  const stopped = feed.stop().then(() => true);
  let over = false;
  void stopped.then(() => {
    over = true;
  });
  await time.runUntil(() => over);
  return { others, frames, heldBytes: laneBytes + history.cachedBytes + logBytes };
}

describe("isolation in virtual time", () => {
  it("G9 a stream that is stuck delays no frame of the others, and takes no memory for what it does not take", async () => {
    const [beside, alone] = [await run(STUCK), await run(FAST)];
    expect(beside.frames).toBe(STUCK.capacity);
    expect(alone.frames).toBeGreaterThan(TICKS);
    expect(beside.others.length).toBeGreaterThan(OTHERS * TICKS);
    expect(beside.others).toEqual(alone.others);
    expect(beside.heldBytes).toBeLessThan(20_000 + 30_000 + 10_000);
  });

  it("sees a stream whose frames cost the others time", async () => {
    const [beside, alone] = [await run(FAST, 1), await run(FAST)];
    expect(beside.others).not.toEqual(alone.others);
  });
});
