import { ConnectError } from "@connectrpc/connect";
import { ErrorCode, ErrorDetailSchema } from "../../gen/millrace/v1/error_pb.js";
import { answerWithin } from "./rpc-call.ts";
import type { ToolCall } from "./tool.ts";

/** Says of a subscription that everything up to this cursor need not come again: in the lease that is remembered, if any. */
export async function acknowledge(subscriptionId: string, cursor: string, call: ToolCall): Promise<void> {
  const lease = call.memory.get(subscriptionId)?.lease;
  try {
    await call.clients.subscriptions.acknowledge(
      // Generation 0 is whoever has it, which can only move the position forward.
      { subscriptionId, cursor, generation: lease?.generation ?? 0n, member: lease?.member ?? "" },
      answerWithin(call),
    );
  } catch (error) {
    if (lease === undefined || !isOfAnotherReplica(error, call)) throw error;
    call.memory.add(subscriptionId, { lease: undefined });
    await acknowledge(subscriptionId, cursor, call);
  }
}

/** Whether the lease that was remembered is an old one merely because another replica served the same consumer since. */
export function isOfAnotherReplica(error: unknown, { hasConsumersAlone }: ToolCall): boolean {
  if (hasConsumersAlone || !(error instanceof ConnectError)) return false;
  return error.findDetails(ErrorDetailSchema).some(({ code }) => code === ErrorCode.SUBSCRIPTION_FENCED);
}
