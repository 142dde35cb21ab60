import type pg from "pg";
import { createClient, leaveClient } from "./database.ts";
import { listenerState } from "./watch/statements.ts";
import type { WatchedSessions } from "./watch/watched-sessions.ts";

/** What the listener hears with, and whom it tells. Each callback is synchronous. */
export interface ListenerOptions {
  /** Must lead to Postgres itself: a transaction-mode pooler hands the session, with its LISTEN, to somebody else. */
  readonly url: string;
  readonly onTick: (tick: number) => void;
  readonly onWake: () => void;
  /** There is a letter for this replica. */
  readonly onMail: (replica: string) => void;
  /** Something became of this subscription. */
  readonly onSubscription: (id: string) => void;
  /** LISTEN is in force (again): whatever came before was not heard. */
  readonly onListening: () => void;
  /** Told when it does not answer. Default: nobody is. */
  readonly watch?: WatchedSessions | undefined;
  /** How often it is asked whether it still is what it should be, in milliseconds. Default 10,000. */
  readonly pingMs?: number | undefined;
}

const channels = ["millrace_tick", "millrace_wake", "millrace_mail", "millrace_subscription"];
const firstRetryMs = 100;
const longestRetryMs = 5000;
const usualPingMs = 10_000;
/** An answer that takes longer does not come; at most half a ping, so that the two do not overlap. */
const longestAnswerMs = 5000;

const tryLock = "select pg_try_advisory_lock('millrace.outbox'::regclass::oid::int, 1) as held";
const unlock = "select pg_advisory_unlock('millrace.outbox'::regclass::oid::int, 1)";

/**
 * A session that listens, and that holds the waiter's lock while this process sleeps.
 *
 * It comes back by itself when it is lost, for good measure with a back-off; in the meantime nothing is heard, which the
 * wake-up's polling makes good. A session that a pooler stands in front of is closed again and never tried anew.
 */
export class Listener {
  readonly #options: ListenerOptions;
  readonly #pingMs: number;
  readonly #answerMs: number;
  #client: pg.Client | undefined;
  #retry: NodeJS.Timeout | undefined;
  #ping: NodeJS.Timeout | undefined;
  #retryMs = firstRetryMs;
  #stopped = false;
  #pooled = false;
  #holds = false;

  constructor(options: ListenerOptions) {
    this.#options = options;
    this.#pingMs = options.pingMs ?? usualPingMs;
    this.#answerMs = Math.min(longestAnswerMs, this.#pingMs / 2);
  }

  /** LISTEN is in force. */
  get listening(): boolean {
    return this.#client !== undefined;
  }

  /** A pooler is in the way: there will be no listening. */
  get pooled(): boolean {
    return this.#pooled;
  }

  /** This session holds the waiter's lock: writers nudge. */
  get holdsLock(): boolean {
    return this.#holds;
  }

  /** Resolves when it listens, or has failed to for the first time. */
  async start(): Promise<void> {
    await this.#connect();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#retry);
    clearInterval(this.#ping);
    const client = this.#client;
    this.#client = undefined;
    this.#holds = false;
    if (client !== undefined) await leaveClient(client);
  }

  /** Tries to become the waiter. False when another process is, or a writer is at work, or nothing listens. */
  async acquire(): Promise<boolean> {
    const client = this.#client;
    if (client === undefined || this.#holds) return this.#holds;
    const result = await this.#ask<{ readonly held: boolean }>(client, tryLock);
    // A session that broke meanwhile has lost the lock with it.
    this.#holds = result?.rows[0]?.held === true && this.#client === client;
    return this.#holds;
  }

  /** Gives the lock up; nobody need wait for that. */
  release(): void {
    if (!this.#holds) return;
    this.#holds = false;
    if (this.#client !== undefined) void this.#ask(this.#client, unlock);
  }

  async #connect(): Promise<void> {
    const { url, watch } = this.#options;
    const client = createClient({ url, watch });
    client.on("error", () => this.#lost(client));
    client.on("end", () => this.#lost(client));
    client.on("notification", ({ channel, payload }) => {
      if (channel === "millrace_tick") this.#options.onTick(Number(payload));
      else if (channel === "millrace_mail") this.#options.onMail(payload ?? "");
      else if (channel === "millrace_subscription") this.#options.onSubscription(payload ?? "");
      else this.#options.onWake();
    });
    try {
      await client.connect();
      await this.#listen(client);
    } catch {
      void leaveClient(client);
      this.#again();
      return;
    }
    if (this.#pooled || this.#stopped) {
      await leaveClient(client);
      return;
    }
    this.#client = client;
    this.#retryMs = firstRetryMs;
    watch?.works();
    this.#ping = setInterval(() => void this.#assertListens(client), this.#pingMs);
    this.#options.onListening();
  }

  /** Rejects when the session does not answer in time: whoever opens a feed waits for this. */
  async #listen(client: pg.Client): Promise<void> {
    const timer = setTimeout(() => {
      this.#options.watch?.gaveUp(client, { silentMs: this.#answerMs });
      client.connection.stream.destroy();
    }, this.#answerMs);
    try {
      const { rows } = await client.query<{ readonly pid: number }>("select pg_backend_pid() as pid");
      // A pooler answers the connection's start with a number of its own.
      this.#pooled = rows[0]?.pid !== Reflect.get(client, "processID");
      if (!this.#pooled) await client.query(channels.map((channel) => `listen ${channel}`).join("; "));
    } finally {
      clearTimeout(timer);
    }
  }

  /** A session that does not answer in time is given up: `undefined`. */
  async #ask<R extends pg.QueryResultRow>(client: pg.Client, sql: string): Promise<pg.QueryResult<R> | undefined> {
    const timer = setTimeout(() => this.#silent(client), this.#answerMs);
    try {
      return await client.query<R>(sql);
    } catch {
      this.#lost(client);
      return undefined;
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * A session may live, and not listen any more, or not have the lock that this process believes to have: a pooler reset it,
   * or put another one underneath.
   */
  async #assertListens(client: pg.Client): Promise<void> {
    const held = this.#holds;
    const state = await this.#ask<{ readonly listens: boolean; readonly holds: boolean }>(client, listenerState);
    const [row] = state?.rows ?? [];
    if (row === undefined || (row.listens && (row.holds || !held || !this.#holds))) return;
    if (this.#client !== client) return;
    const evidence = row.listens ? "it does not have the waiter's lock" : "it does not listen";
    this.#options.watch?.gaveUp(client, { silentMs: this.#pingMs, evidence });
    this.#lost(client);
  }

  #silent(client: pg.Client): void {
    if (this.#client !== client) return;
    this.#options.watch?.gaveUp(client, { silentMs: this.#answerMs });
    this.#lost(client);
    client.connection.stream.destroy();
  }

  #lost(client: pg.Client): void {
    if (this.#client !== client) return;
    this.#client = undefined;
    this.#holds = false;
    clearInterval(this.#ping);
    void leaveClient(client);
    this.#again();
  }

  #again(): void {
    if (this.#stopped) return;
    this.#retry = setTimeout(() => void this.#connect(), this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, longestRetryMs);
  }
}
