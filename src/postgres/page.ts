import type pg from "pg";
import { FeedError } from "../core/errors.ts";
import type { Version } from "../core/event.ts";
import { type Page, tickEnd } from "../core/page.ts";
import { readRows } from "./history.ts";
import { type Lease, withLease } from "./lease.ts";
import { PageBuilder } from "./page-builder.ts";
import { type PagePlan, planPage, seqRange, type TickText } from "./page-plan.ts";
import { readBounds } from "./statements/find-ticks.ts";
import { copyBatch, seqAt } from "./statements/read-batch.ts";
import { beginPage } from "./statements/read-ticks.ts";

/** Reads a page as `PageReader.read` does, on as many connections as it takes, one after the other. */
export async function readPage(
  pool: pg.Pool,
  signal: AbortSignal,
  read: (lease: Lease, alone: boolean) => Promise<Page | undefined | "nothing">,
): Promise<Page | undefined> {
  const page = await withLease(pool, signal, (lease) => read(lease, false));
  if (page !== "nothing") return page;
  const alone = await withLease(pool, signal, (lease) => read(lease, true));
  if (alone === "nothing") throw new FeedError("INTERNAL", "A tick that was read alone gave no row.", "Report this.");
  return alone;
}

/** Bounds of one page. */
export interface PageLimits {
  /** Default 20,000: some 20 ms of one statement, so that no snapshot is held long. */
  readonly maxRows: number;
  /** By `eventBytes`; a page ends with the event that reaches it. Default 16 MiB. */
  readonly maxBytes: number;
}

/** What a page holds unless told otherwise. */
export const defaultPageLimits: PageLimits = { maxRows: 20_000, maxBytes: 16 * 1024 * 1024 };

const maxTicks = 1000;
const rememberedPlaces = 1000;

/**
 * Reads pages of one epoch, each in a transaction of its own: the ticks first, then their rows.
 *
 * Rows are asked for by count, and may be 100 bytes or 100 megabytes each. So the count follows the size of those seen
 * last, and a page that grows beyond its bytes nevertheless is cut, at the price of the connection.
 */
export class PageReader {
  readonly #epoch: string;
  readonly #limits: PageLimits;
  /** The last seq of a page that ended within a tick, by the version it ended with: where the next page goes on. */
  readonly #places = new Map<Version, number>();
  #eventBytes = 4096;

  constructor(epoch: string, limits: PageLimits) {
    this.#epoch = epoch;
    this.#limits = limits;
  }

  /**
   * The versions after `after`; `undefined` when it is the head or beyond. `"nothing"` when the page was cut before the first
   * tick had a row, because the rows of later ones came first: to be read `alone`, on another connection.
   *
   * @param alone The first tick and no other: at least one row of it comes then.
   * @throws FeedError HISTORY_LOST when `after + 1` is not kept any more. What the driver throws.
   */
  async read(lease: Lease, after: Version, alone: boolean): Promise<Page | undefined | "nothing"> {
    const rows = await ticksOf(lease.client, beginPage(this.#epoch, after + 1, maxTicks));
    const maxRows = Math.max(
      1,
      Math.min(this.#limits.maxRows, Math.floor(this.#limits.maxBytes / 2 / this.#eventBytes)),
    );
    const outcome = planPage(rows, after + 1, maxRows, alone);
    if (outcome.kind !== "page") {
      const bounds = await lease.rows<{ readonly head: string; readonly oldest: string }>(readBounds, [this.#epoch]);
      await lease.run("commit");
      return this.#nothing(after, Number(bounds[0]?.head), Number(bounds[0]?.oldest));
    }
    const { plan } = outcome;
    const { max, min } = seqRange(plan.batches);
    const afterSeq = plan.skip === plan.dropped ? min - 1 : await this.#placeOf(lease, plan, after);
    // Where a tick ends, one more than there should be, so that there being more is noticed.
    const endsTick = plan.batches.length > 1 || plan.skip + plan.rows === lastOf(plan).tick.count;
    const limit = plan.dropped + plan.rows + (endsTick ? 1 : 0);
    const batch = {
      earlier: plan.earlier,
      later: lastOf(plan).snapshot,
      afterSeq,
      maxSeq: max,
      limit,
      sparse: plan.sparse,
      seam: plan.seam,
    };
    const builder = new PageBuilder(plan);
    let complete = false;
    try {
      complete = await readRows(lease.client, copyBatch(batch), builder, this.#limits.maxBytes);
    } finally {
      // Also when the builder refuses a row: the copy still comes, and no answer to anything else would.
      if (!complete) lease.destroy();
    }
    const page = builder.build(!complete);
    this.#learn(plan, page, builder);
    return page ?? "nothing";
  }

  #nothing(after: Version, head: Version, oldest: Version): undefined {
    if (after + 1 >= oldest) return undefined;
    throw new FeedError(
      "HISTORY_LOST",
      `Version ${after + 1} is no longer kept; the oldest is ${oldest}.`,
      "Start again from a snapshot, or from the oldest version and accept the gap.",
      { epoch: this.#epoch, oldestVersion: oldest, headVersion: head },
    );
  }

  /** The seq of the last row before the page. */
  async #placeOf(lease: Lease, plan: PagePlan, after: Version): Promise<number> {
    const known = this.#places.get(after);
    if (known !== undefined) return known;
    const { tick, snapshot, minSeq, maxSeq } = lastOf(plan);
    // As many rows as seqs: every seq of the range is one of this batch.
    if (maxSeq - minSeq + 1 === tick.count) return minSeq + plan.skip - 1;
    const range = { earlier: plan.earlier, later: snapshot, afterSeq: minSeq - 1, maxSeq, seam: plan.seam };
    const [row] = await lease.rows<{ readonly seq: string }>(seqAt(range, plan.skip));
    // Nothing there: then nothing follows either, and the builder says so.
    return row === undefined ? maxSeq : Number(row.seq);
  }

  #learn(plan: PagePlan, page: Page | undefined, builder: PageBuilder): void {
    if (builder.rows > 0) {
      const seen = builder.bytes / builder.rows;
      // Larger ones count at once, smaller ones little by little: too many small pages are harmless.
      this.#eventBytes = seen > this.#eventBytes ? seen : this.#eventBytes + (seen - this.#eventBytes) / 2;
    }
    if (page === undefined || plan.batches.length > 1) return;
    const end = page.firstVersion + page.events.length - 1;
    if (end === tickEnd(lastOf(plan).tick)) return;
    this.#places.set(end, builder.lastSeq);
    for (const oldest of this.#places.keys()) {
      if (this.#places.size <= rememberedPlaces) break;
      this.#places.delete(oldest);
    }
  }
}

function lastOf(plan: PagePlan) {
  const last = plan.batches.at(-1);
  if (last === undefined) throw new FeedError("INTERNAL", "A page was planned without a tick.", "Report this.");
  return last;
}

/** The result of the last statement of the message. */
async function ticksOf(client: pg.ClientBase, sql: string): Promise<readonly TickText[]> {
  const results: unknown = await client.query(sql);
  const last: unknown = Array.isArray(results) ? results.at(-1) : results;
  return (last as pg.QueryResult<TickText>).rows;
}
