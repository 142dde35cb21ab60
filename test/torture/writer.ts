import pg from "pg";
import { hold } from "../support/deadline.ts";
import type { Random } from "../support/workload/random.ts";
import { anyStatement, balance } from "./statements.ts";

/** What concurrency, a crash or a lock explains: the transaction is over, and nothing of it is there. */
const expected = /^(?:40|55P03|57|08|23|25P0[12]|XX000)/;

/** One session that writes random transactions until it is stopped. Comes back after whatever cuts it. */
export class TortureWriter implements AsyncDisposable {
  readonly #url: string;
  readonly #random: Random;
  readonly #name: string;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  /** What nothing explains. */
  readonly failures: string[] = [];
  committed = 0;
  #client: pg.Client | undefined;
  #undone = 0;
  #lastError: unknown;

  constructor(url: string, name: string, random: Random) {
    this.#url = url;
    this.#name = name;
    this.#random = random;
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  /** Stops it also when it waits for an answer that does not come. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    // No `end()`: a connection that is being made would never tell that it has failed.
    this.#client?.connection.stream.destroy();
    await this.#running;
  }

  /** For whoever waits for its transactions. */
  findings(): string {
    return `writer ${this.#name}: ${this.committed} committed, ${this.#undone} failed, the last with ${String(this.#lastError)}`;
  }

  async #run(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      const client = new pg.Client({
        connectionString: this.#url,
        connectionTimeoutMillis: 5000,
        application_name: this.#name,
      });
      client.on("error", () => undefined);
      this.#client = client;
      try {
        await client.connect();
        await client.query("set lock_timeout = '3s'; set statement_timeout = '20s'");
        const { rows } = await client.query<{ version: number }>(
          "select current_setting('server_version_num')::int as version",
        );
        const hasMerge = (rows[0]?.version ?? 0) >= 150000;
        while (!this.#stopping.signal.aborted) await this.#transaction(client, hasMerge);
      } catch (error) {
        // The server is away: again, once it is back.
        this.#lastError = error;
        await hold(10);
      } finally {
        await client.end().catch(() => undefined);
      }
    }
  }

  async #transaction(client: pg.Client, hasMerge: boolean): Promise<void> {
    const random = this.#random;
    try {
      await client.query(random.chance(0.1) ? "begin isolation level repeatable read" : "begin");
      if (random.chance(0.1)) await client.query("select pg_current_xact_id()");
      let sum = 0;
      for (let count = 1 + random.below(5); count > 0; count -= 1) sum += await this.#savedStatement(client, hasMerge);
      if (random.chance(0.2)) await client.query("select millrace.emit('torture.notes', $1)", [this.#name]);
      if (await balance(client, random, sum)) await this.#end(client);
      else await client.query("rollback");
    } catch (error) {
      if (!(error instanceof pg.DatabaseError)) throw error;
      this.#undone += 1;
      this.#lastError = error;
      await client.query("rollback");
      if (!expected.test(error.code ?? "")) this.failures.push(`${this.#name}: ${error.code} ${error.message}`);
    }
  }

  /** Some are rolled back to a savepoint: then they have changed nothing. */
  async #savedStatement(client: pg.Client, hasMerge: boolean): Promise<number> {
    if (!this.#random.chance(0.2)) return await anyStatement(client, this.#random, hasMerge);
    await client.query("savepoint s");
    const sum = await anyStatement(client, this.#random, hasMerge);
    if (this.#random.chance(0.5)) {
      await client.query("release s");
      return sum;
    }
    await client.query("rollback to s");
    return 0;
  }

  async #end(client: pg.Client): Promise<void> {
    if (this.#random.chance(0.1)) {
      await client.query("rollback");
      return;
    }
    if (this.#random.chance(0.1)) {
      const gid = `${this.#name}-${this.committed}-${this.#random.below(1e9)}`;
      await client.query(`prepare transaction '${gid}'`);
      await client.query(`commit prepared '${gid}'`);
    } else {
      await client.query("commit");
    }
    this.committed += 1;
  }
}
