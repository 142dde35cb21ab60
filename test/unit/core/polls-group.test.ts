import { describe, expect, test } from "vitest";
import { encodeCursor } from "../../../src/core/cursor.ts";
import { eventBytes } from "../../../src/core/page.ts";
import type { PolledPage } from "../../../src/core/poll/polled-page.ts";
import { createPolls } from "../../../src/core/poll/polls.ts";
import type { SubscriptionPollRequest } from "../../../src/core/poll/subscription-poll.ts";
import { GroupWorld, signal } from "./group/group-setup.ts";

async function groupOf(world = new GroupWorld()) {
  const replica = await world.replica();
  await world.create(replica);
  const { feed, subscriptions } = replica;
  const polls = createPolls({ feed, subscriptions, clock: world.time });
  const poll = (member: string, more: Partial<SubscriptionPollRequest> = {}) =>
    world.during(
      polls.pollSubscription(
        {
          ...{ id: "g", member, generation: 0, acknowledge: undefined, maxEvents: 100, maxBytes: 1_048_576 },
          ...{ timeoutMs: 0, deadlineMs: undefined, peer: undefined },
          terms: () => ({ selectors: [], codec: { identity: "page", measure: eventBytes }, group: world.terms }),
          ...more,
        },
        signal,
      ),
      120_000,
    );
  return { world, replica, polls, poll };
}

/** `key` of what came for the first time, `key×attempt` of what came again. */
const told = ({ events }: PolledPage) =>
  events.map(({ key, attempt }) => (attempt === undefined ? `${key}` : `${key}×${attempt}`));

const next = ({ cursor, lease }: PolledPage): Partial<SubscriptionPollRequest> => ({
  acknowledge: encodeCursor(cursor),
  generation: lease?.generation ?? 0,
});

describe("a member of a group that polls", () => {
  test("gets all of it when it is alone, a page at a time, and is at the end at once", async () => {
    const { world, poll } = await groupOf();
    await world.emit("a", "b", "c", "d", "e");
    const seen: string[] = [];
    let page = await poll("one", { maxEvents: 2 });
    expect(page.lease).toMatchObject({ subscriptionId: "g", member: "one", maxInFlight: world.terms.maxInFlight });
    for (let pages = 0; page.events.length > 0; pages += 1) {
      expect(page.events.length).toBeLessThanOrEqual(2);
      seen.push(...told(page));
      page = await poll("one", { ...next(page), maxEvents: 2 });
      expect(pages).toBeLessThan(10);
    }
    expect(seen.toSorted()).toEqual(["a", "b", "c", "d", "e"]);
    const begunMs = world.time.monotonic();
    expect(told(await poll("one", next(page)))).toEqual([]);
    expect(world.time.monotonic() - begunMs).toBeLessThan(1_000);
    await world.time.pass(100);
    expect((await world.memory.subscriptions.get("g", signal)).position.version).toBe(5);
  });

  test("keeps its place between polls, shares with others, and gets again what it did not acknowledge", async () => {
    const { world, poll } = await groupOf();
    const [one, two] = [await poll("one"), await poll("two")];
    const keys = Array.from({ length: 40 }, (_, key) => `k${key}`);
    await world.emit(...keys);
    const first = await poll("one", { generation: one.lease?.generation ?? 0 });
    const second = await poll("two", { generation: two.lease?.generation ?? 0 });
    expect(first.events.length).toBeGreaterThan(0);
    expect(second.events.length).toBeGreaterThan(0);
    expect([...told(first), ...told(second)].toSorted()).toEqual(keys.toSorted());
    expect(told(await poll("one", next(first)))).toEqual([]);
    // Who says nothing gets the same again, once the group's patience is at its end.
    await world.time.pass(world.terms.ackDeadlineMs + 1_000);
    const again = await poll("two", { timeoutMs: 30_000 });
    expect(again.events.map(({ key }) => key).toSorted()).toEqual(told(second).toSorted());
    expect(again.events.map(({ attempt }) => attempt)).toEqual(again.events.map(() => 2));
  });

  test("leaves no stream behind that events could get lost in: they would count as delivered", async () => {
    const { world, replica, poll } = await groupOf();
    const none = await poll("one");
    const { generation = 0 } = none.lease ?? {};
    await world.emit("a");
    expect(replica.groups.stats()).toMatchObject({ members: 1, inFlight: 0 });
    await world.time.pass(world.terms.ackDeadlineMs / 2);
    const page = await poll("one", { generation });
    expect(page.events).toMatchObject([{ key: "a" }]);
    expect(told(page)).toEqual(["a"]);
  });

  test("waits for what is its own", async () => {
    const { world, polls, poll } = await groupOf();
    const none = await poll("one");
    expect(told(none)).toEqual([]);
    const waiting = poll("one", { generation: none.lease?.generation ?? 0, timeoutMs: 60_000 });
    await world.time.pass(500);
    expect(polls.stats().waiting).toBe(1);
    await world.emit("a");
    expect(told(await waiting)).toEqual(["a"]);
  });

  test("that may have no more is told so soon, and not after all the time that it may look", async () => {
    const world = new GroupWorld();
    world.terms = { ...world.terms, maxInFlight: 2 };
    const { poll } = await groupOf(world);
    await world.emit("a", "b", "c", "d");
    const first = await poll("one");
    expect(told(first)).toHaveLength(2);
    const begunMs = world.time.monotonic();
    await poll("one", { generation: first.lease?.generation ?? 0 });
    expect(world.time.monotonic() - begunMs).toBeLessThan(1_000);
    expect(told(await poll("one", next(first)))).toHaveLength(2);
  });
});
