import { describe, expect, test } from "vitest";
import { encodeCursor } from "../../../src/core/cursor.ts";
import { eventBytes } from "../../../src/core/page.ts";
import type { PolledPage } from "../../../src/core/poll/polled-page.ts";
import { createPolls, type Polls } from "../../../src/core/poll/polls.ts";
import type { SubscriptionPollRequest } from "../../../src/core/poll/subscription-poll.ts";
import { during } from "./polling.ts";
import { type Replica, SubscribedWorld, signal, TestConsumer } from "./subscription/setup.ts";

const POLL: SubscriptionPollRequest = {
  id: "s",
  member: undefined,
  generation: 0,
  acknowledge: undefined,
  terms: () => ({ selectors: [], codec: { identity: "page", measure: eventBytes }, group: undefined }),
  maxEvents: 1_000,
  maxBytes: 1_048_576,
  timeoutMs: 0,
  deadlineMs: undefined,
  peer: undefined,
};

async function subscribed() {
  const world = new SubscribedWorld();
  const replica = await world.replica();
  await world.create(replica);
  return { world, replica, polls: pollsOf(world, replica) };
}

function pollsOf({ time }: SubscribedWorld, { feed, subscriptions }: Replica): Polls {
  return createPolls({ feed, subscriptions, clock: time });
}

const told = ({ events }: PolledPage) =>
  events.map(({ version, attempt }) => (attempt === undefined ? `${version}` : `${version}×${attempt}`));

/** The poll after this page, which acknowledges it. */
const next = ({ cursor, lease }: PolledPage): Partial<SubscriptionPollRequest> => ({
  acknowledge: encodeCursor(cursor),
  generation: lease?.generation ?? 0,
});

describe("a poll by subscription", () => {
  test("takes it up, and goes on as the same consumer, acknowledging what it polled", async () => {
    const { world, polls } = await subscribed();
    const poll = (more: Partial<SubscriptionPollRequest>) =>
      during(world.time, polls.pollSubscription({ ...POLL, ...more }, signal));
    await world.emit(3);
    const first = await poll({ maxEvents: 2 });
    expect(told(first)).toEqual(["1", "2"]);
    expect(first).toMatchObject({ hasMore: true, active: true, full: false, lease: { subscriptionId: "s" } });
    const second = await poll(next(first));
    expect(told(second)).toEqual(["3"]);
    expect(second).toMatchObject({ hasMore: false, complete: true, lease: { generation: first.lease?.generation } });
    const third = await poll(next(second));
    expect(third).toMatchObject({ events: [], hasMore: false, active: true });
    const { position } = await world.memory.subscriptions.get("s", signal);
    expect(position.version).toBe(3);
  });

  test("gets again, and counted, what was not acknowledged, whether or not it is the same consumer", async () => {
    const { world, polls } = await subscribed();
    const poll = (more: Partial<SubscriptionPollRequest>) =>
      during(world.time, polls.pollSubscription({ ...POLL, ...more }, signal));
    await world.emit(2);
    const first = await poll({});
    const generation = first.lease?.generation ?? 0;
    expect(told(await poll({ generation }))).toEqual(["1×2", "2×2"]);
    expect(told(await poll({}))).toEqual(["1×3", "2×3"]);
    await expect(poll({ ...next(first) })).rejects.toMatchObject({ code: "SUBSCRIPTION_FENCED" });
    await expect(poll({ generation })).rejects.toMatchObject({ code: "SUBSCRIPTION_FENCED" });
  });

  test("waits for what comes, in one frame of a stream that costs nothing", async () => {
    const { world, polls, replica } = await subscribed();
    const waiting = polls.pollSubscription({ ...POLL, timeoutMs: 60_000 }, signal);
    await world.time.pass(100);
    expect(polls.stats().waiting).toBe(1);
    const statements = { ...world.statements };
    await world.time.pass(1_000);
    expect(world.statements).toEqual(statements);
    await world.emit(2);
    const page = await during(world.time, waiting);
    expect(told(page)).toEqual(["1", "2"]);
    expect(replica.feed.status().streams).toBe(0);
  });

  test("that waits is told when it is paused, moved, taken over or deleted", async () => {
    const { world, polls, replica } = await subscribed();
    const outcomeOf = async (happen: () => Promise<unknown>) => {
      const waiting = polls.pollSubscription({ ...POLL, timeoutMs: 60_000 }, signal).then(
        ({ events, active }) => ({ events: events.length, active }),
        ({ code }: { readonly code: string }) => code,
      );
      await world.time.pass(100);
      await happen();
      return await during(world.time, waiting);
    };
    const { subscriptions } = replica;
    expect(await outcomeOf(() => subscriptions.pause("s", true, signal))).toEqual({ events: 0, active: false });
    await expect(
      during(world.time, polls.pollSubscription({ ...POLL, timeoutMs: 60_000 }, signal)),
    ).rejects.toMatchObject({ code: "SUBSCRIPTION_PAUSED" });
    await subscriptions.pause("s", false, signal);
    expect(await outcomeOf(() => TestConsumer.open(replica))).toBe("SUBSCRIPTION_FENCED");
    expect(await outcomeOf(() => subscriptions.seek("s", { kind: "oldest" }, signal))).toBe("SUBSCRIPTION_FENCED");
    expect(await outcomeOf(() => subscriptions.delete("s", signal))).toBe("SUBSCRIPTION_NOT_FOUND");
  });

  test("ends with an empty page when its time is over, and holds the subscription still", async () => {
    const { world, polls } = await subscribed();
    const waiting = polls.pollSubscription({ ...POLL, timeoutMs: 5_000 }, signal);
    const page = await during(world.time, waiting);
    expect(page).toMatchObject({ events: [], active: true, hasMore: false });
    await world.emit(1);
    const later = await during(world.time, polls.pollSubscription({ ...POLL, ...next(page) }, signal));
    expect(told(later)).toEqual(["1"]);
    expect(later.lease?.generation).toBe(page.lease?.generation);
  });

  test("can be taken over by a stream, and from one", async () => {
    const { world, polls, replica } = await subscribed();
    await world.emit(2);
    const page = await during(world.time, polls.pollSubscription({ ...POLL, maxEvents: 1 }, signal));
    expect(told(page)).toEqual(["1"]);
    const stream = await TestConsumer.open(replica);
    await world.time.pass(50);
    expect(stream.told).toEqual(["1×2", "2"]);
    const again = await during(world.time, polls.pollSubscription(POLL, signal));
    expect(told(again)).toEqual(["1×3", "2×2"]);
    await world.time.pass(50);
    expect(stream.closing).toBe("TAKEN_OVER");
  });
});
