import type { CallOptions } from "@connectrpc/connect";
import type { ToolCall } from "./tool.ts";

/** An answer that needs no waiting for events is there by then, or the server is not. */
const ANSWER_MS = 15_000;

/** The terms of a call: it ends with the tool's, and not long after it should have been answered. */
export function answerWithin({ signal, headers = {} }: ToolCall, waitMs = 0): CallOptions {
  return { signal, timeoutMs: waitMs + ANSWER_MS, headers };
}

/** A call that the model can copy. */
export function nextCall(tool: string, args: Readonly<Record<string, unknown>>): string {
  return `${tool} ${JSON.stringify(args)}`;
}
