import { systemClock, systemTimers } from "../clock.ts";
import { FeedError, goingDown } from "../errors.ts";
import type { Version } from "../event.ts";
import { EpochOver } from "../lineage.ts";
import { type Page, pageEnd } from "../page.ts";
import type { Clock, FeedStore, Timers } from "../ports.ts";
import { PageAlignment } from "./page-alignment.ts";
import { PageCache } from "./page-cache.ts";
import { PageRequest, type Reader, ReadQueue } from "./read-queue.ts";

/** After this many pages that were too short for it, a request relies on no other's read. */
const MOST_MISSES = 2;
/** A read that nobody waits for any more may end: its page is likely wanted again, and to cut it costs a connection. */
const ABANDONED_MS = 1_000;
/** Readers that get a page in one turn of the event loop: each goes to work at once, and the tail wants its turns too. */
const ANSWERS_PER_TURN = 32;

/** How history is read. */
export interface HistoryReadersOptions {
  /** Pages that are read at the same time; as many as the store has connections for it. Default 4. */
  readonly maxReads?: number | undefined;
  /** Bytes of pages kept for others after they were read, by `eventBytes`. Default 64 MiB; 0 keeps none. */
  readonly cacheMaxBytes?: number | undefined;
  /** Milliseconds after its last use at which a page is given back. Default 5,000: readers of one range come together. */
  readonly cacheMaxIdleMs?: number | undefined;
  /** Default: the machine's. */
  readonly clock?: Pick<Clock, "monotonic"> | undefined;
  /** Default: the machine's. */
  readonly timers?: Timers | undefined;
}

/** For metrics. The first three only rise. */
export interface HistoryStats {
  /** Pages that the store was asked for. */
  readonly reads: number;
  /** Requests that were answered with a page read for another one. */
  readonly shared: number;
  /** Reads that failed. */
  readonly errors: number;
  /** Reads under way. */
  readonly reading: number;
  /** Requests that wait for their turn, or for the page of another one's. */
  readonly waiting: number;
  readonly cachedPages: number;
  readonly cachedBytes: number;
}

/** One page on its way. */
interface Read {
  readonly start: Version;
  readonly controller: AbortController;
  /** Requests that count on it: the one that it was begun for, and those which stand where its page should be. */
  readonly riders: Set<PageRequest>;
  cancelAbandoned: (() => void) | undefined;
}

/** Reads history for all streams of one store, and so of one epoch. */
export function createHistoryReaders(
  store: Pick<FeedStore, "readAfter">,
  options: HistoryReadersOptions = {},
): HistoryReaders {
  return new HistoryReaders(store, options);
}

/**
 * A bounded number of reads of the table, shared by any number of streams.
 *
 * Streams that fall behind do so together: when a server comes back, ten thousand of them want the same few pages. So a
 * request first looks among the pages that were read a moment ago; then among the reads under way, and rides on the one
 * that should bring what it wants; only then does it wait for a turn to have a page read. Everybody gets the very same
 * page, which nobody changes. Turns go round by reader: see `ReadQueue`. Where reads begin: see `PageAlignment`.
 *
 * A ride is a guess, for nobody knows how far a page will reach. A request that was missed keeps its place in the queue,
 * and after a few misses waits for its own turn, in which it gets its page whatever its neighbours need: so no order of
 * events makes it wait for ever. What goes wrong with a read that began elsewhere than at the request's own place is not
 * told to it, for it may have come by rows that do not concern it. Only when the database is away, or is another one, are
 * all told at once; and what lies below the oldest version that is kept need not be asked for once more.
 *
 * A page may hold versions that retention has dropped since: they are given out nevertheless. What was settled never
 * changes, so that they are what they always were; HISTORY_LOST comes from the table, when no page is at hand.
 */
export class HistoryReaders {
  readonly #store: Pick<FeedStore, "readAfter">;
  readonly #timers: Timers;
  readonly #maxReads: number;
  readonly #queue = new ReadQueue();
  readonly #reads = new Set<Read>();
  readonly #alignment = new PageAlignment();
  readonly #cache: PageCache;
  /** Turns that are being taken: each has one read under way, or is between two. */
  #turns = 0;
  #answers: { readonly request: PageRequest; readonly page: Page | undefined }[] = [];
  #answering = false;
  #stopped: FeedError | undefined;
  readonly #count = { reads: 0, shared: 0, errors: 0 };

  constructor(store: Pick<FeedStore, "readAfter">, options: HistoryReadersOptions) {
    const { maxReads = 4, cacheMaxBytes = 64 * 1024 * 1024, cacheMaxIdleMs = 5_000 } = options;
    const { clock = systemClock, timers = systemTimers } = options;
    this.#store = store;
    this.#timers = timers;
    this.#maxReads = maxReads;
    this.#cache = new PageCache({ maxBytes: cacheMaxBytes, maxIdleMs: cacheMaxIdleMs, clock, timers });
  }

  stats(): HistoryStats {
    const { bytes: cachedBytes, pages: cachedPages } = this.#cache;
    return { ...this.#count, reading: this.#reads.size, waiting: this.#queue.size, cachedPages, cachedBytes };
  }

  /**
   * A page that holds version `after + 1`, not necessarily as its first; `undefined` when `after` is the head. `reader` is
   * whoever takes turns with others. An abort is answered at once and takes the request out wherever it stands.
   *
   * @throws FeedError what `FeedStore.readAfter` rejects with; DRAINING after `stop`.
   */
  readAfter(after: Version, reader: Reader, signal: AbortSignal): Promise<Page | undefined> {
    if (signal.aborted || this.#stopped !== undefined) {
      return Promise.reject(signal.aborted ? signal.reason : this.#stopped);
    }
    const page = this.#cache.holding(after + 1);
    if (page !== undefined) {
      this.#count.shared += 1;
      return Promise.resolve(page);
    }
    const request = new PageRequest(reader, after, signal, (aborted) => this.#leave(aborted));
    if (!this.#rides(request) && this.#turns < this.#maxReads) {
      void this.#turn(request);
    } else {
      this.#queue.add(request);
    }
    return request.answer;
  }

  /** Rejects everything, and gives back what is kept. Idempotent. */
  stop(reason: FeedError = goingDown()): void {
    this.#stopped ??= reason;
    this.#rejectAll(reason);
    for (const read of this.#reads) {
      read.controller.abort(reason);
    }
    this.#cache.clear();
  }

  /** Has a page read for the request, at most twice: from where pages join, and then from where it stands. */
  async #turn(request: PageRequest): Promise<void> {
    this.#turns += 1;
    const start = this.#alignment.startFor(request.after);
    await this.#read(start, request);
    if (request.open && start < request.after) {
      await this.#read(request.after, request);
    }
    if (request.open) {
      request.reject(new FeedError("INTERNAL", "A read of history gave another page.", "Report this as a fault."));
    }
    this.#turns -= 1;
    this.#nextTurns();
  }

  /** Never rejects. */
  async #read(start: Version, leader: PageRequest): Promise<void> {
    const controller = new AbortController();
    const read: Read = { start, controller, riders: new Set(), cancelAbandoned: undefined };
    mount(read, leader);
    this.#reads.add(read);
    this.#count.reads += 1;
    for (const request of this.#queue) {
      // Those that wait for their turn may find it done for them.
      if (!request.riding && this.#mayRide(request, read)) {
        mount(read, request);
      }
    }
    try {
      const page = await this.#store.readAfter(start, controller.signal);
      this.#ended(read);
      if (this.#stopped === undefined) {
        this.#arrived(page, read, leader);
      }
    } catch (error) {
      this.#ended(read);
      if (!controller.signal.aborted) {
        this.#failed(error, read, leader);
      }
    }
    this.#nextTurns();
  }

  /** Counts on a read under way, if one should bring its page. */
  #rides(request: PageRequest): boolean {
    for (const read of this.#reads) {
      if (this.#mayRide(request, read)) {
        mount(read, request);
        return true;
      }
    }
    return false;
  }

  #mayRide({ misses, after }: PageRequest, { start, controller }: Read): boolean {
    return misses < MOST_MISSES && !controller.signal.aborted && this.#alignment.covers(start, after + 1);
  }

  #ended(read: Read): void {
    this.#reads.delete(read);
    read.cancelAbandoned?.();
    for (const request of read.riders) {
      request.riding = false;
    }
  }

  #arrived(page: Page | undefined, read: Read, leader: PageRequest): void {
    if (page === undefined) {
      // The table ends at or before `start`, and so before what any of these want.
      this.#answer([...read.riders], undefined);
      return;
    }
    this.#alignment.saw(page);
    this.#cache.add(page);
    const holds = ({ after }: PageRequest) => page.firstVersion <= after + 1 && after + 1 <= pageEnd(page);
    const sharing = this.#queue.take(holds);
    this.#count.shared += sharing.length;
    this.#answer(leader.open && holds(leader) ? [leader, ...sharing] : sharing, page);
    missed(read);
  }

  #failed(error: unknown, read: Read, leader: PageRequest): void {
    this.#count.errors += 1;
    if (error instanceof EpochOver) {
      this.#cache.clear();
      this.#rejectAll(error);
    } else if (error instanceof FeedError && error.code === "DATABASE_UNAVAILABLE") {
      for (const request of read.riders) {
        this.#queue.delete(request);
        request.reject(error);
      }
    } else {
      if (error instanceof FeedError && error.code === "HISTORY_LOST") {
        this.#lost(error);
      }
      missed(read);
    }
    if (leader.open && (read.start === leader.after || error instanceof EpochOver)) {
      leader.reject(error);
    }
  }

  #lost(error: FeedError): void {
    const { oldestVersion = 0 } = error.detail;
    this.#alignment.lost(oldestVersion);
    for (const request of this.#queue.take(({ after }) => after + 1 < oldestVersion)) {
      const message = `Version ${request.after + 1} is no longer kept; the oldest is ${oldestVersion}.`;
      request.reject(new FeedError("HISTORY_LOST", message, error.action, { ...error.detail, cause: error }));
    }
  }

  #rejectAll(reason: unknown): void {
    const leading = [...this.#reads].flatMap(({ riders }) => [...riders]);
    const decided = this.#answers.splice(0).map(({ request }) => request);
    for (const request of [...this.#queue.take(() => true), ...leading, ...decided]) {
      request.reject(reason);
    }
  }

  /** It has its answer, or its client is gone. */
  #leave(request: PageRequest): void {
    this.#queue.delete(request);
    for (const read of this.#reads) {
      if (read.riders.delete(request) && read.riders.size === 0) {
        read.cancelAbandoned = this.#timers.after(ABANDONED_MS, () => read.controller.abort(abandoned()));
      }
    }
  }

  /** Turns for those that wait, as far as there are any and nobody else reads what they want. */
  #nextTurns(): void {
    while (this.#turns < this.#maxReads && this.#stopped === undefined) {
      const request = this.#queue.next((waiting) => !waiting.riding && !this.#rides(waiting));
      if (request === undefined) {
        return;
      }
      void this.#turn(request);
    }
  }

  #answer(requests: readonly PageRequest[], page: Page | undefined): void {
    for (const request of requests) {
      this.#leave(request);
      if (request.open) {
        request.decide();
        this.#answers.push({ request, page });
      }
    }
    if (!this.#answering) {
      void this.#answerAll();
    }
  }

  /** Not all at once: what a stream does with its page it does in this turn of the event loop. */
  async #answerAll(): Promise<void> {
    this.#answering = true;
    while (this.#answers.length > 0) {
      for (const { request, page } of this.#answers.splice(0, ANSWERS_PER_TURN)) {
        request.resolve(page);
      }
      if (this.#answers.length > 0) {
        await this.#timers.turn();
      }
    }
    this.#answering = false;
  }
}

function mount(read: Read, request: PageRequest): void {
  request.riding = true;
  read.riders.add(request);
  read.cancelAbandoned?.();
  read.cancelAbandoned = undefined;
}

function missed(read: Read): void {
  for (const request of read.riders) {
    request.misses += 1;
  }
}

function abandoned(): FeedError {
  return new FeedError("INTERNAL", "Nobody waits for this page of history any more.", "Nothing is to be done.");
}
