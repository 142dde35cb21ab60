import { randomBytes } from "node:crypto";
import { systemClock, systemTimers } from "../../core/clock.ts";
import type { FeedError } from "../../core/errors.ts";
import { Watchdog } from "../../core/watchdog/watchdog.ts";
import type { Incident, StuckPart, WatchedPart } from "../../core/watchdog/watched-part.ts";
import { Inquiries } from "./inquiries.ts";
import { WatchedSessions } from "./watched-sessions.ts";

/** Parts of Millrace that have connections of their own. The names are in application_name, metrics and logs. */
export const parts = {
  tail: {
    code: "TAIL_STUCK",
    noun: "The tail",
    what: "settle and read what has committed",
    // A tick says itself how long it may take.
    allowedMs: 30_000,
  },
  waiter: { code: "WAITER_STUCK", noun: "The connection that listens", what: "be answered", allowedMs: 0 },
  history: {
    code: "READER_STUCK",
    noun: "A reader of history",
    what: "read a page",
    // statement_timeout of a page.
    allowedMs: 60_000,
  },
  service: {
    code: "SERVICE_STUCK",
    noun: "A call to the database",
    what: "be answered",
    // The longest statement of publish, and a disk that is busy.
    allowedMs: 120_000,
  },
  snapshot: { code: "SNAPSHOT_STUCK", noun: "A snapshot", what: "copy tables", allowedMs: 30_000 },
  retention: { code: "RETENTION_STUCK", noun: "The keeper of the outbox", what: "keep it in order", allowedMs: 30_000 },
  polling: { code: "POLLER_STUCK", noun: "The poller", what: "look at a polled table", allowedMs: 30_000 },
  monitor: { code: "MONITOR_STUCK", noun: "The look for problems", what: "be answered", allowedMs: 10_000 },
  opening: {
    code: "OPENING_STUCK",
    noun: "The opening of the feed",
    what: "look at the schema, or migrate it",
    // Migrations have no timeout.
    allowedMs: 3_600_000,
  },
} as const;

/** One of them. */
export type PartName = keyof typeof parts;

/** How the connections of one store, and of what stands around it, are watched. */
export interface SessionWatchOptions {
  readonly url: string;
  /** Default: one of its own, of the machine's time, that tells nobody. */
  readonly watchdog?: Watchdog | undefined;
  /** Milliseconds for which a part's statements may be silent by right, other than is usual. */
  readonly allowedMs?: Partial<Readonly<Record<PartName, number>>> | undefined;
}

/** How the connections of one part are watched. */
export interface PartSessionsOptions {
  /** See `PartOptions.onHopeless`. */
  readonly onHopeless?: ((reason: FeedError) => void) | undefined;
  /** Milliseconds for which its statements may be silent by right. Default: as `parts` has it. */
  readonly allowedMs?: number | undefined;
}

/** Watches connections by part. Stop it last: what it watches may be ending. */
export class SessionWatch {
  readonly watchdog: Watchdog;
  readonly #inquiries: Inquiries;
  /** Tells the sessions of one server from those of another, and of an earlier opening. */
  readonly #id = randomBytes(4).toString("hex");

  readonly #allowedMs: Partial<Readonly<Record<PartName, number>>>;

  constructor({ url, watchdog, allowedMs = {} }: SessionWatchOptions) {
    this.#allowedMs = allowedMs;
    this.watchdog = watchdog ?? new Watchdog({ clock: systemClock, timers: systemTimers });
    this.#inquiries = new Inquiries(url, `millrace watchdog ${this.#id}`, this.watchdog.patienceMs);
  }

  /** Looks from now on. Idempotent. */
  start(): void {
    this.watchdog.start();
  }

  /** For the connections of this part: give it to `createPool` or `createClient`. */
  sessions(name: PartName, { onHopeless, allowedMs: hereMs }: PartSessionsOptions = {}): WatchedSessions {
    const { what, allowedMs: usualMs, ...part } = parts[name];
    const watched = this.watchdog.part({ name, ...part, onHopeless });
    const allowedMs = this.#allowedMs[name] ?? hereMs ?? usualMs;
    return new WatchedSessions(watched, { what, allowedMs }, `millrace ${name} ${this.#id}`, this.#inquiries);
  }

  /** Whether a connection of this part is in use. */
  busy(name: PartName): boolean {
    return this.#part(name).busy;
  }

  /** Whether this part was ever answered. */
  worked(name: PartName): boolean {
    return this.#part(name).worked;
  }

  /** Somebody else has found out that this part is stuck, and restarts it. */
  brokenOff(name: PartName, incident: Pick<Incident, "silentMs" | "evidence">): void {
    this.#part(name).brokenOff({ what: parts[name].what, ...incident });
  }

  /** Keeps in the database, for `why`, that a part was restarted; nobody waits for that. */
  note(part: string, what: StuckPart): void {
    void this.#inquiries.note(this.#id, part, what);
  }

  /** The last version that the database has settled, as another connection sees it. Rejects where it is not answered. */
  head(): Promise<number> {
    return this.#inquiries.head();
  }

  #part(name: PartName): WatchedPart {
    return this.watchdog.part({ name, ...parts[name] });
  }

  /** Whether the database answers on a connection that is none of those that are watched. */
  answers(): Promise<boolean> {
    return this.#inquiries.answers();
  }

  /**
   * Ends a waiter that has been silent for so long, whosesoever it is: as long as it is there, all writers nudge it. Rejects
   * where nobody answers.
   */
  async endSilentWaiter(silentMs: number): Promise<void> {
    const found = await this.#inquiries.silentWaiter(silentMs);
    if (found === undefined) return;
    const { pid, application, forMs, ended } = found;
    const evidence = `"${application}" has the waiter's lock and says nothing${ended ? "" : ", and this role may not end it"}`;
    this.#part("waiter").brokenOff({ what: "be nudged", where: `pid ${pid}`, silentMs: forMs, evidence });
    if (ended) this.#part("waiter").works();
  }

  async stop(): Promise<void> {
    this.watchdog.stop();
    await this.#inquiries.stop();
  }
}
