import type pg from "pg";
import { to as copyTo } from "pg-copy-streams";
import { FeedError } from "../../core/errors.ts";
import type { Event } from "../../core/event.ts";
import { type Tick, tickEnd } from "../../core/page.ts";
import type { SnapshotPart, SnapshotReader, SnapshotRequest, SnapshotRows } from "../../core/ports.ts";
import { sqlState, sqlStateOf } from "../database-error.ts";
import { type Lease, takeLease, withLease } from "../lease.ts";
import { look } from "../look.ts";
import { queryError } from "../query-error.ts";
import { tickFromText } from "../tick-row.ts";
import { createCopyTuples } from "./copy-tuples.ts";
import { type SnapshotSource, sameSources, wantedSources } from "./sources.ts";
import { createSpool, type Spool, type SpoolLimits } from "./spool.ts";
import {
  adoptSnapshot,
  beginReader,
  beginTicker,
  copyRows,
  pinSettings,
  tableLockHolders,
  tickAndExport,
} from "./statements.ts";

/** Bounds of a snapshot. */
export interface SnapshotOptions extends SpoolLimits {
  /** Longest life of the database transaction, in milliseconds: it holds vacuum back. Default 30,000. */
  readonly deadlineMs?: number | undefined;
  /** How often to try when DDL is in the way, about a second each. Default 5. */
  readonly attempts?: number | undefined;
  /** Snapshots of one pool that may be open at once, each with its spool. Default 8. */
  readonly maxOpen?: number | undefined;
}

const batchRows = 1000;
const batchBytes = 256 * 1024;

/**
 * Copies the wanted sources as of a tick of its own, into a spool. Resolves once the tick is durable and the copy has
 * begun; rows can be read from then on, however fast or slowly, while the database transaction ends by itself.
 *
 * The signal ends the reader too, as does `close`. Takes two connections of the pool while it opens and one while it copies.
 *
 * @throws FeedError TOPIC_FORBIDDEN when the role may not read a table whole; LIMIT_EXCEEDED when too many are open;
 * DATABASE_UNAVAILABLE. `rows()` rejects with LIMIT_EXCEEDED when the copy outgrew its disk or its deadline.
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
  try {
    const established = await establish(pool, epoch, request, options, signal);
    return new SpooledSnapshot(established, options, signal, () => {
      turn.open -= 1;
    });
  } catch (error) {
    turn.open -= 1;
    throw signal.aborted ? signal.reason : queryError(error, "take the snapshot");
  }
}

/** One pool's snapshots. Two connections are taken in turn: half of each of two pairs would wait for ever. */
interface Turn {
  open: number;
  last: Promise<unknown>;
}

const turns = new WeakMap<pg.Pool, Turn>();

function turnOf(pool: pg.Pool): Turn {
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
interface Established {
  readonly reader: Lease;
  readonly tick: Tick;
  readonly sources: readonly SnapshotSource[];
}

async function establish(
  pool: pg.Pool,
  epoch: string,
  request: SnapshotRequest,
  options: SnapshotOptions,
  signal: AbortSignal,
): Promise<Established> {
  const attempts = options.attempts ?? 5;
  for (let attempt = 1; ; attempt += 1) {
    const [ticker, reader] = await takePair(pool, signal);
    try {
      const established = await tryEstablish(ticker, reader, epoch, request, options);
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
  options: SnapshotOptions,
): Promise<Established | undefined> {
  const sources = await look(ticker.client, () => wantedSources(ticker, request.wantsSource));
  await reader.run(beginReader(sources, options.deadlineMs ?? 30_000));
  await ticker.run(beginTicker);
  const [row] = await ticker.rows<{ tick_row: string; snapshot: string }>(tickAndExport, [epoch]);
  if (row === undefined) throw new FeedError("INTERNAL", "snapshot_tick() gave no answer.", "Report it.");
  await reader.run(adoptSnapshot(row.snapshot));
  await ticker.run("commit");
  if (!sameSources(sources, await wantedSources(reader, request.wantsSource))) {
    await reader.run("rollback");
    return undefined;
  }
  await reader.run(pinSettings(options.deadlineMs ?? 30_000));
  return { reader, tick: tickFromText(row.tick_row), sources };
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

class SpooledSnapshot implements SnapshotReader {
  readonly tick: Tick;
  readonly parts: readonly SnapshotPart[];
  readonly shape = 0;
  readonly resumed = false;
  readonly cut = false;
  readonly #sources: readonly SnapshotSource[];
  readonly #reader: Lease;
  readonly #spool: Spool;
  readonly #copied: Promise<void>;
  readonly #deadline: NodeJS.Timeout;
  readonly #detach: () => void;
  #closed: Promise<void> | undefined;

  constructor(
    { reader, tick, sources }: Established,
    options: SnapshotOptions,
    signal: AbortSignal,
    closed: () => void,
  ) {
    this.tick = tick;
    this.parts = sources.map(({ topic }) => ({ topic, ordered: false, estimatedRows: 0 }));
    this.#sources = sources;
    this.#reader = reader;
    this.#spool = createSpool(options);
    const deadlineMs = options.deadlineMs ?? 30_000;
    this.#deadline = setTimeout(() => this.#cut(tooSlow(deadlineMs)), deadlineMs);
    const abort = () => this.#cut(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    this.#detach = () => {
      signal.removeEventListener("abort", abort);
      closed();
    };
    this.#copied = this.#copy(deadlineMs);
    if (signal.aborted) abort();
  }

  async *rows(): AsyncGenerator<SnapshotRows, void, undefined> {
    const tuples = createCopyTuples(3);
    let source = 0;
    let batch: Event[] = [];
    let bytes = 0;
    for await (const chunk of this.#spool.read()) {
      tuples.push(chunk);
      for (let step = tuples.next(); step !== "more"; step = tuples.next()) {
        if (step === "end") {
          if (batch.length > 0) yield { part: source, events: batch };
          source += 1;
          batch = [];
          bytes = 0;
          continue;
        }
        batch.push(this.#event(tuples.text(0), tuples.field(1), tuples.text(2) ?? this.parts[source]?.topic ?? ""));
        bytes += tuples.bytes;
        if (batch.length < batchRows && bytes < batchBytes) continue;
        yield { part: source, events: batch };
        batch = [];
        bytes = 0;
      }
    }
    if (source !== this.#sources.length) {
      throw new FeedError("INTERNAL", "The copy of the tables is not whole.", "Take the snapshot again.");
    }
  }

  async concerning(): Promise<readonly Event[]> {
    throw new FeedError("INTERNAL", "This snapshot does not go on from an earlier one.", "Take it from its start.");
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#cut(new FeedError("INTERNAL", "The snapshot is closed.", "Do not read a snapshot after closing it."));
    await this.#copied;
    await this.#spool.close();
    this.#detach();
  }

  #event(key: string | undefined, after: Uint8Array | undefined, topic: string): Event {
    return {
      version: tickEnd(this.tick),
      topic,
      key,
      operation: "SNAPSHOT",
      before: undefined,
      after,
      transaction: "",
      occurredAtMicros: this.tick.timeMicros,
      headers: undefined,
    };
  }

  /** Fails whoever still reads, and ends the transaction. */
  #cut(reason: unknown): void {
    this.#spool.fail(reason);
    this.#reader.destroy();
  }

  /** Never rejects: a copy that fails fails whoever reads it. */
  async #copy(deadlineMs: number): Promise<void> {
    try {
      for (const source of this.#sources) {
        const stream = this.#reader.client.query(copyTo(copyRows(source), { highWaterMark: batchBytes }));
        for await (const chunk of stream) await this.#spool.write(chunk);
      }
      await this.#reader.run("commit");
      this.#reader.release();
      this.#spool.end();
    } catch (error) {
      // 57014: the server's own statement_timeout, which is the same deadline.
      this.#cut(sqlStateOf(error) === "57014" ? tooSlow(deadlineMs) : queryError(error, "copy the tables"));
    } finally {
      clearTimeout(this.#deadline);
    }
  }
}

function tooSlow(deadlineMs: number): FeedError {
  return new FeedError(
    "LIMIT_EXCEEDED",
    `The tables could not be copied within ${deadlineMs} ms, and no longer may a snapshot hold the database back.`,
    "Select fewer topics, or raise the deadline of snapshots.",
  );
}
