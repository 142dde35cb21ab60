import type { Cursor } from "../cursor.ts";
import { FeedError } from "../errors.ts";
import type { Start } from "../feed.ts";
import { assertShared } from "../lineage.ts";
import {
  assertSameHistory,
  assertSettled,
  cursorOf,
  type PositionContext,
  plainPosition,
  positionAtCursor,
} from "./start.ts";

/**
 * Where a stream with this start would begin, as a cursor to be kept: `resolveStart` from it finds the same place. A snapshot
 * is not begun, but stands for "anew".
 *
 * @throws FeedError as `resolveStart`
 */
export async function locate(start: Start, context: PositionContext, signal: AbortSignal): Promise<Cursor> {
  const { store } = context;
  if (start.kind === "snapshot") {
    return anew(context);
  }
  if (start.kind !== "cursor") {
    const { version, tick } = await plainPosition(start, context, signal);
    return { epoch: store.epoch, version, fingerprint: tick?.fingerprint ?? 0, snapshot: undefined };
  }
  const cursor = cursorOf(start.cursor, context);
  await assertShared(cursor, context, signal);
  if (cursor.snapshot === "anew") {
    return anew(context);
  }
  try {
    const { tick } = await positionAtCursor(cursor, context, signal);
    // Of another epoch what is left of a thinned piece may be another thing now.
    const thinned = cursor.epoch === store.epoch ? cursor.thinned : undefined;
    return { ...cursor, epoch: store.epoch, fingerprint: tick?.fingerprint ?? 0, thinned };
  } catch (error) {
    // As a stream would: where history does not reach back to a snapshot that was cut, it is taken again.
    if (cursor.snapshot !== undefined && error instanceof FeedError && error.code === "HISTORY_LOST") {
      return anew(context);
    }
    throw error;
  }
}

/**
 * The cursor of something that was delivered. Costs no look into the database but for versions that this replica has not seen,
 * so that acknowledgements do not.
 *
 * @throws FeedError CURSOR_INVALID, EPOCH_CHANGED
 */
export async function recognise(text: string, context: PositionContext, signal: AbortSignal): Promise<Cursor> {
  const cursor = cursorOf(text, context);
  await assertShared(cursor, context, signal);
  if (cursor.version > context.log.head) {
    await assertSettled(cursor.version, context, signal);
  }
  assertSameHistory(cursor, context.log.tickOf(cursor.version), context);
  return cursor;
}

function anew({ store, log }: PositionContext): Cursor {
  const { head } = log;
  return { epoch: store.epoch, version: head, fingerprint: log.tickOf(head)?.fingerprint ?? 0, snapshot: "anew" };
}
