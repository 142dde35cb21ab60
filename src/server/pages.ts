import type { Feed, FeedStatus } from "../core/feed.ts";
import type { RpcHandler } from "../rpc/handler.ts";
import type { Problem } from "../rpc/status.ts";

type Request = Parameters<RpcHandler>[0];

/** What the plain pages tell of. */
export interface PagesOptions {
  readonly feed: Feed;
  readonly url: () => string;
  readonly serverVersion: string;
  /** What is wrong beside what the feed itself knows. */
  readonly problems: () => readonly Problem[];
  /** Who answers a path of its own, whatever the method. */
  readonly routes: Readonly<Record<string, RpcHandler>>;
}

/** For people with curl and for orchestrators: `/`, `/livez`, `/readyz`, `/metrics`. Everything else is 404 with a hint. */
export function createPages(options: PagesOptions): RpcHandler {
  return (request, response) => {
    const path = pathOf(request);
    const route = Object.hasOwn(options.routes, path) ? options.routes[path] : undefined;
    if (route !== undefined) {
      route(request, response);
      return;
    }
    const { status, text } = page(request, options);
    response.statusCode = status;
    response.setHeader("Content-Type", "text/plain; charset=utf-8");
    response.setHeader("Cache-Control", "no-store");
    response.end(request.method === "HEAD" ? "" : text);
  };
}

function pathOf(request: Request): string {
  return (request.url ?? "/").split("?", 1)[0] ?? "/";
}

interface Page {
  readonly status: number;
  readonly text: string;
}

function page(request: Request, { feed, url, serverVersion, problems }: PagesOptions): Page {
  const path = pathOf(request);
  if (request.method !== "GET" && request.method !== "HEAD") {
    return ["/", "/livez", "/readyz"].includes(path)
      ? { status: 405, text: "Use GET.\n" }
      : { status: 404, text: notFound(path, url()) };
  }
  switch (path) {
    case "/":
      return { status: 200, text: welcome(feed.status(), url(), serverVersion) };
    case "/livez":
      return { status: 200, text: "The process runs.\n" };
    case "/readyz":
      return readiness(feed.status(), problems());
    default:
      return { status: 404, text: notFound(path, url()) };
  }
}

/** Ready means that the feed moves: commits become versions. Capture that is not whole is said, but stops nothing. */
function readiness(status: FeedStatus, problems: readonly Problem[]): Page {
  switch (status.state) {
    case "LIVE":
      return {
        status: 200,
        text: [`Ready: the feed stands at version ${status.head}.`, ...problems.map(told), ""].join("\n"),
      };
    case "STARTING":
      return { status: 503, text: `Starting: ${status.failure?.message ?? "the log is not filled yet."}\n` };
    case "STALE":
      return { status: 503, text: [`Not ready: ${reason(status.failure)}`, ...problems.map(told), ""].join("\n") };
    case "DRAINING":
      return { status: 503, text: "Going down: no new streams.\n" };
  }
}

function told({ code, message, action }: Problem): string {
  return `${code}: ${message} ${action}`;
}

function reason(failure: FeedStatus["failure"]): string {
  return failure === undefined ? "nothing could be settled for a while." : `${failure.message} ${failure.action}`;
}

function welcome(status: FeedStatus, url: string, serverVersion: string): string {
  const buf = `npx buf curl${url.startsWith("https") ? "" : " --http2-prior-knowledge"}`;
  return `Millrace ${serverVersion}: committed Postgres changes, in order, as gRPC, gRPC-Web, Connect and server-sent event streams.
The feed is ${status.state} at version ${status.head} (oldest ${status.oldest}), with ${status.streams} open streams.

Follow it from the oldest version on:
  curl -N '${url}/v1/events?from=oldest'
  ${buf} --reflect ${url}/millrace.v1.FeedService/Subscribe -d '{"oldest":{}}'
Ask where it stands:
  curl -H 'content-type: application/json' -d '{}' ${url}/millrace.v1.FeedService/GetStatus
List everything that it speaks:
  ${buf} --list-methods ${url}
Give an agent the tools to follow it (Model Context Protocol, Streamable HTTP):
  ${url}/mcp

Health: ${url}/livez ${url}/readyz and grpc.health.v1. Metrics: ${url}/metrics
`;
}

function notFound(path: string, url: string): string {
  return `There is nothing at ${path}. ${url}/ says what there is.\n`;
}
