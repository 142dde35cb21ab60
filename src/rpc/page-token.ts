import type { Version } from "../core/event.ts";
import { invalidRequest } from "./errors.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** What the next page begins after, in a form that invites nobody to make it up. */
export function pageToken(after: string | Version): string {
  return encoder.encode(`1${after}`).toBase64({ alphabet: "base64url", omitPadding: true });
}

/**
 * The name that a token stands for; `undefined` for the first page.
 *
 * @throws FeedError INVALID_REQUEST for what `pageToken` does not give out
 */
export function tokenKey(token: string): string | undefined {
  if (token === "") {
    return undefined;
  }
  try {
    const text = decoder.decode(Uint8Array.fromBase64(token, { alphabet: "base64url" }));
    if (text.startsWith("1") && text.length > 1 && pageToken(text.slice(1)) === token) {
      return text.slice(1);
    }
  } catch {
    // Not base64url, or not UTF-8.
  }
  throw invalidRequest([{ field: "page_token", message: "must be `next_page_token` of the page before" }]);
}

/**
 * The version that a token stands for; `undefined` for the first page.
 *
 * @throws FeedError INVALID_REQUEST for what `pageToken` does not give out
 */
export function tokenVersion(token: string): Version | undefined {
  const key = tokenKey(token);
  if (key === undefined) {
    return undefined;
  }
  const version = Number(key);
  if (!/^\d+$/.test(key) || !Number.isSafeInteger(version)) {
    throw invalidRequest([{ field: "page_token", message: "must be `next_page_token` of the page before" }]);
  }
  return version;
}
