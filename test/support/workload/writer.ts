import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import type { Attempt, ChangeLog } from "./change-log.ts";
import { RowChanges } from "./changes.ts";
import type { Random } from "./random.ts";
import { begin, fill, type Habits, prove } from "./transactions.ts";

/** Rollbacks that concurrency brings about by itself. */
const expected = new Set(["40001", "40P01", "55P03", "23505"]);

/** One writer with a connection of its own: transaction after transaction until told to stop, through database restarts. */
export class Writer {
  readonly #url: string;
  readonly #id: number;
  readonly #log: ChangeLog;
  readonly #random: Random;
  readonly #habits: Habits;
  readonly #stopping: AbortSignal;
  #number = 0;
  readonly #changes: RowChanges;
  #client: pg.Client | undefined;

  constructor(url: string, id: number, log: ChangeLog, random: Random, habits: Habits, stopping: AbortSignal) {
    this.#url = url;
    this.#id = id;
    this.#log = log;
    this.#random = random;
    this.#habits = habits;
    this.#stopping = stopping;
    this.#changes = new RowChanges(id);
  }

  async run(): Promise<void> {
    while (!this.#stopping.aborted) {
      const client = this.#client ?? (await this.#connect());
      if (client === undefined) continue;
      await this.#attempt(client);
    }
    await this.#client?.end().catch(() => {});
  }

  /** One transaction, whatever comes of it. */
  async #attempt(client: pg.Client): Promise<void> {
    this.#number += 1;
    const attempt = this.#log.begin(this.#id, this.#number);
    try {
      await this.#transact(client, attempt);
    } catch (error) {
      await this.#fail(client, attempt, error);
    }
  }

  async #transact(client: pg.Client, attempt: Attempt): Promise<void> {
    const changes = this.#changes.on(client);
    await begin(client, attempt, this.#random, this.#habits);
    await fill(client, attempt, changes, this.#random, this.#habits);
    const dice = this.#random.next();
    if (dice < 0.15) {
      await client.query("rollback");
      attempt.outcome = "rolled-back";
    } else if (this.#habits.twoPhase && dice < 0.3) {
      await this.#commitInTwoPhases(client, attempt, changes);
    } else {
      await client.query("commit");
      this.#log.acknowledge(attempt);
    }
  }

  /** Now and then with another transaction of the same session between the phases; it takes no locks of the first. */
  async #commitInTwoPhases(client: pg.Client, attempt: Attempt, changes: RowChanges): Promise<void> {
    attempt.prepared = true;
    const gid = gidOf(attempt);
    await client.query(`prepare transaction '${gid}'`);
    if (this.#random.chance(0.5)) {
      this.#number += 1;
      const between = this.#log.begin(this.#id, this.#number);
      await client.query("begin");
      between.changes.push(...(await changes.emit(10)));
      await prove(client, between);
      await client.query("commit");
      this.#log.acknowledge(between);
    }
    if (this.#random.chance(0.3)) {
      await client.query(`rollback prepared '${gid}'`);
      attempt.outcome = "rolled-back";
    } else {
      await client.query(`commit prepared '${gid}'`);
      this.#log.acknowledge(attempt);
    }
  }

  async #fail(client: pg.Client, attempt: Attempt, error: unknown): Promise<void> {
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    const alive = error instanceof pg.DatabaseError && !/^(57P0|08)/.test(code);
    if (alive && !attempt.prepared) attempt.outcome = "rolled-back";
    if (alive && !expected.has(code)) this.#log.failures.push(`writer ${this.#id}: ${code} ${error.message}`);
    if (!alive) return this.#drop(client);
    try {
      await client.query("rollback");
      if (attempt.prepared) await this.#commitPrepared(client);
    } catch {
      await this.#drop(client);
    }
  }

  /** What an attempt left prepared would hold its locks for ever. Its outcome stays unknown here: `truth` tells. */
  async #commitPrepared(client: pg.Client): Promise<void> {
    const { rows } = await client.query<{ gid: string }>(
      "select gid from pg_prepared_xacts where database = current_database() and gid like $1",
      [`w${this.#id}.%`],
    );
    for (const { gid } of rows) await client.query(`commit prepared '${gid}'`);
  }

  async #drop(client: pg.Client): Promise<void> {
    this.#client = undefined;
    await client.end().catch(() => {});
  }

  /** `undefined` while the database is away. */
  async #connect(): Promise<pg.Client | undefined> {
    const client = new pg.Client({ connectionString: this.#url, connectionTimeoutMillis: 5000 });
    // A connection that breaks between queries would end the process otherwise.
    client.on("error", () => {});
    try {
      await client.connect();
      await client.query("set deadlock_timeout = '20ms'; set lock_timeout = '5s'");
      await this.#commitPrepared(client);
    } catch {
      await client.end().catch(() => {});
      await delay(50, undefined, { signal: this.#stopping }).catch(() => {});
      return undefined;
    }
    this.#client = client;
    return client;
  }
}

/** Names a prepared transaction after its attempt. */
export function gidOf(attempt: Pick<Attempt, "writer" | "number">): string {
  return `w${attempt.writer}.${attempt.number}`;
}
