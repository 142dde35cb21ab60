import { FeedError } from "../errors.ts";
import type { Clock } from "../ports.ts";

/** Something that can get stuck. */
export interface PartOptions {
  /** One word, for metrics: `tail`. */
  readonly name: string;
  /** Stable name of the problem, for programs: `TAIL_STUCK`. */
  readonly code: string;
  /** Begins sentences: `The tail`. */
  readonly noun: string;
  /** Told each time that so many break-offs in a row have not helped. Default: it is broken off again and again. */
  readonly onHopeless?: ((reason: FeedError) => void) | undefined;
}

/** What somebody else knows of a piece of work: it goes on, it can have no end, or nobody knows. */
export type Verdict =
  | { readonly kind: "working" }
  | { readonly kind: "lost"; readonly evidence: string }
  | { readonly kind: "unknown" };

/** A piece of work that begins. */
export interface WorkOptions {
  /** Completes "it waits to …": `settle what has committed`. */
  readonly what: string;
  /** Milliseconds for which it may be silent by right, as statements are that run into a timeout after so long. */
  readonly allowedMs: number;
  /** A number that is another one after each sign of life; `undefined` while it waits for nobody. Default: no signs. */
  readonly signs?: (() => number | undefined) | undefined;
  /** Asked once it has been silent for as long as the watchdog is patient. Default: nobody knows. */
  readonly inquire?: (() => Promise<Verdict>) | undefined;
  /** Has it fail, at once. */
  readonly breakOff: (reason: FeedError) => void;
  /** Where it is at, for people: `pid 4711`. */
  readonly where?: string | undefined;
}

/** A piece of work under way. */
export interface Work {
  /** From now on it may be silent for so long. */
  allow(ms: number): void;
  /** `done`: the part works. `failed` says nothing of that. */
  end(outcome: "done" | "failed"): void;
}

/** What is stuck, or was lately, and what was done about it. */
export interface StuckPart {
  readonly code: string;
  readonly message: string;
  readonly action: string;
}

/** What a part has of its watchdog. */
export interface PartContext {
  readonly clock: Pick<Clock, "monotonic">;
  readonly patienceMs: number;
  readonly hopelessAfter: number;
  readonly report: (message: string, error?: FeedError) => void;
  readonly onRestart: (part: string, what: StuckPart) => void;
}

/** One piece of work that was broken off. */
export interface Incident {
  readonly what: string;
  readonly where?: string | undefined;
  readonly silentMs: number;
  readonly evidence?: string | undefined;
}

interface Stuck extends Incident {
  readonly atMs: number;
  /** Break-offs in a row. */
  readonly times: number;
}

/** A part under a watchdog: its work under way, and what became of it when it stood still. */
export class WatchedPart {
  readonly #options: PartOptions;
  readonly #context: PartContext;
  readonly #works = new Set<WatchedWork>();
  #stuck: Stuck | undefined;
  /** It has worked since. */
  #solved = false;
  #worked = false;

  constructor(options: PartOptions, context: PartContext) {
    this.#options = options;
    this.#context = context;
  }

  /** `undefined` while all is well, or nobody has needed it for a while. */
  get problem(): StuckPart | undefined {
    return this.#stuck === undefined ? undefined : this.#tell(this.#stuck);
  }

  /** Work is under way. */
  get busy(): boolean {
    return this.#works.size > 0;
  }

  /** It has done something, ever. */
  get worked(): boolean {
    return this.#worked;
  }

  begin(options: WorkOptions): Work {
    const work = new WatchedWork(options, (ended, outcome) => {
      if (this.#works.delete(ended) && outcome === "done") this.works();
    });
    this.#works.add(work);
    return work;
  }

  /** Another who watches it has broken it off. */
  brokenOff(incident: Incident): void {
    const { name, noun, onHopeless } = this.#options;
    const { clock, report, hopelessAfter, onRestart } = this.#context;
    const times = (this.#solved ? 0 : (this.#stuck?.times ?? 0)) + 1;
    this.#solved = false;
    this.#stuck = { ...incident, atMs: clock.monotonic(), times };
    const reason = this.#reason(this.#stuck);
    onRestart(name, this.#tell(this.#stuck));
    report(`${noun} is stuck and is restarted.`, reason);
    if (times % hopelessAfter === 0) onHopeless?.(reason);
  }

  /** It does what it is there for. */
  works(): void {
    this.#worked = true;
    if (this.#stuck === undefined || this.#solved) return;
    this.#solved = true;
    this.#context.report(`${this.#options.noun} works again.`);
  }

  /** `passedMs` more without a sign of life, unless there is one. What is solved is told of for `toldMs`. */
  look(passedMs: number, toldMs: number): void {
    const { clock, patienceMs } = this.#context;
    for (const work of [...this.#works]) {
      work.look(passedMs, patienceMs, (evidence) => {
        const { what, where } = work.options;
        const incident = { what, where, silentMs: work.silentMs, evidence };
        this.brokenOff(incident);
        work.breakOff(this.#stuck === undefined ? undefined : this.#reason(this.#stuck), patienceMs);
      });
    }
    const stuck = this.#stuck;
    const waiting = [...this.#works].some(({ broken }) => broken);
    if (stuck === undefined || waiting) return;
    // Where nobody needs the part any more, nobody can say that it works again.
    if (this.#solved || clock.monotonic() - stuck.atMs > toldMs) this.#stuck = undefined;
  }

  #reason(stuck: Stuck): FeedError {
    const { message, action } = this.#tell(stuck);
    return new FeedError("DATABASE_UNAVAILABLE", message, action, { retryAfterMs: 1_000 });
  }

  #tell({ what, where, silentMs, evidence, atMs, times }: Stuck): StuckPart {
    const { code, noun } = this.#options;
    const agoMs = this.#context.clock.monotonic() - atMs;
    const seen = evidence === undefined ? "" : `; ${evidence}`;
    const since = agoMs < 1_000 ? "" : ` ${seconds(agoMs)} ago`;
    const often = times === 1 ? "" : `, for the ${times}. time in a row`;
    return {
      code,
      message:
        `${noun} waited ${seconds(silentMs)} to ${what}${where === undefined ? "" : ` (${where})`} without a sign of life` +
        `${seen}. It was broken off${since}${often}, and is tried again.`,
      action: this.#solved
        ? "Nothing: it works again."
        : "Nothing, if it helps. If it comes again, look at the network to Postgres and at that session.",
    };
  }
}

class WatchedWork implements Work {
  readonly options: WorkOptions;
  readonly #ended: (work: WatchedWork, outcome: "done" | "failed") => void;
  #allowedMs: number;
  #seen: number | undefined;
  #silentMs = 0;
  #inquiring = false;
  #askAgainMs = 0;
  #over = false;
  #broken = false;

  constructor(options: WorkOptions, ended: (work: WatchedWork, outcome: "done" | "failed") => void) {
    this.options = options;
    this.#ended = ended;
    this.#allowedMs = options.allowedMs;
    this.#seen = options.signs?.();
  }

  get silentMs(): number {
    return this.#silentMs;
  }

  /** It was broken off and has not ended. */
  get broken(): boolean {
    return this.#broken && !this.#over;
  }

  allow(ms: number): void {
    this.#allowedMs = ms;
  }

  end(outcome: "done" | "failed"): void {
    if (this.#over) return;
    this.#over = true;
    this.#ended(this, outcome);
  }

  breakOff(reason: FeedError | undefined, patienceMs: number): void {
    this.#broken = true;
    // Should this not end it, it is tried again as soon as patience is over once more.
    this.#silentMs = 0;
    this.#allowedMs = 0;
    this.#askAgainMs = patienceMs;
    if (reason !== undefined) this.options.breakOff(reason);
  }

  look(passedMs: number, patienceMs: number, stuck: (evidence: string | undefined) => void): void {
    if (this.#gaveSign()) return;
    this.#silentMs += passedMs;
    if (this.#silentMs >= this.#allowedMs + patienceMs) stuck(undefined);
    else if (this.#silentMs >= Math.max(patienceMs, this.#askAgainMs)) this.#inquire(patienceMs, stuck);
  }

  #gaveSign(): boolean {
    const { signs } = this.options;
    if (signs === undefined) return false;
    const seen = signs();
    if (seen !== undefined && seen === this.#seen) return false;
    this.#seen = seen;
    this.#silentMs = 0;
    this.#askAgainMs = 0;
    return true;
  }

  #inquire(patienceMs: number, stuck: (evidence: string) => void): void {
    const { inquire } = this.options;
    if (inquire === undefined || this.#inquiring) return;
    this.#inquiring = true;
    this.#askAgainMs = this.#silentMs + patienceMs;
    inquire().then(
      (verdict) => {
        this.#inquiring = false;
        // It may have given a sign, or have ended, while somebody else was asked.
        if (verdict.kind === "lost" && !this.#over && !this.#gaveSign()) stuck(verdict.evidence);
      },
      () => {
        this.#inquiring = false;
      },
    );
  }
}

/** `12.3 s`. */
export function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(ms < 100_000 ? 1 : 0)} s`;
}
