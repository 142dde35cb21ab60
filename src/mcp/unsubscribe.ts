import { z } from "zod";
import { acknowledge } from "./acknowledge.ts";
import { answerWithin } from "./rpc-call.ts";
import { defineTool } from "./tool.ts";

const input = z.strictObject({
  subscription_id: z.string().min(1).describe("As subscribe_changes or get_subscriptions gave it."),
  cursor: z
    .string()
    .min(1)
    .optional()
    .describe(
      "`cursor` of the last poll_changes, when you have dealt with its changes: the final position is then after them.",
    ),
});

const output = z.object({
  subscription_id: z.string(),
  cursor: z
    .string()
    .describe("The final position: everything up to here was acknowledged. Goes on from there on any transport"),
  version: z.number().int().describe("Version of `cursor`"),
});

/** `unsubscribe`: DeleteSubscription. */
export const unsubscribe = defineTool({
  name: "unsubscribe",
  title: "End a subscription",
  description:
    "Deletes a subscription for good and answers with its final cursor, from which subscribe_changes or poll_changes (`from`) can go on later.",
  input,
  output,
  destructive: true,
  // A second call finds nothing, and changes nothing.
  idempotent: true,
  async run({ subscription_id, cursor }, call) {
    if (cursor !== undefined) await acknowledge(subscription_id, cursor, call);
    const final = await call.clients.subscriptions.deleteSubscription(
      { subscriptionId: subscription_id },
      answerWithin(call),
    );
    call.memory.forget(subscription_id);
    const structured = { subscription_id, cursor: final.cursor, version: Number(final.version) };
    return {
      structured,
      text: `Deleted ${subscription_id}. Everything up to version ${structured.version} was acknowledged; to go on from there later: from "${final.cursor}".`,
    };
  },
});
