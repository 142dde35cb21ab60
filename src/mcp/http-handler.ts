import type { Transport } from "@connectrpc/connect";
import { createMcpHandler, type McpRequestContext } from "@modelcontextprotocol/server";
import { systemClock, systemTimers } from "../core/clock.ts";
import type { RpcLog } from "../rpc/log.ts";
import type { NodeRequest, NodeResponse, RpcHandler } from "../rpc/node-call.ts";
import { peerHeader, peerOf } from "../rpc/peer.ts";
import { createMcpClients } from "./clients.ts";
import { ConsumerMemory } from "./consumer-memory.ts";
import { createMcpServer } from "./mcp-server.ts";
import { beginsSession, WaitingCalls } from "./waiting-calls.ts";
import { readBody, sendWebResponse, webRequestFrom } from "./web-exchange.ts";

/** What `/mcp` needs. */
export interface McpHttpOptions {
  /** To the services of this server. */
  readonly transport: Transport;
  readonly version: string;
  readonly log: RpcLog;
  /** Ends what still streams. */
  readonly shutdownSignal: AbortSignal;
}

/** Far more than any call of a tool is, and little enough to be read before anything is known of it. */
const REQUEST_MAX_BYTES = 1_048_576;

const SESSION_HEADER = "mcp-session-id";

/**
 * The protocol over Streamable HTTP, without state: each request is answered by itself, whichever replica gets it. Whoever calls
 * has passed the rules about origins and names.
 */
export function createMcpHttpHandler(options: McpHttpOptions): RpcHandler {
  const { log, version } = options;
  const surroundings = {
    clients: createMcpClients(options.transport),
    memory: new ConsumerMemory(),
    hasConsumersAlone: false,
    clock: systemClock,
    timers: systemTimers,
  };
  const handler = createMcpHandler(
    (context) => createMcpServer({ ...surroundings, headers: peerIn(context), version }),
    {
      maxRequestBodySize: REQUEST_MAX_BYTES,
    },
  );
  const waiting = new WaitingCalls();
  options.shutdownSignal.addEventListener("abort", () => void handler.close(), { once: true });
  const serve = async (request: NodeRequest, response: NodeResponse): Promise<void> => {
    const gone = new AbortController();
    response.once("close", () => gone.abort());
    // A body that cannot be read is one whose client has gone.
    const body = await readBody(request, REQUEST_MAX_BYTES).catch(() => gone.abort());
    if (gone.signal.aborted) {
      response.destroy();
      return;
    }
    if (body === undefined) {
      refuse(response, 413, `The request is larger than ${REQUEST_MAX_BYTES} bytes.`);
      return;
    }
    const message = messageFrom(body);
    const forget = waiting.note(sessionOf(request), message, gone);
    response.once("close", forget);
    if (beginsSession(message)) response.setHeader(SESSION_HEADER, crypto.randomUUID());
    const asked = webRequestFrom(request, body, gone.signal);
    // Whatever the client has written there.
    asked.headers.set(peerHeader, peerOf(request) ?? "");
    await sendWebResponse(await handler.fetch(asked), response);
  };
  return (request, response) => {
    serve(request, response).catch((error: unknown) => {
      if (!response.destroyed && response.writable)
        log.error({ err: error }, "a request to /mcp failed by a fault of Millrace");
      response.destroy();
    });
  };
}

/** So that the limits on what one address may have hold for agents, too. */
function peerIn({ requestInfo }: McpRequestContext): Readonly<Record<string, string>> {
  const peer = requestInfo?.headers.get(peerHeader) ?? "";
  return peer === "" ? {} : { [peerHeader]: peer };
}

function sessionOf(request: NodeRequest): string | undefined {
  const session = request.headers[SESSION_HEADER];
  return typeof session === "string" ? session : undefined;
}

/** The message of a body; `undefined` when it is none, which the SDK says in the protocol's words. */
function messageFrom(body: Uint8Array): unknown {
  try {
    return body.byteLength === 0 ? undefined : JSON.parse(new TextDecoder().decode(body));
  } catch {
    return undefined;
  }
}

/** As the protocol has errors that belong to no call. */
function refuse(response: NodeResponse, status: number, message: string): void {
  response.statusCode = status;
  response.setHeader("Content-Type", "application/json");
  // What is left of the body is not waited for.
  if (!("stream" in response)) response.setHeader("Connection", "close");
  response.end(JSON.stringify({ jsonrpc: "2.0", error: { code: -32_000, message }, id: null }));
}
