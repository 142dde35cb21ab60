import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  FeedState,
  type GetStatusResponse,
  GetStatusResponseSchema,
  ProblemSchema,
} from "../../gen/millrace/v1/feed_service_pb.js";
import type * as core from "../core/feed.ts";
import { timestampFromMicros } from "./event-message.ts";

/** One thing that is wrong, and what to do about it. */
export interface Problem {
  /** Stable name, for example `TRIGGER_DISABLED`. */
  readonly code: string;
  readonly message: string;
  readonly action: string;
}

const states: Readonly<Record<core.FeedState, FeedState>> = {
  STARTING: FeedState.STARTING,
  LIVE: FeedState.LIVE,
  STALE: FeedState.STALE,
  DRAINING: FeedState.DRAINING,
};

/** The answer to GetStatus. */
export function statusResponse(
  status: core.FeedStatus,
  problems: readonly Problem[],
  serverVersion: string,
): GetStatusResponse {
  return create(GetStatusResponseSchema, {
    epoch: status.epoch,
    headVersion: BigInt(status.head),
    oldestVersion: BigInt(status.oldest),
    state: states[status.state],
    streams: status.streams,
    logBytes: BigInt(status.logBytes),
    logEvents: BigInt(status.logEvents),
    logOldestVersion: BigInt(status.logOldest),
    problems: [...feedProblems(status), ...problems].map((problem) => create(ProblemSchema, problem)),
    serverVersion,
    ...(status.settledAgeMs === undefined ? {} : { settledAge: durationFromMs(Math.round(status.settledAgeMs)) }),
    ...(status.settledAtMicros === undefined ? {} : { settledAt: timestampFromMicros(status.settledAtMicros) }),
  });
}

function feedProblems(status: core.FeedStatus): readonly Problem[] {
  return status.failure === undefined ? [] : [status.failure];
}
