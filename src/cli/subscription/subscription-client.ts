import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { type Command, Option } from "commander";
import { SubscriptionService } from "../../../gen/millrace/v1/subscription_service_pb.js";
import { serverUrl } from "../feed-client.ts";
import type { Terminal } from "../terminal.ts";

/** What every command that asks a server about subscriptions takes. */
export interface ServerOptions {
  readonly url?: string;
  readonly json?: boolean;
}

const answerWithinMs = 15_000;

/** Adds the options. */
export function withServerOptions(command: Command, json: string): Command {
  return command
    .option("--url <url>", "the server (default: $MILLRACE_URL, else http://127.0.0.1:7400)")
    .addOption(new Option("--json", json));
}

/** Asks the server that the options name, and hangs up. */
export async function withSubscriptions<T>(
  options: ServerOptions,
  terminal: Terminal,
  ask: (client: Client<typeof SubscriptionService>) => Promise<T>,
): Promise<T> {
  const { client, close } = connectSubscriptions(serverUrl(options.url, terminal));
  try {
    return await ask(client);
  } finally {
    close();
  }
}

/** A connection of its own to a server's subscriptions. */
export function connectSubscriptions(url: string) {
  const sessionManager = new Http2SessionManager(url);
  const transport = createGrpcTransport({ baseUrl: url, sessionManager, defaultTimeoutMs: answerWithinMs });
  return { client: createClient(SubscriptionService, transport), close: () => sessionManager.abort() };
}
