import { answerWithin } from "./rpc-call.ts";
import type { ToolCall } from "./tool.ts";

/** Says of a subscription that everything up to this cursor need not come again: in the lease that is remembered, if any. */
export async function acknowledge(subscriptionId: string, cursor: string, call: ToolCall): Promise<void> {
  const lease = call.memory.get(subscriptionId)?.lease;
  await call.clients.subscriptions.acknowledge(
    // Generation 0 is whoever has it, which can only move the position forward.
    { subscriptionId, cursor, generation: lease?.generation ?? 0n, member: lease?.member ?? "" },
    answerWithin(call),
  );
}
