// What one writes first: Connect's router, and an async generator for each stream.
import { createServer } from "node:http2";
import type { ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { FeedService, type SubscribeResponse } from "../../../gen/millrace/v1/feed_service_pb.js";
import { childOptions, ready } from "../child.ts";
import { eventsMessage, openedMessage } from "../message.ts";

const { burst } = childOptions();
const messages: SubscribeResponse[] = [];
let forgotten = 0;
let changed = Promise.withResolvers<void>();

async function* subscribe(signal: AbortSignal): AsyncGenerator<SubscribeResponse> {
  yield openedMessage();
  let next = forgotten + messages.length;
  while (!signal.aborted) {
    const message = messages[next - forgotten];
    if (message === undefined) await changed.promise;
    else {
      next += 1;
      yield message;
    }
  }
}

const handler = connectNodeAdapter({
  routes: (router: ConnectRouter) => {
    router.service(FeedService, { subscribe: (_request, context) => subscribe(context.signal) });
  },
});
const server = createServer({ maxSessionMemory: 1_000, settings: { maxConcurrentStreams: 20_000 } }, handler);
server.on("sessionError", () => {});
server.listen(0, "127.0.0.1", () => {
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  void ready(port, publish, burst);
});

function publish(count: number, stampNs: bigint): void {
  const first = forgotten + messages.length + 1;
  // As many messages as there are events: batches are what the others add.
  for (let i = 0; i < count; i += 1) messages.push(eventsMessage(first + i, 1, stampNs));
  // Far behind what the sink lets be outstanding.
  if (messages.length > 4_096) forgotten += messages.splice(0, 2_048).length;
  const { resolve } = changed;
  changed = Promise.withResolvers();
  resolve();
}
