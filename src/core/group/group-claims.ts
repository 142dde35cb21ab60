import { FeedError } from "../errors.ts";
import type { Feed, StreamRequest } from "../feed.ts";
import { eventBytes } from "../page.ts";
import type { Clock } from "../ports.ts";
import { inTermsOf } from "../subscription/subscription-failures.ts";
import type { Claimant, SubscriptionRecord, SubscriptionStore } from "../subscription/subscription-store.ts";
import type { SubscriptionTerms } from "../subscription/subscriptions.ts";
import type { KnownDeadLetter } from "./group-dead-letters.ts";
import type { ClaimedGroup } from "./group-host.ts";
import type { GroupLimits } from "./group-limits.ts";

/** A claim holds so long without being renewed: the longest that a group stands still when its replica dies. */
export const LEASE_MS = 10_000;
/** Before the claim may be over by the database's clock, nothing is given out any more. */
export const SAFE_MS = LEASE_MS * 0.8;
/** Dead letters of one read. */
const LETTERS_PAGE = 1_000;
/** The group's stream says so often how far it has come: that much history is read again after a restart. */
const CHECKPOINT_MS = 1_000;
const MAX_BATCH_BYTES = 1024 * 1024;
/** Others have their turn between two of them. */
const MAX_BATCH_EVENTS = 2_000;

/** What groups are taken up with. */
export interface ClaimContext {
  readonly store: SubscriptionStore;
  readonly feed: Pick<Feed, "open">;
  readonly clock: Clock;
  readonly claimant: Claimant;
  readonly limits: Partial<GroupLimits> | undefined;
  readonly signal: AbortSignal;
}

/** Who has a group. */
export type Whereabouts =
  | { readonly kind: "here"; readonly group: ClaimedGroup; readonly askedAtMs: number }
  | { readonly kind: "elsewhere"; readonly url: string | undefined; readonly forMs: number };

/**
 * Takes a group up, unless another replica has it: its state, its dead letters, and the stream that feeds it.
 *
 * @param termsOf - of the record as it is claimed
 * @throws FeedError SUBSCRIPTION_PAUSED, HISTORY_LOST, EPOCH_CHANGED
 */
export async function takeUp(
  id: string,
  termsOf: (record: SubscriptionRecord) => SubscriptionTerms,
  context: ClaimContext,
): Promise<Whereabouts> {
  const { store, clock, claimant, limits, signal } = context;
  const askedAtMs = clock.monotonic();
  const claim = await store.claim(id, claimant, signal);
  if (claim.kind === "held") {
    const { url, untilMs } = claim.holder;
    return { kind: "elsewhere", url, forMs: untilMs - clock.now() };
  }
  const { record, progress } = claim;
  const { generation, position } = record;
  try {
    const { request, group: terms } = termsOf(record);
    if (terms === undefined) {
      throw new FeedError("INTERNAL", `Group "${id}" has no terms.`, "Report this as a fault of Millrace.");
    }
    const deadLetters = record.deadLetters === 0 ? [] : await allDeadLetters(id, store, signal);
    const { selectors } = request;
    const open = (cursor: string) => context.feed.open(streamRequest(selectors, cursor), signal);
    const stream = await open(position.cursor);
    return {
      kind: "here",
      group: { id, generation, terms, position, progress, deadLetters, stream, open, limits },
      askedAtMs,
    };
  } catch (error) {
    await store.release([{ id, generation }], signal).catch(() => undefined);
    throw inTermsOf(id, error);
  }
}

function streamRequest(selectors: StreamRequest["selectors"], cursor: string): StreamRequest {
  return {
    start: { kind: "cursor", cursor },
    selectors,
    checkpointIntervalMs: CHECKPOINT_MS,
    maxBatchBytes: MAX_BATCH_BYTES,
    maxBatchEvents: MAX_BATCH_EVENTS,
    codec: { identity: "group", measure: eventBytes },
    afterTransaction: undefined,
    deadlineMs: undefined,
  };
}

/** Who has the group, without taking it up: `undefined` when nobody has. */
export async function whereIs(
  id: string,
  { store, clock, claimant, signal }: ClaimContext,
): Promise<Extract<Whereabouts, { readonly kind: "elsewhere" }> | undefined> {
  const claim = await store.claim(id, claimant, signal);
  if (claim.kind === "held") {
    const { url, untilMs } = claim.holder;
    return { kind: "elsewhere", url, forMs: untilMs - clock.now() };
  }
  await store.release([{ id, generation: claim.record.generation }], signal);
  return undefined;
}

/** Without what is in them, of which there may be more than memory. By version. */
export async function allDeadLetters(
  id: string,
  store: Pick<SubscriptionStore, "deadLetters">,
  signal: AbortSignal,
): Promise<readonly KnownDeadLetter[]> {
  const letters: KnownDeadLetter[] = [];
  for (;;) {
    const page = { limit: LETTERS_PAGE, after: letters.at(-1)?.version };
    const { items, more } = await store.deadLetters(id, {}, page, signal);
    letters.push(...items.map(({ version, topic, key }) => ({ version, topic, key })));
    if (!more || items.length === 0) {
      return letters;
    }
  }
}
