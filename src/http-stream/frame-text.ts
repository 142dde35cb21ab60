import type { Frame } from "../core/frame.ts";
import type { StreamTerms } from "../rpc/frames.ts";
import { isoFromMicros } from "./event-text.ts";

/** What a stream agreed on that `opened` tells. */
export type ToldTerms = Pick<StreamTerms, "checkpointIntervalMs" | "maxAgeMs">;

/** All that is no event. */
export type OtherFrame = Exclude<Frame, { kind: "events" }>;

/** As whoever got it over another wire may have it: names that a newer server has are told as they are. */
type Told<F> = F extends OtherFrame
  ? { readonly [K in keyof F as Exclude<K, "cursor">]: K extends "state" | "reason" ? string : F[K] }
  : never;

/** Such a frame without its cursor. */
export type ToldFrame = Told<OtherFrame>;

/** The members of such a frame's JSON object, but for its cursor; those that are `undefined` are left out. */
export function frameFields(frame: ToldFrame, terms: ToldTerms): Readonly<Record<string, unknown>> {
  switch (frame.kind) {
    case "opened": {
      const { epoch, version, head, oldest, streamId, lease } = frame;
      const { checkpointIntervalMs, maxAgeMs } = terms;
      return {
        ...{ epoch, version, headVersion: head, oldestVersion: oldest },
        streamId: streamId === "" ? undefined : streamId,
        checkpointIntervalMs,
        maxAgeMs: maxAgeMs === 0 ? undefined : maxAgeMs,
        lease,
      };
    }
    case "checkpoint": {
      const { version, state, lagVersions, lagMs, timeMicros, progress } = frame;
      return {
        ...{ version, state, lagVersions },
        lagMs: lagMs === undefined ? undefined : Math.round(lagMs),
        time: timeMicros === undefined ? undefined : isoFromMicros(timeMicros),
        rows: progress?.rows,
        estimatedRows: progress?.estimatedRows === undefined ? undefined : Math.round(progress.estimatedRows),
      };
    }
    case "gap": {
      const { firstVersion, lastVersion, dropped, reason } = frame;
      return { firstVersion, lastVersion, dropped, reason };
    }
    case "selectors_changed": {
      const { version, number, addsRows } = frame;
      return { version, number, addsRows };
    }
    case "snapshot_started": {
      const { version, restart, resumed, topics, estimatedRows } = frame;
      const about = estimatedRows === undefined ? undefined : Math.round(estimatedRows);
      return { version, restart, resumed, topics, estimatedRows: about };
    }
    case "snapshot_complete":
      return { version: frame.version, rows: frame.rows };
    case "closing":
      return { reason: frame.reason, retryAfterMs: Math.round(frame.retryAfterMs) };
  }
}
