import { setTimeout as pause } from "node:timers/promises";
import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import { Health, HealthCheckResponse_ServingStatus as ServingStatus } from "../../gen/grpc/health/v1/health_pb.js";
import { FeedService } from "../../gen/millrace/v1/feed_service_pb.js";
import type { Feed } from "../core/feed.ts";

/** How often a watch looks: the feed takes seconds to become stale, so that half of one is soon enough. */
const WATCH_INTERVAL_MS = 500;
const services: readonly string[] = ["", FeedService.typeName];

/** `grpc.health.v1`: SERVING means that commits become versions, not merely that the process runs. */
export function addHealth(router: ConnectRouter, feed: Feed): void {
  const status = () => (feed.status().state === "LIVE" ? ServingStatus.SERVING : ServingStatus.NOT_SERVING);
  router.service(Health, {
    check({ service }) {
      if (!services.includes(service)) {
        throw new ConnectError(
          `This server has no service ${service}. Ask for ${FeedService.typeName}, or for the server as a whole.`,
          Code.NotFound,
        );
      }
      return { status: status() };
    },
    list: () => ({ statuses: Object.fromEntries(services.map((service) => [service, { status: status() }])) }),
    async *watch({ service }, { signal }) {
      let last: ServingStatus | undefined;
      while (true) {
        const now = services.includes(service) ? status() : ServingStatus.SERVICE_UNKNOWN;
        if (now !== last) {
          yield { status: now };
          last = now;
        }
        await pause(WATCH_INTERVAL_MS, undefined, { signal });
      }
    },
  });
}
