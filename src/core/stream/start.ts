import { type Cursor, decodeCursor } from "../cursor.ts";
import { FeedError, type FeedErrorDetail } from "../errors.ts";
import type { Version } from "../event.ts";
import type { Start } from "../feed.ts";
import { assertSameEpoch, assertShared } from "../lineage.ts";
import type { Log } from "../log/log.ts";
import { type Tick, tickEnd } from "../page.ts";
import type { Thinned } from "../policy/policy.ts";
import type { Bounds, FeedStore, SnapshotPlace, WakeUp } from "../ports.ts";
import type { Matcher } from "../selector/selector.ts";
import { type CutSnapshot, SnapshotRun, type SnapshotStarted } from "../snapshot/snapshot-run.ts";
import { nextWake } from "../wake-set.ts";
import type { Position } from "./scan.ts";

/** Where a stream begins, in the terms of the order: after a version, perhaps in a snapshot. */
export interface ResolvedStart {
  readonly position: Position;
  readonly snapshot: BegunSnapshot | undefined;
  /** The piece that a policy thinned in whose middle it is: what is left out of the rest of it was said. */
  readonly thinned?: Thinned | undefined;
}

/** A snapshot whose first step is known. */
export interface BegunSnapshot {
  /** Whoever gets it closes it. */
  readonly run: SnapshotRun;
  readonly started: SnapshotStarted;
}

/** What a position is found with. */
export interface PositionContext {
  readonly store: FeedStore;
  readonly log: Log;
  readonly wakeUp: WakeUp;
  /** Oldest version that the database is known to keep: for what errors tell. */
  readonly oldest: Version;
  /** What has made the feed unusable for streams: then it is no use waiting for it to move. */
  readonly failure: () => FeedError | undefined;
}

/** What a start is resolved against. */
export interface StartContext extends PositionContext {
  readonly matcher: Matcher;
}

/** A start that stands for a place in the order, whoever asks. */
export type PlainStart = Exclude<Start, { readonly kind: "cursor" | "snapshot" }>;

const TOKEN = /^([0-9a-f-]{36}):([0-9]{1,20})$/;

/**
 * Fixes where a stream begins. Asks the database only for what the log does not know: streams that resume shortly after
 * they were cut cost it nothing.
 *
 * @throws FeedError CURSOR_INVALID, EPOCH_CHANGED, HISTORY_LOST, DATABASE_UNAVAILABLE.
 */
export async function resolveStart(start: Start, context: StartContext, signal: AbortSignal): Promise<ResolvedStart> {
  switch (start.kind) {
    case "cursor": {
      const cursor = cursorOf(start.cursor, context);
      await assertShared(cursor, context, signal);
      return cursor.snapshot === undefined
        ? await fromCursor(cursor, context, signal)
        : await fromSnapshot(context, await cutSnapshot(cursor, cursor.snapshot, context, signal), signal);
    }
    case "snapshot":
      return await fromSnapshot(context, undefined, signal);
    default:
      return { position: await plainPosition(start, context, signal), snapshot: undefined };
  }
}

/** @throws FeedError as `resolveStart` */
export async function plainPosition(
  start: PlainStart,
  context: PositionContext,
  signal: AbortSignal,
): Promise<Position> {
  switch (start.kind) {
    case "now":
      return await positionAt(context.log.head, context, signal);
    case "oldest":
      return await oldestPosition(context, signal);
    case "version":
      await assertShared(start, context, signal);
      return await positionAt(start.version, context, signal);
    case "time":
      return await positionAtTime(start.timeMicros, context, signal);
  }
}

/**
 * Waits until the transaction is settled and this replica holds everything up to its end.
 *
 * @throws FeedError INVALID_REQUEST, EPOCH_CHANGED.
 */
export async function passBarrier(token: string, context: StartContext, signal: AbortSignal): Promise<void> {
  const [, epoch, xid] = TOKEN.exec(token) ?? [];
  if (epoch === undefined || xid === undefined) {
    throw new FeedError(
      "INVALID_REQUEST",
      `after_transaction: \`${token}\` is not \`<epoch>:<xid8>\`.`,
      "Pass what `Publish` answered or `select millrace.transaction()` gave.",
      { violations: [{ field: "after_transaction", message: "must be `<epoch>:<xid8>`" }] },
    );
  }
  await assertSameEpoch(epoch, context, signal);
  const version = await context.store.settled(xid, signal);
  context.wakeUp.nudge();
  await headReaches(version, context, signal);
}

/** Where an epoch has ended since, what the rest of a piece held may be another thing now: then all of it is delivered. */
async function fromCursor(cursor: Cursor, context: StartContext, signal: AbortSignal): Promise<ResolvedStart> {
  const position = await positionAtCursor(cursor, context, signal);
  const thinned = cursor.epoch === context.store.epoch ? cursor.thinned : undefined;
  return { position, snapshot: undefined, thinned };
}

async function fromSnapshot(
  { store, log, matcher }: StartContext,
  from: CutSnapshot | undefined,
  signal: AbortSignal,
): Promise<ResolvedStart> {
  const run = new SnapshotRun({ store, log, matcher, from, signal });
  try {
    const started = await run.next();
    if (started?.kind !== "started") {
      throw new FeedError("INTERNAL", "A snapshot began with its rows.", "Report this as a fault of Millrace.");
    }
    return { position: started.state.position, snapshot: { run, started } };
  } catch (error) {
    await run.close();
    throw error;
  }
}

/** What there is to go on from: nothing when history does not reach back to it, for then the snapshot begins anew. */
async function cutSnapshot(
  cursor: Cursor,
  place: SnapshotPlace | "anew",
  context: StartContext,
  signal: AbortSignal,
): Promise<CutSnapshot> {
  if (place === "anew") {
    return place;
  }
  try {
    return { position: await positionAtCursor(cursor, context, signal), place };
  } catch (error) {
    if (error instanceof FeedError && error.code === "HISTORY_LOST") {
      return "anew";
    }
    throw error;
  }
}

async function oldestPosition(context: PositionContext, signal: AbortSignal): Promise<Position> {
  const version = (await context.store.bounds(signal)).oldest - 1;
  return { version, tick: await tickOf(version, context, signal) };
}

async function positionAtTime(timeMicros: number, context: PositionContext, signal: AbortSignal): Promise<Position> {
  const tick = await context.store.tickAt(timeMicros, signal);
  if (tick !== undefined) {
    return await positionAt(tickEnd(tick), context, signal);
  }
  // The tick before the oldest version is always kept: when even that is later, what lies between is gone.
  const bounds = await context.store.bounds(signal);
  if (bounds.oldest > 1) {
    throw historyLost(`What settled after ${new Date(timeMicros / 1000).toISOString()}`, bounds, context);
  }
  return await positionAt(0, context, signal);
}

/**
 * Makes sure that a stream can go on after this cursor, whose epoch is the one in force or shares its version.
 *
 * @throws FeedError as `resolveStart`
 */
export async function positionAtCursor(
  cursor: Cursor,
  context: PositionContext,
  signal: AbortSignal,
): Promise<Position> {
  const position = await positionAt(cursor.version, context, signal);
  assertSameHistory(cursor, position.tick, context);
  return position;
}

/** @throws FeedError CURSOR_INVALID when the tick that settles the cursor's version is not the one that it remembers */
export function assertSameHistory(cursor: Cursor, tick: Tick | undefined, context: PositionContext): void {
  if (tick !== undefined && cursor.fingerprint !== 0 && tick.fingerprint !== cursor.fingerprint) {
    throw new FeedError(
      "CURSOR_INVALID",
      `The cursor at version ${cursor.version} is from a history that was rolled back: the database holds another one.`,
      "Discard what was received after the last state that you trust, and start again from `snapshot` or `oldest`.",
      whatIsThere(context),
    );
  }
}

/** @throws FeedError CURSOR_INVALID */
export function cursorOf(text: string, context: PositionContext): Cursor {
  try {
    return decodeCursor(text);
  } catch (error) {
    if (!(error instanceof FeedError)) {
      throw error;
    }
    throw new FeedError(error.code, error.message, error.action, { ...whatIsThere(context), cause: error });
  }
}

/** What a client whose position is no good can go on from. */
function whatIsThere({ store, log, oldest }: PositionContext): FeedErrorDetail {
  return { epoch: store.epoch, oldestVersion: oldest, headVersion: log.head };
}

/** Makes sure that a stream can go on after this version. */
async function positionAt(version: Version, context: PositionContext, signal: AbortSignal): Promise<Position> {
  const { store, log } = context;
  if (version > log.head) {
    await assertSettled(version, context, signal);
    context.wakeUp.nudge();
    await headReaches(version, context, signal);
  }
  const tick = await tickOf(version, context, signal);
  // After the tick, which is known then: one that is not kept any more would be taken for one that ends here.
  if (version + 1 < log.oldest) {
    const bounds = await store.bounds(signal);
    if (version + 1 < bounds.oldest) {
      throw historyLost(`Version ${version + 1}`, bounds, context);
    }
  }
  return { version, tick };
}

/**
 * This replica may be behind; only the database knows.
 *
 * @throws FeedError CURSOR_INVALID
 */
export async function assertSettled(version: Version, context: PositionContext, signal: AbortSignal): Promise<void> {
  const { oldest, head } = await context.store.bounds(signal);
  if (version > head) {
    throw new FeedError(
      "CURSOR_INVALID",
      `Version ${version} has not been settled: the last one is ${head}.`,
      "Go on from `head_version` at most; if you did receive later versions, the database has lost them.",
      { epoch: context.store.epoch, oldestVersion: oldest, headVersion: head },
    );
  }
}

async function headReaches(version: Version, context: PositionContext, signal: AbortSignal): Promise<void> {
  const { log, failure } = context;
  while (log.head < version) {
    const reason = failure();
    if (reason !== undefined) {
      throw reason;
    }
    await nextWake(log.changed, signal);
  }
}

async function tickOf(version: Version, context: PositionContext, signal: AbortSignal): Promise<Tick | undefined> {
  return context.log.tickOf(version) ?? (await context.store.tickOf(version, signal));
}

function historyLost(what: string, bounds: Bounds, context: PositionContext): FeedError {
  return new FeedError(
    "HISTORY_LOST",
    `${what} is older than what is kept: the oldest version is ${bounds.oldest}.`,
    "Start from `snapshot` to get the state and go on from there, or from `oldest` to accept the loss.",
    { epoch: context.store.epoch, oldestVersion: bounds.oldest, headVersion: bounds.head },
  );
}
