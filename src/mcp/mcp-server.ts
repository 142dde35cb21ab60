import {
  type CallToolResult,
  McpServer,
  type ServerContext,
  type StandardSchemaWithJSON,
} from "@modelcontextprotocol/server";
import type { z } from "zod";
import { FeedError } from "../core/errors.ts";
import { getSubscriptions } from "./get-subscriptions.ts";
import { pollChanges } from "./poll-changes.ts";
import { subscribeChanges } from "./subscribe-changes.ts";
import type { Tool, ToolCall, ToolSurroundings } from "./tool.ts";
import { failureText, type ToolFailure, toolFailureFrom } from "./tool-failure.ts";
import { unsubscribe } from "./unsubscribe.ts";

/** What a server of the protocol needs. */
export interface McpServerOptions extends ToolSurroundings {
  /** Of Millrace. */
  readonly version: string;
}

const instructions = `Millrace delivers the committed changes of a Postgres database, in one total order, without loss.
Watch: subscribe_changes once, then poll_changes with its subscription_id; deal with the events of each answer, and pass its cursor to the next poll, which acknowledges them. End with unsubscribe: what is acknowledged is remembered for whoever comes later, and holds history back until then.
Look only: poll_changes without a subscription, from a position.
Rows come as JSON text in which every digit is exact; keep large numbers as text.`;

/** A server with the four tools, to be connected to one transport. */
export function createMcpServer(options: McpServerOptions): McpServer {
  const server = new McpServer(
    { name: "millrace", title: "Millrace", version: options.version },
    // The tools are what they are for as long as the process lives.
    { instructions, capabilities: { tools: { listChanged: false } } },
  );
  register(server, subscribeChanges, options);
  register(server, pollChanges, options);
  register(server, unsubscribe, options);
  register(server, getSubscriptions, options);
  return server;
}

function register<Input extends z.ZodType, Output extends z.ZodObject>(
  server: McpServer,
  tool: Tool<Input, Output>,
  surroundings: ToolSurroundings,
): void {
  const { name, title, description, readOnly = false, destructive, idempotent } = tool;
  server.registerTool(
    name,
    {
      title,
      description,
      inputSchema: shown(tool.input),
      outputSchema: tool.output,
      annotations: {
        title,
        readOnlyHint: readOnly,
        destructiveHint: destructive,
        idempotentHint: idempotent,
        // One database, and nothing beyond it.
        openWorldHint: false,
      },
    },
    async (given: unknown, context: ServerContext): Promise<CallToolResult> => {
      try {
        const { structured, text } = await tool.run(parsed(tool.input, given), callOf(context, surroundings));
        return { structuredContent: structured, content: [{ type: "text", text }] };
      } catch (error) {
        return failed(toolFailureFrom(error));
      }
    },
  );
}

/**
 * The schema as clients see it, which takes anything: what is wrong with the arguments is said in the tools' own words, with a code,
 * like every other failure.
 */
function shown(schema: z.ZodType): StandardSchemaWithJSON {
  const { jsonSchema } = schema["~standard"];
  return { "~standard": { version: 1, vendor: "millrace", validate: (value: unknown) => ({ value }), jsonSchema } };
}

function parsed<Input extends z.ZodType>(schema: Input, given: unknown): z.output<Input> {
  const { data, error } = schema.safeParse(given ?? {});
  if (error === undefined) return data;
  const violations = error.issues.map(({ path, message }) => ({ field: path.join("."), message }));
  throw new FeedError("INVALID_REQUEST", "The arguments are not what the tool takes.", "Correct them:", { violations });
}

function callOf({ mcpReq }: ServerContext, surroundings: ToolSurroundings): ToolCall {
  const token = mcpReq._meta?.progressToken;
  return {
    ...surroundings,
    signal: mcpReq.signal,
    progress:
      token === undefined
        ? undefined
        : (progress, total, message) => {
            const params = { progressToken: token, progress, total, message };
            // Whoever has gone needs no news.
            mcpReq.notify({ method: "notifications/progress", params }).catch(() => undefined);
          },
  };
}

function failed(failure: ToolFailure): CallToolResult {
  const { code, message, action } = failure;
  return {
    isError: true,
    content: [{ type: "text", text: failureText(failure) }],
    _meta: { "millrace/error": { code, message, action } },
  };
}
