import { type EventFacts, eventText } from "./event-facts.ts";
import { nextCall } from "./rpc-call.ts";
import type { Selection } from "./selection.ts";

/** About as many bytes of events as go well into a model's context beside what else it has. */
export const defaultMaxBytes = 32_768;

/** What a page of events says of itself. */
export interface PageFacts {
  readonly subscription_id?: string | undefined;
  readonly events: readonly EventFacts[];
  readonly cursor: string;
  readonly has_more: boolean;
  readonly polling_interval_seconds?: number | undefined;
}

/** What was asked for, so that the next call can ask the same. */
export interface PageWish extends Selection {
  readonly include_data?: boolean | undefined;
  readonly batch_size?: number | undefined;
  readonly max_bytes: number;
  readonly timeout_seconds?: number | undefined;
}

/**
 * A page for a model: what came, what is missing of it, and the call that goes on.
 *
 * @param waitedMs - at most what was asked for: a server that goes down answers earlier
 */
export function pageText(wish: PageWish, page: PageFacts, waitedMs: number): string {
  const { events, subscription_id: id, has_more } = page;
  const count = `${events.length} event${events.length === 1 ? "" : "s"}`;
  const waited = waitedMs < 100 ? "" : ` within ${Number((waitedMs / 1000).toFixed(1))} s`;
  const pause = page.polling_interval_seconds ?? 0;
  const when = has_more ? "at once" : pause === 0 ? "when you like" : `in about ${pause} s`;
  return [
    events.length === 0 ? `Nothing new${waited}.` : `${count}${has_more ? ", and there may be more" : ""}:`,
    ...events.map(eventText),
    ...again(events),
    ...omitted(events),
    `Next, ${when}: ${nextCall("poll_changes", nextArguments(wish, page))}`,
    ...(id !== undefined && events.length > 0
      ? ["That call acknowledges these events: deal with them first. Without `cursor` they come again."]
      : []),
  ].join("\n");
}

function nextArguments(wish: PageWish, { subscription_id, cursor }: PageFacts): Readonly<Record<string, unknown>> {
  const { topics, keys, operations, filter, fields, include_data, batch_size, timeout_seconds } = wish;
  const max_bytes = wish.max_bytes === defaultMaxBytes ? undefined : wish.max_bytes;
  const same = { topics, keys, operations, filter, fields, include_data, batch_size, max_bytes, timeout_seconds };
  return { ...(subscription_id === undefined ? {} : { subscription_id }), cursor, ...same };
}

function again(events: readonly EventFacts[]): readonly string[] {
  if (!events.some(({ attempt }) => attempt !== undefined)) return [];
  return ["Those with an attempt were given before and not acknowledged."];
}

function omitted(events: readonly EventFacts[]): readonly string[] {
  const one = events.find(({ payload_omitted }) => payload_omitted !== undefined);
  if (one === undefined) return [];
  const whole = { from: `version:${one.version - 1}`, batch_size: 1, max_bytes: PLENTY_BYTES };
  return [
    `Rows larger than max_bytes were left out. To have #${one.version}: ${nextCall("poll_changes", whole)}, or with \`fields\` the columns that you need.`,
  ];
}

const PLENTY_BYTES = 1_048_576;
