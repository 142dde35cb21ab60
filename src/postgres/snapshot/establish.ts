import type pg from "pg";
import { FeedError } from "../../core/errors.ts";
import type { Tick } from "../../core/page.ts";
import type { SnapshotPlace, SnapshotRequest } from "../../core/ports.ts";
import { sqlState, sqlStateOf } from "../database-error.ts";
import { type Lease, takeLease, withLease } from "../lease.ts";
import { look } from "../look.ts";
import { tickFromText } from "../tick-row.ts";
import { orderOf, orderTexts } from "./key-range.ts";
import { estimateRows } from "./snapshot-sources.ts";
import { type SnapshotSource, type StatedSource, sameSources, shapeOf, wantedSources } from "./sources.ts";
import { adoptSnapshot, beginReader, beginTicker, pinSettings, tableLockHolders, tickAndExport } from "./statements.ts";

/** One pool's snapshots. Two connections are taken in turn: half of each of two pairs would wait for ever. */
export interface Turn {
  /** Snapshots that are open. */
  open: number;
  last: Promise<unknown>;
}

const turns = new WeakMap<pg.Pool, Turn>();

/** A pool's turn, the same each time. */
export function turnOf(pool: pg.Pool): Turn {
  let turn = turns.get(pool);
  if (turn === undefined) {
    turn = { open: 0, last: Promise.resolve() };
    turns.set(pool, turn);
  }
  return turn;
}

async function takePair(pool: pg.Pool, signal: AbortSignal): Promise<readonly [ticker: Lease, reader: Lease]> {
  if (pool.options.max < 2) {
    throw new FeedError("INVALID_REQUEST", "A snapshot takes two connections.", "Give the pool at least two.");
  }
  const turn = turnOf(pool);
  const pair = turn.last.then(async () => {
    const ticker = await takeLease(pool, signal);
    try {
      return [ticker, await takeLease(pool, signal)] as const;
    } catch (error) {
      ticker.release();
      throw error;
    }
  });
  turn.last = pair.catch(() => undefined);
  return await pair;
}

/** A reader whose transaction sees the tables as of `tick`, and has them locked. */
export interface Established {
  readonly reader: Lease;
  readonly tick: Tick;
  readonly sources: readonly SnapshotSource[];
  readonly shape: number;
  /** Where an earlier snapshot came to, if this one can go on from there. */
  readonly place: SnapshotPlace | undefined;
  /** Rows of each source, about. */
  readonly estimates: readonly number[];
  /** When the reader's transaction began, by `performance.now()`. */
  readonly begun: number;
}

/** What bounds the opening of a snapshot. */
export interface Patience {
  /** Longest life of the reader's transaction, in milliseconds. */
  readonly deadlineMs: number;
  /** How often to try when DDL is in the way. */
  readonly attempts: number;
  /** Queries that stand for rows. */
  readonly states: readonly StatedSource[];
}

/**
 * Takes a tick, and a reader at exactly its snapshot.
 *
 * @throws FeedError TOPIC_FORBIDDEN, DATABASE_UNAVAILABLE; errors of the driver.
 */
export async function establish(
  pool: pg.Pool,
  epoch: string,
  request: SnapshotRequest,
  patience: Patience,
  signal: AbortSignal,
): Promise<Established> {
  const { attempts } = patience;
  for (let attempt = 1; ; attempt += 1) {
    const [ticker, reader] = await takePair(pool, signal);
    try {
      const established = await tryEstablish(ticker, reader, epoch, request, patience);
      ticker.release();
      if (established !== undefined) return established;
      reader.release();
      if (attempt >= attempts) throw tablesKeepChanging();
    } catch (error) {
      ticker.destroy();
      reader.destroy();
      if (!passesByItself(error)) throw error;
      if (attempt >= attempts) throw await givenUp(pool, error);
    }
  }
}

/** `undefined` when a table was renamed, altered, watched or unwatched between the first look and the snapshot. */
async function tryEstablish(
  ticker: Lease,
  reader: Lease,
  epoch: string,
  request: SnapshotRequest,
  { deadlineMs, states }: Patience,
): Promise<Established | undefined> {
  const sources = await look(ticker.client, () => wantedSources(ticker, request.wantsSource, states));
  const shape = shapeOf(sources, request.selection);
  const place = await beginningOf(ticker, sources, shape, request.after);
  const begun = performance.now();
  await reader.run(beginReader(sources, deadlineMs));
  await ticker.run(beginTicker);
  const [row] = await ticker.rows<{ tick_row: string; snapshot: string }>(tickAndExport, [epoch]);
  if (row === undefined) throw new FeedError("INTERNAL", "snapshot_tick() gave no answer.", "Report it.");
  await reader.run(adoptSnapshot(row.snapshot));
  await ticker.run("commit");
  if (!sameSources(sources, await wantedSources(reader, request.wantsSource, states))) {
    await reader.run("rollback");
    return undefined;
  }
  await reader.run(pinSettings(deadlineMs));
  const estimates = await estimatesOf(reader, sources);
  return { reader, tick: tickFromText(row.tick_row), sources, shape, place, estimates, begun };
}

async function estimatesOf(reader: Lease, sources: readonly SnapshotSource[]): Promise<readonly number[]> {
  const ids = sources.map(({ id }) => id);
  const rows = await reader.rows<{ id: number; rows: number }>(estimateRows, [ids]);
  const known = new Map(rows.map((row) => [row.id, row.rows]));
  return ids.map((id) => known.get(id) ?? 0);
}

/**
 * The place to go on from, `undefined` when it means nothing here: other sources or other selectors, or a key that is none.
 * A place comes out of a cursor, which its bearer may have made up: whether its texts can be cast, the database is asked
 * where a failure does no harm.
 */
async function beginningOf(
  lease: Lease,
  sources: readonly SnapshotSource[],
  shape: number,
  after: SnapshotPlace | undefined,
): Promise<SnapshotPlace | undefined> {
  if (after === undefined || after.shape !== shape || after.sources > sources.length) return undefined;
  const source = sources[after.sources];
  if (after.key === undefined) return after;
  if (source === undefined) return undefined;
  const order = orderOf(source);
  const texts = orderTexts(source, after.key);
  if (order === undefined || texts === undefined) return undefined;
  const casts = order.map(({ type }, at) => `$${at + 1}::text::${type}`).join(", ");
  try {
    await look(lease.client, () => lease.rows(`select ${casts}`, texts));
    return after;
  } catch (error) {
    if (sqlStateOf(error)?.startsWith("22")) return undefined;
    throw error;
  }
}

/**
 * A lock that was not to be had, a deadlock with DDL, a table that went between the look and the lock, a ticker that was
 * ended before the reader had its snapshot.
 */
const passing: ReadonlySet<string | undefined> = new Set([
  sqlState.lockNotAvailable,
  sqlState.deadlockDetected,
  sqlState.undefinedTable,
  sqlState.undefinedObject,
  sqlState.invalidParameterValue,
]);

function passesByItself(error: unknown): boolean {
  return passing.has(sqlStateOf(error));
}

async function givenUp(pool: pg.Pool, error: unknown): Promise<unknown> {
  const state = sqlStateOf(error);
  if (state === sqlState.lockNotAvailable) return inTheWay(pool);
  if (state !== sqlState.undefinedObject && state !== sqlState.invalidParameterValue) return error;
  return new FeedError(
    "DATABASE_UNAVAILABLE",
    "The session that holds the snapshot is ended each time before it can be read.",
    "Find out who ends Millrace's sessions, then take the snapshot again.",
    { cause: error, retryAfterMs: 1000 },
  );
}

/** Names the sessions whose locks keep the tables from being read. */
async function inTheWay(pool: pg.Pool): Promise<FeedError> {
  const rows = await withLease(pool, new AbortController().signal, (lease) =>
    look(lease.client, () => lease.rows<{ holder: string }>(tableLockHolders)),
  );
  const holders = rows.length === 0 ? "somebody who has just let go" : rows.map(({ holder }) => holder).join(", ");
  return new FeedError(
    "DATABASE_UNAVAILABLE",
    `A watched table cannot be read: it is locked by ${holders}.`,
    "Wait until that ALTER TABLE or the like is over, or end it, then take the snapshot again.",
    { retryAfterMs: 1000 },
  );
}

function tablesKeepChanging(): FeedError {
  return new FeedError(
    "DATABASE_UNAVAILABLE",
    "The watched tables are being altered all the while.",
    "Take the snapshot again when that is over.",
    { retryAfterMs: 5000 },
  );
}
