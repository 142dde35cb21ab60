import type { z } from "zod";
import type { Clock, Timers } from "../core/ports.ts";
import type { McpClients } from "./clients.ts";
import type { ConsumerMemory } from "./consumer-memory.ts";

/** What a tool may use. */
export interface ToolSurroundings {
  readonly clients: McpClients;
  readonly memory: ConsumerMemory;
  /**
   * Whether all polls of a consumer come here, so that one that is fenced means another consumer. Where any replica may get the next
   * one it means nothing.
   */
  readonly hasConsumersAlone: boolean;
  /** Sent with every RPC. Default: none. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly clock: Clock;
  readonly timers: Timers;
}

/** One call of a tool. */
export interface ToolCall extends ToolSurroundings {
  /** Aborted when the client cancels the call, or has gone. */
  readonly signal: AbortSignal;
  /** Tells the client how far a wait has come, in seconds. `undefined` when it did not ask. */
  readonly progress: ((seconds: number, ofSeconds: number, message: string) => void) | undefined;
}

/** What a tool says: the same twice, for programs and for models. Hosts show a model one of the two. */
export interface ToolAnswer<Structured> {
  readonly structured: Structured;
  readonly text: string;
}

/** A tool, as a model sees it and as it is run. Failures are thrown; `tool-failure.ts` makes answers of them. */
export interface Tool<Input extends z.ZodType, Output extends z.ZodObject> {
  readonly name: string;
  readonly title: string;
  readonly description: string;
  readonly input: Input;
  readonly output: Output;
  /** Nothing is changed by calling it. Default false. */
  readonly readOnly?: boolean;
  /** Something is gone afterwards. */
  readonly destructive: boolean;
  /** Calling it again with the same arguments changes nothing more. */
  readonly idempotent: boolean;
  run(input: z.output<Input>, call: ToolCall): Promise<ToolAnswer<z.output<Output>>>;
}

/** Lets the compiler find a tool's types. */
export function defineTool<Input extends z.ZodType, Output extends z.ZodObject>(
  tool: Tool<Input, Output>,
): Tool<Input, Output> {
  return tool;
}
