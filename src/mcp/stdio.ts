import type { Readable, Writable } from "node:stream";
import type { Transport } from "@connectrpc/connect";
import { StdioServerTransport, serveStdio } from "@modelcontextprotocol/server/stdio";
import { systemClock, systemTimers } from "../core/clock.ts";
import { createMcpClients } from "./clients.ts";
import { ConsumerMemory } from "./consumer-memory.ts";
import { createMcpServer } from "./mcp-server.ts";

/** One connection of the protocol over two pipes. */
export interface StdioOptions {
  /** To a Millrace server. */
  readonly transport: Transport;
  readonly version: string;
  readonly input: Readable;
  /** Nothing else may be written there. */
  readonly output: Writable;
  /** Ends the connection. */
  readonly signal: AbortSignal;
  /** Told what was wrong with a message, and what broke. */
  readonly onTrouble: (sentence: string) => void;
}

/** Serves until the input ends, the output breaks, or `signal` is aborted. */
export async function serveMcpOverStdio(options: StdioOptions): Promise<void> {
  const { transport, version, input, output, signal, onTrouble } = options;
  const surroundings = {
    clients: createMcpClients(transport),
    memory: new ConsumerMemory(),
    hasConsumersAlone: true,
    clock: systemClock,
    timers: systemTimers,
  };
  const ended = Promise.withResolvers<void>();
  const wire = new StdioServerTransport(input, output);
  const handle = serveStdio(() => createMcpServer({ ...surroundings, version }), {
    transport: wire,
    onerror: (error) => onTrouble(error.message),
  });
  // The entry has put its own listener there: both must hear it.
  const closed = wire.onclose;
  wire.onclose = () => {
    closed?.();
    ended.resolve();
  };
  const end = () => void handle.close();
  if (signal.aborted) end();
  signal.addEventListener("abort", end, { once: true });
  await ended.promise;
  signal.removeEventListener("abort", end);
}
