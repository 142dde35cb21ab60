import type { Cursor } from "../cursor.ts";
import type { Version } from "../event.ts";
import type { ClosingReason, Frame, SnapshotProgress, StreamState } from "../frame.ts";
import type { Log } from "../log/log.ts";
import { type Page, tickEnd, tickHolding } from "../page.ts";
import type { Clock } from "../ports.ts";
import type { SnapshotStarted } from "../snapshot/snapshot-run.ts";
import type { Position } from "./scan.ts";
import type { SelectorChange } from "./selector-change.ts";

/** Drained clients come back within this, spread out. */
const DRAIN_RETRY_MS = 1_000;

/** What a stream sees of the feed: read at every step, never awaited. */
export interface FeedView {
  readonly epoch: string;
  readonly log: Log;
  /** The database has not answered for a while: what is committed meanwhile is unknown. */
  readonly stale: boolean;
  readonly draining: boolean;
  /** Oldest version that the database is known to keep. */
  readonly oldest: Version;
}

/** How a stream stands as it says a checkpoint. */
export interface Standing {
  readonly cursor: Cursor;
  readonly position: Position;
  readonly state: StreamState;
  /** History at hand that may hold what comes next. */
  readonly page: Page | undefined;
  readonly progress: SnapshotProgress | undefined;
}

/** How a stream outside of snapshots stands; what it wants next is in the log, or is not. */
export function stateOf({ stale }: FeedView, inLog: boolean): StreamState {
  if (stale) {
    return "STALE";
  }
  return inLog ? "LIVE" : "CATCHING_UP";
}

/** The first frame of a stream, which begins at this cursor. */
export function openedFrame({ epoch, log, oldest }: FeedView, cursor: Cursor, streamId = ""): Frame {
  const head = Math.max(log.head, cursor.version);
  return { kind: "opened", epoch, version: cursor.version, cursor, head, oldest: Math.min(oldest, head + 1), streamId };
}

/** Where a stream stands, and how far behind what is settled. */
export function checkpointFrame(view: FeedView, clock: Clock, standing: Standing): Frame {
  const { cursor, position, state, progress } = standing;
  const { version, tick } = position;
  const { stale, log } = view;
  return {
    kind: "checkpoint",
    cursor,
    version,
    state,
    lagVersions: stale ? undefined : Math.max(0, log.head - version),
    lagMs: stale ? undefined : lagMs(version, log, standing.page, clock),
    timeMicros: tick === undefined || tick.count === 0 || tickEnd(tick) > version ? undefined : tick.timeMicros,
    progress,
  };
}

/** A snapshot begins, or goes on; whoever is cut after this goes on at the cursor. */
export function snapshotStartedFrame(started: SnapshotStarted, cursor: Cursor): Frame {
  const { version, restart, resumed, topics, estimatedRows } = started;
  return { kind: "snapshot_started", version, restart, resumed, topics, estimatedRows, cursor };
}

/** Other selectors begin; the cursor is that of what follows. */
export function selectorsChangedFrame({ started, terms }: SelectorChange, cursor: Cursor): Frame {
  const addsRows = started !== undefined;
  return { kind: "selectors_changed", version: cursor.version, number: terms.number, addsRows, cursor };
}

/** The last frame of a stream that nothing is wrong with. */
export function closingFrame(reason: ClosingReason, cursor: Cursor, clock: Clock): Frame {
  const retryAfterMs = reason === "DRAINING" ? Math.round(DRAIN_RETRY_MS * clock.random()) : 0;
  return { kind: "closing", reason, cursor, retryAfterMs };
}

/** Age of the first version not yet passed. Unknown while history is read and the next page has not come. */
function lagMs(version: Version, log: Log, page: Page | undefined, clock: Clock): number | undefined {
  if (version >= log.head) {
    return 0;
  }
  const next = log.tickOf(version + 1) ?? tickHolding(page?.ticks ?? [], version + 1);
  return next === undefined ? undefined : Math.max(0, clock.now() - next.timeMicros / 1000);
}
