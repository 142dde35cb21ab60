import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { z } from "zod";
import type { PollRequest, PollResponse } from "../../gen/millrace/v1/feed_service_pb.js";
import { acknowledge, isOfAnotherReplica } from "./acknowledge.ts";
import { eventFactsFrom, eventSchema } from "./event-facts.ts";
import { defaultMaxBytes, pageText } from "./page-text.ts";
import { pollRequestFrom } from "./poll-request.ts";
import { knownPollingTerms, type PollingTerms, pollingDefaults } from "./polling-terms.ts";
import { positionDescription } from "./position.ts";
import { answerWithin } from "./rpc-call.ts";
import { briefSelectionShape, includeData } from "./selection.ts";
import { defineTool, type ToolCall } from "./tool.ts";
import { reportWait } from "./wait-progress.ts";

/** Under the minute after which clients of MCP give a call up unless told otherwise. */
const LONGEST_DEFAULT_WAIT_MS = 50_000;
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
    const since = call.clock.monotonic();
    const terms = await termsOf(wanted, call);
    const stop = reportWait(call, terms.waitMs);
    try {
      const page = await firstPage(await pollRequestFrom(wanted, terms.batchSize, call), terms.waitMs, call);
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
      return { structured, text: pageText(wanted, structured, Math.min(terms.waitMs, call.clock.monotonic() - since)) };
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

/**
 * A page with something in it, or the last one of the time. A page can be empty with more to look at: a model is not asked to come
 * again for that, unless it takes long.
 */
async function firstPage(request: PollRequest, waitMs: number, call: ToolCall): Promise<PollResponse> {
  const { clock, signal } = call;
  const since = clock.monotonic();
  for (;;) {
    const leftMs = Math.max(0, Math.round(since + waitMs - clock.monotonic()));
    request.timeout = durationFromMs(leftMs);
    const page = await askFor(request, leftMs, call);
    remember(request, page, call);
    const tired = clock.monotonic() - since >= Math.max(waitMs, LOOK_ON_MS);
    if (page.events.length > 0 || !page.hasMore || tired) return page;
    signal.throwIfAborted();
    goOn(request, page);
  }
}

async function askFor(request: PollRequest, waitMs: number, call: ToolCall): Promise<PollResponse> {
  const { start, acknowledgeCursor } = request;
  const ask = () => call.clients.feed.poll(request, answerWithin(call, waitMs));
  try {
    return await ask();
  } catch (error) {
    if (start.case !== "subscriptionId" || acknowledgeCursor === "" || !isOfAnotherReplica(error, call)) throw error;
    call.memory.add(start.value, { lease: undefined });
    await acknowledge(start.value, acknowledgeCursor, call);
    request.acknowledgeCursor = "";
    request.generation = 0n;
    return await ask();
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
