import { encodeCursor } from "../../../src/core/cursor.ts";
import { eventBytes } from "../../../src/core/page.ts";
import type { PolledPage, PollRequest } from "../../../src/core/poll/polled-page.ts";
import type { Polls } from "../../../src/core/poll/polls.ts";
import type { ManualTime } from "./manual-time.ts";

/** A page of everything from the first version, without waiting. */
export const POLL: PollRequest = {
  start: { kind: "version", version: 0, epoch: undefined },
  selectors: [],
  codec: { identity: "poll test", measure: eventBytes, wantsTicks: true },
  maxEvents: 1_000,
  maxBytes: 1_048_576,
  timeoutMs: 0,
  deadlineMs: undefined,
};

/** Topics of these. */
export function of(...topics: readonly string[]): PollRequest["selectors"] {
  return [{ topics, keys: [], operations: [] }];
}

/** The start of the page after this one. */
export function following({ cursor }: Pick<PolledPage, "cursor">): Pick<PollRequest, "start"> {
  return { start: { kind: "cursor", cursor: encodeCursor(cursor) } };
}

/** All that a client sees of a page, as text. */
export function seen({ events, cursor, hasMore, complete, head }: PolledPage): string {
  const versions = events.map(({ version, topic }) => `${version} ${topic}`);
  return JSON.stringify([versions, encodeCursor(cursor), hasMore, complete, head]);
}

/** Moves time until the work is done, and not further than that takes. */
export async function during<T>(time: ManualTime, work: Promise<T>): Promise<T> {
  let done = false;
  const end = () => {
    done = true;
  };
  work.then(end, end);
  for (let turns = 0; !done; turns += 1) {
    if (turns > 100_000) throw new Error("it does not end");
    await time.pass(1);
  }
  return await work;
}

/** Pages from a start until there is no more. */
export async function pagesOf(time: ManualTime, polls: Polls, request: Partial<PollRequest>): Promise<PolledPage[]> {
  const pages: PolledPage[] = [];
  let next: PollRequest = { ...POLL, ...request };
  for (;;) {
    const page = await during(time, polls.poll(next, new AbortController().signal));
    pages.push(page);
    if (!page.hasMore) return pages;
    next = { ...next, ...following(page) };
  }
}
