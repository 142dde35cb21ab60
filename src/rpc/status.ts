import { create } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  FeedState,
  type GetStatusResponse,
  GetStatusResponseSchema,
  HoldSchema,
  ProblemSchema,
  type Storage,
  StorageSchema,
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

/** What is kept, as of the last look. Times in milliseconds, since the Unix epoch where they are moments. */
export interface StorageReport {
  readonly bytes: number;
  /** `undefined` when nothing is kept. */
  readonly oldestSettledAtMs: number | undefined;
  /** `undefined` is no limit. */
  readonly settings: { readonly keepAgeMs: number | undefined; readonly keepBytes: number | undefined };
  readonly heldBack: readonly {
    readonly kind: string;
    readonly name: string;
    readonly version: number;
    /** `undefined` for never. */
    readonly expiresAtMs: number | undefined;
    readonly overridden: boolean;
  }[];
  /** Durable ones; of those only some are in `heldBack`. */
  readonly subscriptions: { readonly count: number };
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
  storage: StorageReport | undefined,
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
    ...(storage === undefined ? {} : { storage: storageMessage(storage) }),
    ...(status.settledAgeMs === undefined ? {} : { settledAge: durationFromMs(Math.round(status.settledAgeMs)) }),
    ...(status.settledAtMicros === undefined ? {} : { settledAt: timestampFromMicros(status.settledAtMicros) }),
  });
}

function storageMessage({ bytes, oldestSettledAtMs, settings, heldBack, subscriptions }: StorageReport): Storage {
  const { keepAgeMs, keepBytes } = settings;
  return create(StorageSchema, {
    bytes: BigInt(bytes),
    keepBytes: BigInt(keepBytes ?? 0),
    subscriptions: BigInt(subscriptions.count),
    ...(oldestSettledAtMs === undefined ? {} : { oldestSettledAt: timestampFromMs(Math.round(oldestSettledAtMs)) }),
    ...(keepAgeMs === undefined ? {} : { keepAge: durationFromMs(Math.round(keepAgeMs)) }),
    holds: heldBack.map(({ version, expiresAtMs, ...hold }) =>
      create(HoldSchema, {
        ...hold,
        version: BigInt(version),
        ...(expiresAtMs === undefined ? {} : { expiresAt: timestampFromMs(Math.round(expiresAtMs)) }),
      }),
    ),
  });
}

function feedProblems(status: core.FeedStatus): readonly Problem[] {
  return status.failure === undefined ? [] : [status.failure];
}
