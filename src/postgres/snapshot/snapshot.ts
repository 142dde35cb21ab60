import type pg from "pg";
import { FeedError } from "../../core/errors.ts";
import type { SnapshotReader, SnapshotRequest } from "../../core/ports.ts";
import { queryError } from "../query-error.ts";
import { establish, turnOf } from "./establish.ts";
import type { StatedSource } from "./sources.ts";
import type { SpoolLimits } from "./spool.ts";
import { SpooledSnapshot } from "./spooled-snapshot.ts";

/** Bounds of a snapshot. */
export interface SnapshotOptions extends SpoolLimits {
  /**
   * Longest life of the database transaction, in milliseconds: it holds vacuum back, and makes ALTER TABLE wait. Default
   * 30,000.
   */
  readonly deadlineMs?: number | undefined;
  /**
   * After how long the copy of a source whose rows are ordered is cut, to be gone on with in another transaction, in
   * milliseconds. Default 5,000, at most `deadlineMs`, which only a source without an order can need.
   */
  readonly cutAfterMs?: number | undefined;
  /**
   * Bytes on disk that nobody has read yet, after which such a copy is cut. Default 256 MiB, at most `totalBytes`: a client
   * that reads slowly costs little disk, and goes on from a younger moment, which needs less history, each time.
   */
  readonly cutBytes?: number | undefined;
  /** How often to try when DDL is in the way, about a second each. Default 5. */
  readonly attempts?: number | undefined;
  /** Snapshots of one pool that may be open at once, each with its spool. Default 8. */
  readonly maxOpen?: number | undefined;
  /** Queries that stand for the rows of tables. Their snapshots begin anew when they are cut. Default: none. */
  readonly states?: readonly StatedSource[] | undefined;
}

/**
 * Copies the wanted sources as of a tick of its own, into a spool. Resolves once the tick is durable and the copy has
 * begun; rows can be read from then on, however fast or slowly, while the database transaction ends by itself.
 *
 * The signal ends the reader too, as does `close`. Takes two connections of the pool while it opens and one while it copies;
 * and, now and then for a moment, one to look whether somebody waits for the tables (then the copy is cut) and for
 * `concerning`.
 *
 * @throws FeedError TOPIC_FORBIDDEN when the role may not read a table whole; LIMIT_EXCEEDED when too many are open;
 * DATABASE_UNAVAILABLE. `rows()` rejects with LIMIT_EXCEEDED when the copy outgrew its disk or its deadline in a source
 * without an order.
 */
export async function openSnapshot(
  pool: pg.Pool,
  epoch: string,
  request: SnapshotRequest,
  options: SnapshotOptions,
  signal: AbortSignal,
): Promise<SnapshotReader> {
  const turn = turnOf(pool);
  const maxOpen = options.maxOpen ?? 8;
  if (turn.open >= maxOpen) {
    throw new FeedError(
      "LIMIT_EXCEEDED",
      `${maxOpen} snapshots are open on this server, which is as many as may be.`,
      "Try again when another has ended.",
      { retryAfterMs: 1000 },
    );
  }
  turn.open += 1;
  const deadlineMs = options.deadlineMs ?? 30_000;
  const totalBytes = options.totalBytes ?? 4 * 1024 ** 3;
  const bounds = {
    deadlineMs,
    cutAfterMs: Math.min(options.cutAfterMs ?? 5000, deadlineMs),
    totalBytes,
    cutBytes: Math.min(options.cutBytes ?? 256 * 1024 ** 2, totalBytes),
    memoryBytes: options.memoryBytes,
    directory: options.directory,
  };
  try {
    const patience = { deadlineMs, attempts: options.attempts ?? 5, states: options.states ?? [] };
    const established = await establish(pool, epoch, request, patience, signal);
    return new SpooledSnapshot({ pool, request, established, bounds, signal, closed: () => (turn.open -= 1) });
  } catch (error) {
    turn.open -= 1;
    throw signal.aborted ? signal.reason : queryError(error, "take the snapshot");
  }
}
