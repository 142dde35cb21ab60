import type pg from "pg";
import { FeedError } from "../core/errors.ts";
import type { Event, Version } from "../core/event.ts";
import { eventBytes, type Page, type Tick } from "../core/page.ts";
import { sqlStateOf } from "./database-error.ts";
import { assertContinues, type ShownTicks } from "./epoch/shown-ticks.ts";
import { operationFromLetter } from "./history.ts";
import type { Lease } from "./lease.ts";
import { type PageReader, readPage } from "./page.ts";
import { queryError } from "./query-error.ts";
import { tickAndTail } from "./statements/tick.ts";
import { tickFromText } from "./tick-row.ts";

/** What the tail works with. */
export interface TailOptions {
  /** Of one connection: the tail's own, so that no reader of history is ever in its way. */
  readonly pool: pg.Pool;
  readonly epoch: string;
  readonly pages: PageReader;
  /** What the database must still hold before anything is settled. */
  readonly shown: ShownTicks;
  /** How long one tick may take at first, in milliseconds. */
  readonly tickTimeoutMs: number;
  /** The number of the last tick, each time that the database was asked. */
  readonly onTick: (tick: number) => void;
}

/** What comes with the tick's own answer: beyond it COPY is faster. */
const maxRows = 2000;
const maxBytes = 4 * 1024 * 1024;
const longestTickMs = 3_600_000;
const queryCanceled = "57014";

/**
 * Settles and reads in one round trip, as long as what there is fits; otherwise by pages, on the same connection.
 */
export class Tail {
  readonly #options: TailOptions;
  readonly #types = { getTypeParser: () => (value: string) => value };
  #tickTimeoutMs: number;
  /** There was more than fits: so there will be now. */
  #behind = false;

  constructor(options: TailOptions) {
    this.#options = options;
    this.#tickTimeoutMs = options.tickTimeoutMs;
  }

  /** See `FeedStore.advance`. */
  async advance(after: Version, signal: AbortSignal): Promise<Page | undefined> {
    const { pool, pages, shown } = this.#options;
    try {
      const page = await readPage(pool, signal, (lease, alone) =>
        alone ? pages.read(lease, after, true) : this.#advance(lease, after),
      );
      shown.byTail(page?.ticks.at(-1));
      return page;
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      // However long it takes, one tick must settle all that there is.
      if (sqlStateOf(error) === queryCanceled) {
        this.#tickTimeoutMs = Math.min(this.#tickTimeoutMs * 2, longestTickMs);
      }
      throw queryError(error, "settle what has committed");
    }
  }

  async #advance(lease: Lease, after: Version): Promise<Page | undefined | "nothing"> {
    const { epoch, pages, shown, onTick } = this.#options;
    const limits = { lockTimeoutMs: this.#tickTimeoutMs, statementTimeoutMs: this.#tickTimeoutMs };
    const sql = tickAndTail(epoch, limits, shown.newest, this.#behind ? undefined : { after, maxRows, maxBytes });
    // The server ends an overlong tick by itself; a server, or a network, that does not answer at all the watchdog does.
    lease.allow(this.#tickTimeoutMs);
    const results = await this.#query(lease, sql);
    this.#tickTimeoutMs = this.#options.tickTimeoutMs;
    // The first answer is the tick's, also when it refused and has no row: the next is the tail's.
    const [tick, head] = (results.find(({ command }) => command === "SELECT")?.rows[0] ?? []).map(Number);
    if (tick === undefined || head === undefined) {
      await assertContinues(lease, shown.newest);
      throw overslept(after);
    }
    onTick(tick);
    const rows = this.#behind ? [] : (results.at(-2)?.rows ?? []);
    this.#behind = head - after > maxRows;
    if (rows.length > 0) return pageFromRows(rows, after + 1);
    return head > after ? await pages.read(lease, after, false) : undefined;
  }

  async #query(lease: Lease, text: string): Promise<readonly pg.QueryArrayResult<(string | null)[]>[]> {
    const results: unknown = await lease.client.query({ text, rowMode: "array", types: this.#types });
    return results as readonly pg.QueryArrayResult<(string | null)[]>[];
  }
}

/** A tick that refuses for want of one that retention has dropped: this process stood still for longer than that keeps. */
function overslept(after: Version): FeedError {
  return new FeedError(
    "HISTORY_LOST",
    `What comes after version ${after}, up to which this process has come, is older than what is kept.`,
    "Open the feed anew; streams then go on from what is kept, or say what they have lost.",
  );
}

/** Rows of `millrace.tail`: whole ticks from a boundary on, of which the last may be cut. */
function pageFromRows(rows: readonly (readonly (string | null)[])[], firstVersion: Version): Page {
  const events: Event[] = [];
  const ticks: Tick[] = [];
  let bytes = 0;
  for (const row of rows) {
    const [tickRow, xid, topic, key, operation, before, after, headers, occurredAt] = row;
    if (tickRow != null) ticks.push(tickFromText(tickRow));
    const event: Event = {
      version: firstVersion + events.length,
      topic: topic ?? "",
      key: key ?? undefined,
      operation: operationFromLetter(operation ?? ""),
      before: imageFromText(before),
      after: imageFromText(after),
      transaction: xid ?? "",
      occurredAtMicros: Number(occurredAt),
      headers: imageFromText(headers),
    };
    events.push(event);
    bytes += eventBytes(event);
  }
  return { firstVersion, events, ticks, bytes };
}

function imageFromText(text: string | null | undefined): Uint8Array | undefined {
  return text == null ? undefined : Buffer.from(text, "utf8");
}
