import { z } from "zod";
import type { Subscription } from "../../gen/millrace/v1/subscription_service_pb.js";
import { answerWithin, nextCall } from "./rpc-call.ts";
import { wrongArgument } from "./selection.ts";
import {
  type SubscriptionFacts,
  subscriptionFactsFrom,
  subscriptionSchema,
  subscriptionText,
} from "./subscription-facts.ts";
import { defineTool, type ToolCall } from "./tool.ts";

const PAGE_MAX_BYTES = 32_768;

const input = z.strictObject({
  subscription_id: z.string().min(1).optional().describe("Only this one; goes with no other filter."),
  topic: z
    .string()
    .optional()
    .describe("Only those that could deliver a change of this topic, for example `orders.eu`."),
  owner: z
    .string()
    .optional()
    .describe("Only of this owner; those that subscribe_changes makes are of `mcp` unless told otherwise."),
  labels: z.record(z.string(), z.string()).optional().describe("Only those that have all of these."),
  page_size: z.number().int().min(1).max(100).default(20).describe("Most subscriptions of one answer."),
  page_token: z.string().optional().describe("`next_page_token` of the answer before, with the same filters."),
});

const output = z.object({
  subscriptions: z.array(subscriptionSchema).describe("In the order of their names"),
  total: z.number().int().describe("Of all pages"),
  next_page_token: z.string().optional().describe("Absent on the last page"),
});

interface Found {
  readonly subscriptions: readonly Subscription[];
  readonly total: number;
  readonly nextPageToken: string;
}

/** `get_subscriptions`: ListSubscriptions, and GetSubscription for a single one. */
export const getSubscriptions = defineTool({
  name: "get_subscriptions",
  title: "List subscriptions",
  description:
    "Lists durable subscriptions with what they deliver, whose they are, where they stand and how far they are behind.",
  input,
  output,
  readOnly: true,
  destructive: false,
  idempotent: true,
  async run(wanted, call) {
    const { facts, total, nextPageToken } = await fitting(wanted, call);
    const count = `${facts.length === total ? total : `${facts.length} of ${total}`} subscription${total === 1 ? "" : "s"}`;
    return {
      structured: {
        subscriptions: facts,
        total,
        ...(nextPageToken === "" ? {} : { next_page_token: nextPageToken }),
      },
      text: [
        total === 0 ? "No subscriptions." : `${count}:`,
        ...facts.map(subscriptionText),
        ...(nextPageToken === ""
          ? []
          : [`Next page: ${nextCall("get_subscriptions", { ...wanted, page_token: nextPageToken })}`]),
      ].join("\n"),
    };
  },
});

interface Page extends Omit<Found, "subscriptions"> {
  readonly facts: SubscriptionFacts[];
}

/** A page that is not too large for a model, asked for again with fewer when it is. */
async function fitting(wanted: z.output<typeof input>, call: ToolCall): Promise<Page> {
  const { subscriptions, total, nextPageToken } = await find(wanted, call);
  const facts = subscriptions.map(subscriptionFactsFrom);
  let bytes = 0;
  const fit = facts.findIndex((one) => {
    bytes += JSON.stringify(one).length;
    return bytes > PAGE_MAX_BYTES;
  });
  const isFine = fit < 0 || facts.length === 1;
  return isFine ? { facts, total, nextPageToken } : fitting({ ...wanted, page_size: Math.max(1, fit) }, call);
}

async function find(wanted: z.output<typeof input>, call: ToolCall): Promise<Found> {
  const { subscription_id, topic, owner, labels, page_size, page_token } = wanted;
  if (subscription_id === undefined) {
    const listed = await call.clients.subscriptions.listSubscriptions(
      {
        topic: topic ?? "",
        owner: owner ?? "",
        labels: labels ?? {},
        pageSize: page_size,
        pageToken: page_token ?? "",
      },
      answerWithin(call),
    );
    return { ...listed, total: Number(listed.total) };
  }
  if ([topic, owner, labels, page_token].some((filter) => filter !== undefined)) {
    throw wrongArgument(
      "subscription_id",
      "names one subscription, and goes with no other filter",
      "Leave the others out.",
    );
  }
  const { subscription } = await call.clients.subscriptions.getSubscription(
    { subscriptionId: subscription_id },
    answerWithin(call),
  );
  const subscriptions = subscription === undefined ? [] : [subscription];
  return { subscriptions, total: subscriptions.length, nextPageToken: "" };
}
