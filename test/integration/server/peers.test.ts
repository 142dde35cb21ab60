import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { expect, it, vi } from "vitest";
import { FeedService } from "../../../gen/millrace/v1/feed_service_pb.js";
import { resolveConfig } from "../../../src/server/config.ts";
import { startServer } from "../../../src/server/server.ts";
import { freshDatabase } from "../../support/cluster.ts";

it.each(["mux", "hand-off", "stock"])(
  "counts the streams of an address, by whatever they come, delivery %s",
  async (delivery) => {
    const databaseUrl = await freshDatabase();
    const flags = { databaseUrl, delivery, port: 0, logLevel: "silent", maxStreamsPerPeer: 2 };
    const server = await startServer(resolveConfig({ flags }));
    try {
      const cancel = new AbortController();
      const transports = [
        createGrpcTransport({ baseUrl: server.url }),
        createConnectTransport({ baseUrl: server.url, httpVersion: "1.1" }),
        createGrpcTransport({ baseUrl: server.url }),
      ];
      const open = async (i: number) => {
        const [transport] = transports.slice(i);
        if (transport === undefined) throw new Error("no such transport");
        const stream = createClient(FeedService, transport).subscribe({}, { signal: cancel.signal });
        return (await stream[Symbol.asyncIterator]().next()).value?.frame.case;
      };
      expect(await open(0)).toBe("opened");
      expect(await open(1)).toBe("opened");
      await expect(open(2)).rejects.toThrow("maxStreamsPerPeer");
      cancel.abort();
      await vi.waitFor(() => expect(server.feed.status().streams).toBe(0));
    } finally {
      await server.stop();
    }
  },
);
