import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { FeedService } from "../../gen/millrace/v1/feed_service_pb.js";
import { SubscriptionService } from "../../gen/millrace/v1/subscription_service_pb.js";

/** All that the tools stand on: the public services, over whichever transport the owner has. */
export interface McpClients {
  readonly feed: Client<typeof FeedService>;
  readonly subscriptions: Client<typeof SubscriptionService>;
}

/** Clients of both services over one transport. */
export function createMcpClients(transport: Transport): McpClients {
  return { feed: createClient(FeedService, transport), subscriptions: createClient(SubscriptionService, transport) };
}
