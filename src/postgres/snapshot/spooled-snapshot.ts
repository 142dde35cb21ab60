import type pg from "pg";
import { FeedError } from "../../core/errors.ts";
import type { Event } from "../../core/event.ts";
import { type Tick, tickEnd } from "../../core/page.ts";
import type { SnapshotPart, SnapshotReader, SnapshotRequest, SnapshotRows } from "../../core/ports.ts";
import { Concern } from "./concern.ts";
import { type CopyBounds, copySources, type RunningCopy } from "./copy-sources.ts";
import { createCopyTuples } from "./copy-tuples.ts";
import type { Established } from "./establish.ts";
import { orderOf } from "./key-range.ts";
import type { SnapshotSource } from "./sources.ts";
import { createSpool, type Spool, type SpoolLimits } from "./spool.ts";

const batchRows = 1000;
const batchBytes = 256 * 1024;

/** What a snapshot's reader is made of. */
export interface SpooledSnapshotOptions {
  /** For `concerning`, and to look whether somebody waits for the tables. */
  readonly pool: pg.Pool;
  readonly request: SnapshotRequest;
  readonly established: Established;
  readonly bounds: CopyBounds & SpoolLimits;
  readonly signal: AbortSignal;
  /** Called once, when everything is given back. */
  readonly closed: () => void;
}

/** Rows on their way from a copy that waits for nobody, through a spool, to a reader who takes the time it takes. */
export class SpooledSnapshot implements SnapshotReader {
  readonly tick: Tick;
  readonly parts: readonly SnapshotPart[];
  readonly shape: number;
  readonly resumed: boolean;
  readonly #concern: Concern | undefined;
  readonly #sources: readonly SnapshotSource[];
  /** The first source that is copied. */
  readonly #first: number;
  readonly #spool: Spool;
  readonly #copy: RunningCopy;
  readonly #detach: () => void;
  /** Why the copy ended before its end. */
  #cutBy: FeedError | undefined;
  #closed: Promise<void> | undefined;

  constructor({ pool, request, established, bounds, signal, closed }: SpooledSnapshotOptions) {
    const { tick, sources, shape, place, estimates } = established;
    this.tick = tick;
    this.shape = shape;
    this.resumed = place !== undefined;
    this.parts = sources.map((source, at) => ({
      topic: source.topic,
      ordered: orderOf(source) !== undefined,
      estimatedRows:
        source.initialState === undefined
          ? (request.wantedKeys?.(source.topic)?.length ?? estimates[at] ?? 0)
          : undefined,
    }));
    this.#sources = sources;
    this.#concern = place === undefined ? undefined : new Concern(pool, sources, place);
    this.#first = place?.sources ?? 0;
    this.#spool = createSpool(bounds);
    const cut = (limit: FeedError) => {
      this.#cutBy = limit;
    };
    this.#copy = copySources({ pool, established, request, spool: this.#spool, bounds, cut });
    const abort = () => this.#copy.fail(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    this.#detach = () => {
      signal.removeEventListener("abort", abort);
      closed();
    };
    if (signal.aborted) abort();
  }

  get cut(): boolean {
    return this.#cutBy !== undefined;
  }

  async *rows(): AsyncGenerator<SnapshotRows, void, undefined> {
    const tuples = createCopyTuples(3);
    let part = this.#first;
    let told = this.#first;
    let batch: Event[] = [];
    let bytes = 0;
    let progress = false;
    for await (const chunk of this.#spool.read()) {
      tuples.push(chunk);
      for (let step = tuples.next(); step !== "more"; step = tuples.next()) {
        if (step === "tuple") {
          this.#assertKey(tuples.text(0), part);
          batch.push(this.#event(tuples.text(0), tuples.field(1), tuples.text(2) ?? this.parts[part]?.topic ?? ""));
          bytes += tuples.bytes;
          if (batch.length < batchRows && bytes < batchBytes) continue;
        }
        told = part;
        progress = true;
        if (batch.length > 0) yield { part, events: batch };
        if (step === "end") part += 1;
        batch = [];
        bytes = 0;
      }
    }
    // Of a copy that was cut, whole rows are left, and perhaps a piece of one, which nobody gets.
    if (batch.length > 0 || (part > told && part < this.parts.length)) yield { part, events: batch };
    this.#assertProgress(progress || batch.length > 0, part);
  }

  async concerning(events: readonly Event[], signal: AbortSignal): Promise<readonly Event[]> {
    if (this.#concern === undefined) {
      throw new FeedError("INTERNAL", "This snapshot does not go on from an earlier one.", "Take it from its start.");
    }
    return await this.#concern.of(events, signal);
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#copy.fail(new FeedError("INTERNAL", "The snapshot is closed.", "Do not read a snapshot after closing it."));
    await this.#copy.ended;
    await this.#spool.close();
    this.#detach();
  }

  /** Without a row, or a source that is complete, the next snapshot would come no further than this one. */
  #assertProgress(progress: boolean, part: number): void {
    if (this.#cutBy !== undefined) {
      if (!progress) throw this.#cutBy;
    } else if (part !== this.parts.length) {
      throw new FeedError("INTERNAL", "The copy of the tables is not whole.", "Take the snapshot again.");
    }
  }

  /** Of a query's rows nothing else sees to it, and without a key nobody could tell what becomes of them. */
  #assertKey(key: string | undefined, part: number): void {
    const source = this.#sources[part];
    if (key !== undefined || source?.initialState === undefined) return;
    throw new FeedError(
      "INVALID_REQUEST",
      `The initial state of ${source.initialState.table} has a row without its key, ${source.keyColumns.join(", ")}.`,
      "Select the key's columns in `initialState`, none of them null.",
    );
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
}
