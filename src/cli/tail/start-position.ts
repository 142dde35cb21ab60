import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  NowSchema,
  OldestSchema,
  SnapshotSchema,
  type SubscribeRequest,
} from "../../../gen/millrace/v1/feed_service_pb.js";
import { usageFailure } from "../failure.ts";

/** Where a subscription starts, as the request has it. */
export type StartPosition = SubscribeRequest["start"];

/**
 * Reads `--from`: `oldest`, `now`, `snapshot`, `version:N`, `time:ISO`, or anything else as a cursor, which only the
 * server can judge.
 */
export function parseStartPosition(text: string): StartPosition {
  if (text === "now") return { case: "now", value: create(NowSchema) };
  if (text === "oldest") return { case: "oldest", value: create(OldestSchema) };
  if (text === "snapshot") return { case: "snapshot", value: create(SnapshotSchema) };
  if (text.startsWith("version:")) return { case: "afterVersion", value: parseVersion(text.slice("version:".length)) };
  if (text.startsWith("time:")) {
    return { case: "atTime", value: timestampFromDate(parseTime(text.slice("time:".length))) };
  }
  if (text.trim() === "") throw usageFailure("--from is empty.", "Give oldest, now, snapshot, or a cursor.");
  return resumeAt(text);
}

/** Exactly after what carried this cursor. */
export function resumeAt(cursor: string): StartPosition {
  return { case: "afterCursor", value: cursor };
}

function parseVersion(text: string): bigint {
  if (/^\d{1,16}$/.test(text)) return BigInt(text);
  throw usageFailure(
    `\`version:${text}\` is not a version.`,
    "Give the last version you have, for example version:41; 0 is before the first.",
  );
}

function parseTime(text: string): Date {
  const time = new Date(text);
  if (/^\d{4}-\d\d-\d\d/.test(text) && !Number.isNaN(time.getTime())) return time;
  throw usageFailure(`\`time:${text}\` is not a time.`, "Give it as ISO 8601, for example time:2026-01-31T08:30:00Z.");
}
