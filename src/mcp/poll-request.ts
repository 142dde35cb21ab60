import { create } from "@bufbuild/protobuf";
import { type PollRequest, PollRequestSchema } from "../../gen/millrace/v1/feed_service_pb.js";
import { acknowledge } from "./acknowledge.ts";
import { positionFrom } from "./position.ts";
import { payloadFormOf, type Selection, selectorsOf, wrongArgument } from "./selection.ts";
import type { ToolCall } from "./tool.ts";

/** What an event costs a context beside its key and rows, so that many small ones are bounded, too. */
const EVENT_BYTES = 256;
/** As `PollRequest.max_bytes`. */
const PAGE_MAX_BYTES = 1_048_576;

/** What a poll was asked for. */
export interface PollWish extends Selection {
  readonly subscription_id?: string | undefined;
  readonly cursor?: string | undefined;
  readonly from?: string | undefined;
  readonly include_data?: boolean | undefined;
  readonly max_bytes: number;
}

/**
 * The request, once what it cannot say itself has been acknowledged.
 *
 * @throws FeedError INVALID_REQUEST for arguments that do not go together
 */
export async function pollRequestFrom(wish: PollWish, batchSize: number, call: ToolCall): Promise<PollRequest> {
  const request = create(PollRequestSchema, {
    maxEvents: Math.max(1, Math.min(batchSize, Math.floor(wish.max_bytes / EVENT_BYTES))),
    maxBytes: Math.min(wish.max_bytes, PAGE_MAX_BYTES),
    maxMessageBytes: wish.max_bytes,
  });
  if (wish.subscription_id === undefined) {
    beginAt(request, wish);
  } else {
    refuseChoices(wish);
    await takeUp(request, wish.subscription_id, wish.cursor, call);
  }
  return request;
}

function beginAt(request: PollRequest, wish: PollWish): void {
  const { cursor, from, include_data } = wish;
  if (cursor !== undefined && from !== undefined) {
    throw wrongArgument(
      "from",
      "is where the first poll begins, and `cursor` where a later one does",
      "Give one of them.",
    );
  }
  request.selectors = selectorsOf(wish);
  request.payloadForm = payloadFormOf(include_data ?? true);
  request.start = cursor === undefined ? positionFrom(from ?? "now") : { case: "afterCursor", value: cursor };
}

async function takeUp(request: PollRequest, id: string, cursor: string | undefined, call: ToolCall): Promise<void> {
  request.start = { case: "subscriptionId", value: id };
  const lease = call.memory.get(id)?.lease;
  if (lease !== undefined) request.member = lease.member;
  if (cursor !== undefined && lease !== undefined) {
    request.acknowledgeCursor = cursor;
    request.generation = lease.generation;
  } else if (cursor !== undefined) {
    await acknowledge(id, cursor, call);
  }
}

/** What a subscription delivers was said when it was made. */
function refuseChoices(wish: PollWish): void {
  const { from, topics, keys, operations, filter, fields, include_data } = wish;
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
