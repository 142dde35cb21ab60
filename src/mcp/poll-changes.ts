import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { z } from "zod";
import { type PollRequest, PollRequestSchema, type PollResponse } from "../../gen/millrace/v1/feed_service_pb.js";
import { acknowledge } from "./acknowledge.ts";
import { eventFactsFrom, eventSchema } from "./event-facts.ts";
import { defaultMaxBytes, pageText } from "./page-text.ts";
import { knownPollingTerms, type PollingTerms, pollingDefaults } from "./polling-terms.ts";
import { positionDescription, positionFrom } from "./position.ts";
import { answerWithin } from "./rpc-call.ts";
import { briefSelectionShape, includeData, payloadFormOf, selectorsOf, wrongArgument } from "./selection.ts";
import { defineTool, type ToolCall } from "./tool.ts";
import { reportWait } from "./wait-progress.ts";

/** Under the minute after which clients of MCP give a call up unless told otherwise. */
const LONGEST_DEFAULT_WAIT_MS = 50_000;
/** What an event costs beside its key and rows. */
const EVENT_BYTES = 256;
const PAGE_MAX_BYTES = 1_048_576;
/** How long a poll that is not to wait looks through events that nobody selected. */
const LOOK_ON_MS = 5_000;

const input = z.strictObject({
  subscription_id: z
    .string()
    .min(1)
    .optional()
    .describe("As subscribe_changes gave it. Leave out to read from a position without a subscription."),
  cursor: z
    .string()
    .min(1)
    .optional()
    .describe(
      "`cursor` of the poll before. With a subscription it acknowledges everything up to there, so pass it once you have dealt with those events; without it they come again. Without a subscription the page begins there.",
    ),
  from: z
    .string()
    .min(1)
    .optional()
    .describe(`Without a subscription, on the first poll: ${positionDescription} Default: now.`),
  ...briefSelectionShape,
  include_data: includeData.optional().describe("As in subscribe_changes, without a subscription."),
  batch_size: z
    .number()
    .int()
    .min(1)
    .max(1000)
    .optional()
    .describe(`Most events. Default: the subscription's, or ${pollingDefaults.batchSize}.`),
  max_bytes: z
    .number()
    .int()
    .min(4096)
    .max(16_777_216)
    .default(defaultMaxBytes)
    .describe(
      "About the most bytes of events, so that they fit your context. A single larger event comes without its rows.",
    ),
  timeout_seconds: z
    .number()
    .min(0)
    .max(60)
    .optional()
    .describe("How long to wait when there is nothing yet. Default: the subscription's polling interval, 50 at most."),
});

type Input = z.output<typeof input>;

const output = z.object({
  subscription_id: z.string().optional(),
  events: z.array(eventSchema).describe("In order. Empty when nothing came in time"),
  cursor: z.string().describe("Pass it to the next poll_changes. Goes on from here on any transport"),
  has_more: z.boolean().describe("More is there already: poll again at once"),
  complete: z.boolean().describe("The page ends where a transaction does"),
  polling_interval_seconds: z.number().optional().describe("Wait so long before polling again, unless has_more"),
  subscription_active: z.boolean().optional(),
  head_version: z
    .number()
    .int()
    .optional()
    .describe("The newest version of all; of a page that is full it is not said"),
  epoch: z.string(),
});

/** `poll_changes`: Poll, and Acknowledge where this process does not know the lease. */
export const pollChanges = defineTool({
  name: "poll_changes",
  title: "Read changes",
  description:
    "Reads the next committed changes, oldest first, waiting a while when there are none. With `subscription_id`: what has not been acknowledged of it; pass `cursor` of the poll before to acknowledge those events and get the ones after them, or they come again (at least once, nothing lost). Without: what follows `cursor` or `from`, leaving nothing behind.",
  input,
  output,
  destructive: false,
  idempotent: true,
  async run(wanted, call) {
    const terms = await termsOf(wanted, call);
    const stop = reportWait(call, terms.waitMs);
    try {
      const page = await firstPage(await requestOf(wanted, terms, call), terms.waitMs, call);
      const structured = {
        ...(wanted.subscription_id === undefined
          ? {}
          : {
              subscription_id: wanted.subscription_id,
              polling_interval_seconds: terms.intervalSeconds,
              subscription_active: page.subscriptionActive,
            }),
        events: page.events.map(eventFactsFrom),
        cursor: page.cursor,
        has_more: page.hasMore,
        complete: page.complete,
        ...(page.headVersion === undefined ? {} : { head_version: Number(page.headVersion) }),
        epoch: page.epoch,
      };
      return { structured, text: pageText(wanted, structured, terms.waitMs) };
    } finally {
      stop();
    }
  },
});

interface PollTerms extends PollingTerms {
  readonly waitMs: number;
}

async function termsOf(wanted: Input, call: ToolCall): Promise<PollTerms> {
  const { subscription_id: id, batch_size, timeout_seconds } = wanted;
  const { intervalSeconds, batchSize } =
    id === undefined
      ? pollingDefaults
      : await knownPollingTerms(id, call.memory, async () => {
          const { subscriptions } = call.clients;
          return (await subscriptions.getSubscription({ subscriptionId: id }, answerWithin(call))).subscription;
        });
  const waitMs =
    timeout_seconds === undefined ? Math.min(intervalSeconds * 1000, LONGEST_DEFAULT_WAIT_MS) : timeout_seconds * 1000;
  return { intervalSeconds, batchSize: batch_size ?? batchSize, waitMs };
}

/** The request, after what it cannot say itself was acknowledged. */
async function requestOf(wanted: Input, terms: PollTerms, call: ToolCall): Promise<PollRequest> {
  const { subscription_id, cursor, from, max_bytes, include_data } = wanted;
  const request = create(PollRequestSchema, {
    maxEvents: Math.max(1, Math.min(terms.batchSize, Math.floor(max_bytes / EVENT_BYTES))),
    maxBytes: Math.min(max_bytes, PAGE_MAX_BYTES),
    maxMessageBytes: max_bytes,
  });
  if (subscription_id === undefined) {
    if (cursor !== undefined && from !== undefined) {
      throw wrongArgument(
        "from",
        "is where the first poll begins, and `cursor` where a later one does",
        "Give one of them.",
      );
    }
    request.selectors = selectorsOf(wanted);
    request.payloadForm = payloadFormOf(include_data ?? true);
    request.start = cursor === undefined ? positionFrom(from ?? "now") : { case: "afterCursor", value: cursor };
    return request;
  }
  refuseChoices(wanted);
  request.start = { case: "subscriptionId", value: subscription_id };
  const lease = call.memory.get(subscription_id)?.lease;
  if (lease !== undefined) request.member = lease.member;
  if (cursor !== undefined && lease !== undefined) {
    request.acknowledgeCursor = cursor;
    request.generation = lease.generation;
  } else if (cursor !== undefined) {
    await acknowledge(subscription_id, cursor, call);
  }
  return request;
}

/** What a subscription delivers was said when it was made. */
function refuseChoices(wanted: Input): void {
  const { from, topics, keys, operations, filter, fields, include_data } = wanted;
  const choices = { from, topics, keys, operations, filter, fields, include_data };
  for (const [name, value] of Object.entries(choices)) {
    if (value === undefined) continue;
    throw wrongArgument(
      name,
      "does not go with `subscription_id`: the subscription has its own",
      "Leave it out, or make another subscription with subscribe_changes.",
    );
  }
}

/**
 * A page with something in it, or the last one of the time. A page can be empty with more to look at: a model is not asked to come
 * again for that, unless it takes long.
 */
async function firstPage(request: PollRequest, waitMs: number, call: ToolCall): Promise<PollResponse> {
  const { clock, signal, clients } = call;
  const since = clock.monotonic();
  for (;;) {
    const leftMs = Math.max(0, Math.round(since + waitMs - clock.monotonic()));
    request.timeout = durationFromMs(leftMs);
    const page = await clients.feed.poll(request, answerWithin(call, leftMs));
    remember(request, page, call);
    const tired = clock.monotonic() - since >= Math.max(waitMs, LOOK_ON_MS);
    if (page.events.length > 0 || !page.hasMore || tired) return page;
    signal.throwIfAborted();
    goOn(request, page);
  }
}

function remember(request: PollRequest, { lease }: PollResponse, { memory }: ToolCall): void {
  if (request.start.case !== "subscriptionId" || lease === undefined) return;
  memory.add(request.start.value, { lease: { generation: lease.generation, member: lease.member } });
}

function goOn(request: PollRequest, page: PollResponse): void {
  if (request.start.case === "subscriptionId") {
    request.acknowledgeCursor = page.cursor;
    request.generation = page.lease?.generation ?? 0n;
    request.member = page.lease?.member ?? "";
  } else {
    request.start = { case: "afterCursor", value: page.cursor };
  }
}
