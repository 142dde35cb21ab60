import { isIP } from "node:net";
import type { NodeRequest, NodeResponse } from "../rpc/node-call.ts";
import type { Config } from "./config.ts";
import { type CorsOutcome, refuse } from "./cors.ts";
import { isLoopback } from "./loopback.ts";

/** Where a page that is merely opened takes something up: a subscription, from whoever has it. */
const CHANGING_PATH = /^\/v1\/events(?:$|\?)/;

/**
 * Keeps out the pages that name no origin, for every path alike.
 *
 * A page on the internet reaches a server on its visitor's machine in two ways. It points a name of its own at 127.0.0.1: then
 * its GETs go to its own origin, of which browsers say nothing, and it may read the answers. Only `Host` shows it. Or it loads
 * an address as an image, a script or a frame: the answer it cannot read, but a subscription would be taken up. Only
 * `Sec-Fetch-Site` shows that.
 *
 * The first is for servers that nobody but this machine reaches. A request that a page could have made must name the machine:
 * `localhost`, an address, which nobody can point elsewhere, or a host of `corsOrigins`, for proxies. Calls by POST without an
 * origin come from no page, and may name what they like; so may those that name no host, as browsers always do.
 */
export function createPageGuard({
  host,
  corsOrigins,
}: Pick<Config, "host" | "corsOrigins">): (request: NodeRequest, response: NodeResponse) => CorsOutcome {
  if (corsOrigins.includes("*")) {
    return () => "pass";
  }
  const allowed = new Set(corsOrigins.map((origin) => new URL(origin).hostname));
  const isMeant = (authority: string): boolean => {
    const hostname = URL.parse(`http://${authority}`)?.hostname ?? "";
    return isLoopback(hostname) || allowed.has(hostname) || isAddress(hostname);
  };
  return (request, response) => {
    const { headers } = request;
    if (isLoopback(host) && mayComeFromPage(request)) {
      const stranger = [headers[":authority"], headers.host].find(
        (authority) => typeof authority === "string" && !isMeant(authority),
      );
      if (stranger !== undefined) {
        const remedy = "Use localhost or 127.0.0.1, or allow an origin of that host with --cors-origins";
        refuse(response, `This server is not for ${stranger}: only its machine's own names lead here. ${remedy}`);
        return "answered";
      }
    }
    if (isLoadedElsewhere(request)) {
      refuse(
        response,
        "Pages of other sites may not load this. Open its address by itself, or allow their origin with --cors-origins and use fetch",
      );
      return "answered";
    }
    return "pass";
  };
}

/** Browsers name the origin with everything else. */
function mayComeFromPage({ method, headers }: NodeRequest): boolean {
  return method === "GET" || method === "HEAD" || headers.origin !== undefined;
}

/** By a page of another site, which does not say so with an origin. Following a link is no such thing where it only shows. */
function isLoadedElsewhere({ headers, url = "" }: NodeRequest): boolean {
  if (headers["sec-fetch-site"] !== "cross-site" || headers.origin !== undefined) {
    return false;
  }
  return headers["sec-fetch-dest"] !== "document" || CHANGING_PATH.test(url);
}

/** But not the one that stands for all: browsers take it for this machine, and pages of anywhere may ask it. */
function isAddress(hostname: string): boolean {
  const bare = hostname.replace(/^\[(.*)\]$/, "$1");
  return isIP(bare) !== 0 && bare !== "0.0.0.0" && bare !== "::";
}
