import { createClient } from "@connectrpc/connect";
import type { Command } from "commander";
import { FeedService } from "../../../gen/millrace/v1/feed_service_pb.js";
import { serverVersion } from "../../server/version.ts";
import { failureFrom } from "../failure.ts";
import { connectServer, serverUrl } from "../feed-client.ts";
import { interruptedCode, type Terminal } from "../terminal.ts";

/** Agents pause for minutes, in which proxies and NATs forget connections. */
const PING_INTERVAL_MS = 20_000;

/** Adds `millrace mcp`. */
export function addMcp(program: Command, terminal: Terminal): void {
  program
    .command("mcp")
    .description("serve the Model Context Protocol on standard input and output, for agents")
    .option("--url <url>", "the server (default: $MILLRACE_URL, else http://127.0.0.1:7400)")
    .addHelpText(
      "after",
      `
Tools: subscribe_changes, poll_changes, unsubscribe, get_subscriptions (docs/transports.md#mcp).
A running server also serves them over HTTP, at /mcp.
Standard output carries the protocol and nothing else; notes go to stderr. It ends when its input does.

In the configuration of an agent:
  { "mcpServers": { "millrace": { "command": "npx", "args": ["millrace", "mcp"] } } }
  { "mcpServers": { "millrace": { "type": "http", "url": "http://127.0.0.1:7400/mcp" } } }

Examples:
  $ millrace mcp
  $ millrace mcp --url https://feed.internal:7400`,
    )
    .action(async (options: { readonly url?: string }) => {
      const url = serverUrl(options.url, terminal);
      // What serves agents is loaded by nobody else.
      const { serveMcpOverStdio } = await import("../../mcp/stdio.ts");
      const { transport, close } = connectServer(url, PING_INTERVAL_MS);
      const ending = new AbortController();
      const signal = AbortSignal.any([terminal.interrupted, ending.signal]);
      // Only a note: the server may come later, and until then the tools say the same.
      createClient(FeedService, transport)
        .getStatus({}, { timeoutMs: 10_000, signal })
        .catch((error: unknown) => {
          const { message, action } = failureFrom(error);
          if (!signal.aborted) terminal.note(`millrace: ${url}: ${message} ${action}`);
        });
      try {
        await serveMcpOverStdio({
          transport,
          version: serverVersion,
          input: process.stdin,
          output: process.stdout,
          signal: terminal.interrupted,
          onTrouble: (sentence) => terminal.note(`millrace: mcp: ${sentence}`),
        });
      } finally {
        ending.abort();
        close();
      }
      const interrupted = interruptedCode(terminal);
      if (interrupted !== undefined) process.exitCode = interrupted;
    });
}
