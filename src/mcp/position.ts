import { create } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type Now, NowSchema, type Oldest, OldestSchema } from "../../gen/millrace/v1/feed_service_pb.js";
import { wrongArgument } from "./selection.ts";

/** Where to begin, as the requests have it. */
export type Position =
  | { readonly case: "now"; readonly value: Now }
  | { readonly case: "oldest"; readonly value: Oldest }
  | { readonly case: "afterVersion"; readonly value: bigint }
  | { readonly case: "atTime"; readonly value: Timestamp }
  | { readonly case: "afterCursor"; readonly value: string };

/** What `from` takes. */
export const positionDescription =
  "`now`; `oldest` (all that is kept); `version:41` (after that version); `time:2026-01-31T08:30:00Z`; or the `cursor` of any earlier answer, also of `unsubscribe`.";

/**
 * Reads `from`: a keyword, or anything else as a cursor, which only the server can judge.
 *
 * @throws FeedError INVALID_REQUEST for a version or a time that is none
 */
export function positionFrom(text: string): Position {
  if (text === "now") return { case: "now", value: create(NowSchema) };
  if (text === "oldest") return { case: "oldest", value: create(OldestSchema) };
  if (text === "snapshot") {
    throw wrongArgument(
      "from",
      "cannot be `snapshot`: one that begins again takes back what a page has given",
      "Give `oldest` for all events that are kept; the rows as they are, a query has.",
    );
  }
  if (text.startsWith("version:")) return { case: "afterVersion", value: versionFrom(text.slice("version:".length)) };
  if (text.startsWith("time:")) return { case: "atTime", value: timeFrom(text.slice("time:".length)) };
  return { case: "afterCursor", value: text };
}

function versionFrom(text: string): bigint {
  if (/^\d{1,16}$/.test(text)) return BigInt(text);
  throw wrongArgument("from", "names no version", "Write it like `version:41`; `version:0` is before the first.");
}

function timeFrom(text: string): Timestamp {
  const time = new Date(text);
  if (/^\d{4}-\d\d-\d\d/.test(text) && !Number.isNaN(time.getTime())) return timestampFromDate(time);
  throw wrongArgument("from", "names no time", "Write it in ISO 8601, like `time:2026-01-31T08:30:00Z`.");
}
