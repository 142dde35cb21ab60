import type pg from "pg";
import type { FeedError } from "../../core/errors.ts";
import type { Incident, Verdict, WatchedPart, Work } from "../../core/watchdog/watched-part.ts";
import type { Inquiries } from "./inquiries.ts";

interface Usual {
  readonly what: string;
  readonly allowedMs: number;
}

/** The connections of one part. */
export class WatchedSessions {
  readonly applicationName: string;
  readonly #part: WatchedPart;
  readonly #usual: Usual;
  readonly #inquiries: Inquiries;

  constructor(part: WatchedPart, usual: Usual, applicationName: string, inquiries: Inquiries) {
    this.#part = part;
    this.#usual = usual;
    this.applicationName = applicationName;
    this.#inquiries = inquiries;
  }

  /** From now until its end somebody waits for this connection, whenever a statement is under way. */
  begin(client: pg.Client, breakOff: (reason: FeedError) => void): Work {
    const pid = pidOf(client);
    return this.#part.begin({
      ...this.#usual,
      where: pid === undefined ? undefined : `pid ${pid}`,
      signs: () => signsOf(client),
      inquire: () => this.#inquire(pid),
      breakOff: (reason) => {
        breakOff(reason);
        // Even to say goodbye would be to wait for an answer.
        client.connection.stream.destroy();
        this.#end(pid);
      },
    });
  }

  /** Whoever watches it himself has given it up. */
  gaveUp(client: pg.Client, incident: Omit<Incident, "where" | "what">): void {
    const pid = pidOf(client);
    this.#part.brokenOff({ what: this.#usual.what, where: pid === undefined ? undefined : `pid ${pid}`, ...incident });
    this.#end(pid);
  }

  /** It is answered. */
  works(): void {
    this.#part.works();
  }

  #inquire(pid: number | undefined): Promise<Verdict> {
    return pid === undefined
      ? Promise.resolve({ kind: "unknown" })
      : this.#inquiries.stateOf(pid, this.applicationName);
  }

  #end(pid: number | undefined): void {
    if (pid !== undefined) void this.#inquiries.end(pid, this.applicationName);
  }
}

function pidOf(client: pg.Client): number | undefined {
  const pid: unknown = Reflect.get(client, "processID");
  return typeof pid === "number" ? pid : undefined;
}

/** `undefined` while it is not the server that is waited for: no statement is under way, or this side does not read. */
function signsOf(client: pg.Client): number | undefined {
  const { stream } = client.connection;
  // A copy reads a paused socket, whenever it is readable.
  const unread = stream.readableLength > 0 || (stream.isPaused() && stream.listenerCount("readable") === 0);
  return Reflect.get(client, "readyForQuery") === true || unread ? undefined : Number(Reflect.get(stream, "bytesRead"));
}

const watchedPools = new WeakMap<pg.Pool, WatchedSessions>();

/** The pool's leases are watched from now on. */
export function watchPool(pool: pg.Pool, sessions: WatchedSessions): void {
  watchedPools.set(pool, sessions);
}

/** `undefined` for a pool that nobody watches. */
export function watchOf(pool: pg.Pool): WatchedSessions | undefined {
  return watchedPools.get(pool);
}
