import type pg from "pg";
import { to as copyTo } from "pg-copy-streams";
import { FeedError } from "../../core/errors.ts";
import type { SnapshotRequest } from "../../core/ports.ts";
import { sqlStateOf } from "../database-error.ts";
import { queryError } from "../query-error.ts";
import type { Established } from "./establish.ts";
import { orderOf, orderTexts, walksIndex } from "./key-range.ts";
import { imageExpression } from "./snapshot-sources.ts";
import { type SnapshotSource, type StatedSource, shownColumns } from "./sources.ts";
import type { Spool } from "./spool.ts";
import { beforeCopy, copyRows, rewrittenTables } from "./statements.ts";
import { watchWaiters } from "./waiters.ts";

/** How long and how large a copy may become. */
export interface CopyBounds {
  /** Longest life of the transaction, in milliseconds. */
  readonly deadlineMs: number;
  /** When a copy that can be gone on with ends, in milliseconds; at most `deadlineMs`. */
  readonly cutAfterMs: number;
  /** Bytes on disk that nobody has read yet. */
  readonly totalBytes: number;
  /** The same for a copy that can be gone on with; at most `totalBytes`. */
  readonly cutBytes: number;
}

/** What is copied, and where it goes. */
export interface CopyTask {
  /** To look whether somebody waits for the tables. */
  readonly pool: pg.Pool;
  readonly established: Established;
  readonly request: SnapshotRequest;
  readonly spool: Spool;
  readonly bounds: CopyBounds;
  /** Called when the copy ends before its end, with what its reader is to be told if he got nothing at all. */
  readonly cut: (limit: FeedError) => void;
}

/** A copy that is under way. */
export interface RunningCopy {
  /** Never rejects: a copy that fails fails whoever reads the spool. */
  readonly ended: Promise<void>;
  /** Ends it now. Whoever reads gets this reason, also when the copy is long over. */
  fail(reason: unknown): void;
}

/**
 * Copies the sources from the established place on into the spool, and ends the transaction.
 *
 * A copy that comes to one of its bounds, or that somebody waits for, is cut where it can be gone on with: amid the rows of
 * an ordered source, and between two sources. One that is amid a source without an order goes on up to the outer bounds,
 * and fails there. So that it has most of them for itself, it does not begin in the second half of a copy that can be cut
 * before it.
 */
export function copySources(task: CopyTask): RunningCopy {
  return new Copy(task);
}

/** How long after this process should have ended a copy the server does, in milliseconds. */
const graceMs = 1000;
/** Of a binary copy without rows. */
const emptyCopyBytes = 21;

class Copy implements RunningCopy {
  readonly ended: Promise<void>;
  readonly #task: CopyTask;
  readonly #timers: readonly NodeJS.Timeout[];
  readonly #unwatch: () => void;
  /** Amid a source without an order. */
  #whole = false;
  /** Amid rows that a query stands for. */
  #stated: StatedSource | undefined;
  /** Past a bound, amid such a source. */
  #due: FeedError | undefined;
  #over = false;
  #bytes = 0;

  constructor(task: CopyTask) {
    this.#task = task;
    const { cutAfterMs, deadlineMs } = task.bounds;
    this.#timers = [
      setTimeout(() => this.#reach(tooSlow(cutAfterMs)), this.#remaining(cutAfterMs)),
      setTimeout(() => this.#end(tooSlow(deadlineMs)), this.#remaining(deadlineMs)),
    ];
    const ids = task.established.sources.map(({ id }) => id);
    this.#unwatch = watchWaiters(task.pool, ids, () => {
      if (this.#bytes > 0) this.#reach(inTheWay());
    });
    this.ended = this.#run();
  }

  fail(reason: unknown): void {
    this.#over = true;
    this.#task.spool.fail(reason);
    this.#task.established.reader.destroy();
  }

  /** Past a bound within which a copy must stay only if it can be gone on with. */
  #reach(limit: FeedError): void {
    if (this.#whole) this.#due = limit;
    else this.#end(limit);
  }

  /** Past a bound: what was copied is good if it can be gone on with, and nothing otherwise. */
  #end(limit: FeedError): void {
    if (this.#over) return;
    if (this.#whole) {
      this.fail(limit);
      return;
    }
    this.#over = true;
    this.#task.cut(limit);
    this.#task.spool.end();
    this.#task.established.reader.destroy();
  }

  async #run(): Promise<void> {
    const { reader, sources, place } = this.#task.established;
    const first = place?.sources ?? 0;
    try {
      for (let at = first; at < sources.length && !this.#over; at += 1) {
        const source = sources[at];
        if (source === undefined) break;
        const ordered = orderOf(source) !== undefined;
        const limit = this.#due ?? (ordered ? undefined : this.#halfway(at - first));
        this.#due = undefined;
        if (limit !== undefined) this.#end(limit);
        else await this.#copy(source, ordered, at === first ? place?.key : undefined);
      }
      if (this.#over) return;
      // Every row is there. Should the transaction not end by itself, it has its deadline.
      this.#over = true;
      this.#task.spool.end();
      await reader.run("commit").then(reader.release, reader.destroy);
    } catch (error) {
      this.#failed(error);
    } finally {
      for (const timer of this.#timers) clearTimeout(timer);
      this.#unwatch();
    }
  }

  async #copy(source: SnapshotSource, ordered: boolean, afterKey: string | undefined): Promise<void> {
    const { reader } = this.#task.established;
    const { cutAfterMs, deadlineMs } = this.#task.bounds;
    const lasts = ordered ? Math.min(deadlineMs, cutAfterMs + graceMs) : deadlineMs;
    const range = {
      after: afterKey === undefined ? undefined : orderTexts(source, afterKey),
      keys: this.#task.request.wantedKeys?.(source.topic),
    };
    this.#stated = source.initialState;
    await reader.run(beforeCopy(this.#remaining(lasts), walksIndex(source, range)));
    this.#whole = !ordered;
    const stream = reader.client.query(
      copyTo(copyRows(source, range, await this.#imageOf(source)), { highWaterMark: 256 * 1024 }),
    );
    for await (const chunk of stream) {
      if (this.#over) return;
      const onDisk = this.#task.spool.diskBytes + chunk.length;
      if (onDisk > this.#task.bounds.cutBytes && this.#bytes > 0) this.#reach(tooLarge(this.#task.bounds.cutBytes));
      if (this.#over) return;
      await this.#task.spool.write(chunk);
      this.#bytes += chunk.length;
    }
    await this.#assertUnaltered();
    this.#whole = false;
    this.#stated = undefined;
  }

  async #assertUnaltered(): Promise<void> {
    if (this.#stated === undefined || this.#over) return;
    const [row] = await this.#task.established.reader.rows<{ name: string }>(rewrittenTables);
    if (row !== undefined) throw altered(this.#stated, row.name);
  }

  async #imageOf(source: SnapshotSource): Promise<string | undefined> {
    if (source.plainTypes || source.initialState !== undefined) return undefined;
    const { reader } = this.#task.established;
    const [row] = await reader.rows<{ image: string }>(imageExpression, [source.relid, shownColumns(source)]);
    return row?.image;
  }

  /** What a source without an order is not begun for, where there are rows before it to go on from. */
  #halfway(copied: number): FeedError | undefined {
    const { cutAfterMs, cutBytes } = this.#task.bounds;
    if (this.#bytes <= copied * emptyCopyBytes) return undefined;
    if (this.#remaining(cutAfterMs) < cutAfterMs / 2) return tooSlow(cutAfterMs);
    return this.#task.spool.diskBytes > cutBytes / 2 ? tooLarge(cutBytes) : undefined;
  }

  #remaining(boundMs: number): number {
    return this.#task.established.begun + boundMs - performance.now();
  }

  #failed(error: unknown): void {
    if (this.#over) return;
    const state = sqlStateOf(error);
    if (state !== undefined && endedByServer.has(state)) this.#end(tooSlow(this.#task.bounds.deadlineMs));
    else if (this.#stated !== undefined && queryIsWrong.test(state ?? "")) this.fail(wrongState(this.#stated, error));
    else this.fail(queryError(error, "copy the tables"));
  }
}

/** statement_timeout, idle_in_transaction_session_timeout, transaction_timeout: the server's clocks of the same deadline. */
const endedByServer: ReadonlySet<string> = new Set(["57014", "25P03", "25P04"]);

/** Data, syntax and access rule, transaction that only reads, routine: what no second try mends. */
const queryIsWrong = /^(?:0A|21|22|25006|2F|38|39|3F|42|P0)/;

function wrongState({ table }: StatedSource, cause: unknown): FeedError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new FeedError(
    "INVALID_REQUEST",
    `The initial state of ${table} cannot be read: ${reason}.`,
    "Correct `initialState` in the server's configuration, and name tables with their schemas; or leave the topic out of the snapshot.",
    { cause },
  );
}

function altered({ table }: StatedSource, name: string): FeedError {
  return new FeedError(
    "DATABASE_UNAVAILABLE",
    `The initial state of ${table} could not be read: ${name} was altered or truncated meanwhile.`,
    "Take the snapshot again.",
    { retryAfterMs: 1_000 },
  );
}

const howToGoOn =
  "Give each table that has none a unique index over its key columns (NOT NULL), so that its copy can go on in parts; or " +
  "select fewer topics. If all have one, the database is too busy to give a single row: try again later.";

function tooSlow(boundMs: number): FeedError {
  return new FeedError(
    "LIMIT_EXCEEDED",
    `The tables could not be copied within ${boundMs} ms, and no longer may a snapshot hold the database back.`,
    howToGoOn,
    { retryAfterMs: 5000 },
  );
}

function tooLarge(bytes: number): FeedError {
  return new FeedError(
    "LIMIT_EXCEEDED",
    `The snapshot is larger than ${bytes} bytes, which is what one may take on disk.`,
    howToGoOn,
    { retryAfterMs: 5000 },
  );
}

function inTheWay(): FeedError {
  return new FeedError(
    "DATABASE_UNAVAILABLE",
    "Somebody waits to alter a table that is being copied, and writers behind him.",
    "Take the snapshot again when that is over.",
    { retryAfterMs: 1000 },
  );
}
