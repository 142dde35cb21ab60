import { fileURLToPath } from "node:url";
import { type CallToolRequestOptions, Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

const binary = fileURLToPath(new URL("../../bin/millrace.js", import.meta.url));

/** The revisions of the protocol: those with a handshake, and the one without. */
export type Era = "legacy" | "auto";

/** An event as `poll_changes` gives it. */
export interface AgentEvent {
  readonly version: number;
  readonly topic: string;
  readonly key?: string;
  readonly operation: string;
  readonly transition?: string;
  readonly before?: string;
  readonly after?: string;
  readonly attempt?: number;
  readonly payload_omitted?: string;
}

/** What a tool said. */
export interface Said {
  readonly isError: boolean;
  readonly text: string;
  readonly structured: Readonly<Record<string, unknown>>;
  readonly events: readonly AgentEvent[];
  /** The `cursor` of it; empty when it has none. */
  readonly cursor: string;
  readonly subscriptionId: string;
}

/** The official client of the protocol, as an agent's host has it. */
export interface Agent extends AsyncDisposable {
  readonly client: Client;
  call(tool: string, args?: Readonly<Record<string, unknown>>, options?: CallToolRequestOptions): Promise<Said>;
}

/** One that started a `millrace mcp` of its own. */
export interface StdioAgent extends Agent {
  readonly pid: number;
  readonly stderr: () => string;
}

/** Starts `millrace mcp`, as the configuration of an agent does. */
export async function stdioAgent(url: string, era: Era = "legacy"): Promise<StdioAgent> {
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: [binary, "mcp", "--url", url],
    stderr: "pipe",
  });
  let stderr = "";
  transport.stderr?.on("data", (chunk: Buffer) => {
    stderr += chunk.toString("utf8");
  });
  const client = clientOf(era);
  await client.connect(transport);
  return { ...agentOf(client), pid: transport.pid ?? 0, stderr: () => stderr };
}

/** Calls `/mcp` of a running server. */
export async function httpAgent(url: string, era: Era = "legacy"): Promise<Agent> {
  const client = clientOf(era);
  await client.connect(new StreamableHTTPClientTransport(new URL(`${url}/mcp`)));
  return agentOf(client);
}

function clientOf(mode: Era): Client {
  return new Client({ name: "test-agent", version: "1.0.0" }, { versionNegotiation: { mode } });
}

function agentOf(client: Client): Agent {
  return {
    client,
    async call(name, args = {}, options) {
      const result = await client.callTool({ name, arguments: { ...args } }, options);
      const structured: Readonly<Record<string, unknown>> = { ...Object(result.structuredContent) };
      const text = result.content.map((part) => (part.type === "text" ? part.text : "")).join("\n");
      return {
        isError: result.isError === true,
        text,
        structured,
        events: Array.isArray(structured.events) ? structured.events : [],
        cursor: String(structured.cursor ?? ""),
        subscriptionId: String(structured.subscription_id ?? ""),
      };
    },
    [Symbol.asyncDispose]: () => client.close(),
  };
}
