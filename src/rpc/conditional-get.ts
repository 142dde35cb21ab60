import { createHash } from "node:crypto";
import type { UniversalHandler, UniversalServerResponse } from "@connectrpc/connect/protocol";
import { createAsyncIterable, readAllBytes } from "@connectrpc/connect/protocol";

const OK = 200;
const NOT_MODIFIED = 304;
/** No answer to a GET is larger: those that are large have a limit of their own. */
const MAX_BYTES = 2 ** 31 - 1;
/** What an answer to a GET depends on beside its address: whose page asks, and which compression is taken. */
const VARY = "Origin, Accept-Encoding";

/**
 * How long an answer may be kept that is the same for ever: a year, which is as long as caches count, and without asking again.
 *
 * Where everybody is anonymous anybody may keep it, for what a shared cache then holds anybody could have read at that time.
 * Otherwise only the caller's own may: a cache between does not know what another caller may see. Where builders show events, a
 * page is the same until one of them is another: it is asked for again each time, and mostly answered by its tag.
 */
export function kept({ anonymous, built }: { readonly anonymous: boolean; readonly built: boolean }): string {
  return `${anonymous ? "public" : "private"}, ${built ? "no-cache" : "max-age=31536000, immutable"}`;
}

/**
 * Makes the answers to Connect's GETs what HTTP expects of them. Those that the service lets be kept get a strong entity tag of
 * their bytes, as they go over the wire, and 304 for who has them; nobody keeps any other, errors among them.
 */
export function withConditionalGet(handler: UniversalHandler): UniversalHandler {
  return Object.assign(async (request: Parameters<UniversalHandler>[0]) => {
    const response = await handler(request);
    return request.method === "GET" ? await conditional(response, request.header.get("if-none-match")) : response;
  }, handler);
}

async function conditional(response: UniversalServerResponse, known: string | null): Promise<UniversalServerResponse> {
  const header = new Headers(response.header);
  header.set("vary", VARY);
  const { body, ...rest } = response;
  if (response.status !== OK || body === undefined || !header.has("cache-control")) {
    header.set("cache-control", "no-store");
    return { ...response, header };
  }
  const bytes = await readAllBytes(body, MAX_BYTES);
  const tag = `"${createHash("sha256").update(bytes).digest("base64url")}"`;
  header.set("etag", tag);
  if (names(known, tag)) {
    for (const name of ["content-type", "content-length", "content-encoding"]) header.delete(name);
    return { ...rest, status: NOT_MODIFIED, header };
  }
  return { ...response, header, body: createAsyncIterable([bytes]) };
}

/** By the weak comparison, as `If-None-Match` wants it. */
function names(known: string | null, tag: string): boolean {
  const tags = known?.split(",").map((one) => one.trim().replace(/^W\//, "")) ?? [];
  return tags.includes("*") || tags.includes(tag);
}
