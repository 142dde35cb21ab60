import type { Version } from "../event.ts";
import type { Page } from "../page.ts";

/** Who asks for pages. Only its identity counts: a stream. */
export type Reader = object;

/** One call that waits for the page which holds version `after + 1`. */
export class PageRequest {
  readonly reader: Reader;
  readonly after: Version;
  /** A read is under way that should bring what it wants. */
  riding = false;
  /** Pages that should have held what it wants, and did not. */
  misses = 0;
  #open = true;
  readonly #signal: AbortSignal;
  readonly #onAbort: () => void;
  readonly #resolve: (page: Page | undefined) => void;
  readonly #reject: (reason: unknown) => void;
  readonly answer: Promise<Page | undefined>;

  /** `onAbort` is called when the signal fires before there is an answer; by then the call has been rejected. */
  constructor(reader: Reader, after: Version, signal: AbortSignal, onAbort: (request: PageRequest) => void) {
    this.reader = reader;
    this.after = after;
    const { promise, resolve, reject } = Promise.withResolvers<Page | undefined>();
    this.answer = promise;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#signal = signal;
    this.#onAbort = () => {
      this.reject(signal.reason);
      onAbort(this);
    };
    signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** Nobody has said yet what its answer will be. */
  get open(): boolean {
    return this.#open;
  }

  /** The answer is decided, and about to come. */
  decide(): void {
    this.#open = false;
  }

  resolve(page: Page | undefined): void {
    this.#settle();
    this.#resolve(page);
  }

  reject(reason: unknown): void {
    this.#settle();
    this.#reject(reason);
  }

  #settle(): void {
    this.#open = false;
    this.#signal.removeEventListener("abort", this.#onAbort);
  }
}

/**
 * Requests that wait, in turns of their readers: a reader that has had its turn stands behind all others, however many more
 * requests it has. So nobody waits for more than one turn of each of the others.
 */
export class ReadQueue {
  /** In the order of their turns; none is empty. */
  readonly #requests = new Map<Reader, PageRequest[]>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  *[Symbol.iterator](): Iterator<PageRequest> {
    for (const requests of this.#requests.values()) {
      yield* requests;
    }
  }

  add(request: PageRequest): void {
    const requests = this.#requests.get(request.reader);
    if (requests === undefined) {
      this.#requests.set(request.reader, [request]);
    } else {
      requests.push(request);
    }
    this.#size += 1;
  }

  /** The requests of a reader that are left keep its place. */
  delete(request: PageRequest): void {
    const requests = this.#requests.get(request.reader) ?? [];
    const at = requests.indexOf(request);
    if (at === -1) {
      return;
    }
    requests.splice(at, 1);
    this.#size -= 1;
    if (requests.length === 0) {
      this.#requests.delete(request.reader);
    }
  }

  /** Takes out the first request, in turn, of these; its reader then stands behind all others. */
  next(wanted: (request: PageRequest) => boolean): PageRequest | undefined {
    for (const [reader, requests] of this.#requests) {
      const request = requests.find(wanted);
      if (request !== undefined) {
        this.delete(request);
        if (this.#requests.delete(reader) && requests.length > 0) {
          this.#requests.set(reader, requests);
        }
        return request;
      }
    }
    return undefined;
  }

  /** Takes out all of these. */
  take(wanted: (request: PageRequest) => boolean): PageRequest[] {
    const taken = [...this].filter(wanted);
    for (const request of taken) {
      this.delete(request);
    }
    return taken;
  }
}
