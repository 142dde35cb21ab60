import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { z } from "zod";
import { CreateSubscriptionRequestSchema } from "../../gen/millrace/v1/subscription_service_pb.js";
import { pollingDefaults, pollingLabels, rememberedOf } from "./polling-terms.ts";
import { positionDescription, positionFrom } from "./position.ts";
import { answerWithin, nextCall } from "./rpc-call.ts";
import { includeData, payloadFormOf, selectionShape, selectorsOf } from "./selection.ts";
import { subscriptionFactsFrom, subscriptionSchema, subscriptionText } from "./subscription-facts.ts";
import { defineTool } from "./tool.ts";

const HOUR_MS = 3_600_000;
/** So that an agent that never comes back does not hold history for ever. */
const WEEK_HOURS = 168;

const input = z.strictObject({
  ...selectionShape,
  include_data: includeData.default(true),
  from: z.string().min(1).default("now").describe(`Where it begins: ${positionDescription}`),
  polling_interval_seconds: z
    .number()
    .int()
    .min(0)
    .max(86_400)
    .default(pollingDefaults.intervalSeconds)
    .describe(
      "How long to wait between polls, in seconds; a poll itself waits so long (50 at most) for something new.",
    ),
  batch_size: z
    .number()
    .int()
    .min(1)
    .max(1000)
    .default(pollingDefaults.batchSize)
    .describe("Most changes of one poll, unless the poll says otherwise."),
  subscription_id: z
    .string()
    .regex(/^[A-Za-z0-9_.:/-]{1,255}$/, "must have 1 to 255 letters, digits, _ - . : /")
    .optional()
    .describe("A name of your choice, so that asking again finds the same subscription. Leave out for a new one."),
  owner: z.string().max(255).default("mcp").describe("Whose it is: free text, for get_subscriptions."),
  labels: z.record(z.string(), z.string()).optional().describe("Whatever helps to find it again."),
  expire_after_hours: z
    .number()
    .min(1 / 60)
    .max(87_600)
    .default(WEEK_HOURS)
    .describe("It is deleted when nobody has polled it for so long. Default: a week."),
});

const output = subscriptionSchema.extend({
  existed: z.boolean().describe("It was there already, with the same definition"),
});

/** `subscribe_changes`: CreateSubscription. */
export const subscribeChanges = defineTool({
  name: "subscribe_changes",
  title: "Subscribe to changes",
  description:
    "Starts watching committed changes of a Postgres database: rows inserted, updated, deleted, and messages of applications. Creates a durable subscription, which remembers what was acknowledged, whoever comes and goes; read it with poll_changes, end it with unsubscribe. Nothing is missed in between.",
  input,
  output,
  destructive: false,
  // Without a name each call makes another one.
  idempotent: false,
  async run(wanted, call) {
    const polling = { intervalSeconds: wanted.polling_interval_seconds, batchSize: wanted.batch_size };
    const { subscription, existed } = await call.clients.subscriptions.createSubscription(
      create(CreateSubscriptionRequestSchema, {
        subscriptionId: wanted.subscription_id ?? "",
        selectors: selectorsOf(wanted),
        payloadForm: payloadFormOf(wanted.include_data),
        owner: wanted.owner,
        labels: { ...wanted.labels, ...pollingLabels(polling) },
        expireAfter: durationFromMs(Math.round(wanted.expire_after_hours * HOUR_MS)),
        start: positionFrom(wanted.from),
      }),
      answerWithin(call),
    );
    if (subscription === undefined) throw new Error("the server answered without the subscription");
    call.memory.add(subscription.subscriptionId, rememberedOf(subscription));
    const facts = subscriptionFactsFrom(subscription);
    return {
      structured: { ...facts, existed },
      text: [
        `${existed ? "There already" : "Subscribed"}: ${subscriptionText(facts)}`,
        `Next: ${nextCall("poll_changes", { subscription_id: facts.subscription_id })}`,
      ].join("\n"),
    };
  },
});
