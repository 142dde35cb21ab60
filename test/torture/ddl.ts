import pg from "pg";
import { hold } from "../support/deadline.ts";
import type { Random } from "../support/workload/random.ts";
import { bank, tables } from "./tables.ts";

/** Statements that change a watched table, or what surrounds it, and no row that events are judged by. */
const changes: readonly ((table: string, random: Random) => string)[] = [
  (table, random) => `alter table ${table} add column if not exists more_${random.below(3)} text default 'more'`,
  (table, random) => `alter table ${table} drop column if exists more_${random.below(3)}`,
  (table, random) => `alter table ${table} alter column extra type ${random.chance(0.5) ? "varchar(50)" : "text"}`,
  (table) => `alter table ${table} alter column amount type int using amount + 0`,
  (table) => `vacuum ${table}`,
  (table) => `analyze ${table}`,
  (table, random) => `create index if not exists extra_${random.below(3)} on ${table} (extra)`,
  (table) => `alter table ${table} alter column extra set default 'y'`,
  (table) => `alter table ${table} replica identity full`,
  (table) => `create or replace trigger a_touch before update on ${table} for each row execute function touch()`,
  (table) => `drop trigger if exists a_touch on ${table}`,
  (table) =>
    `create or replace trigger zz_note after insert or update on ${table} for each row execute function note()`,
  (table) => `drop trigger if exists zz_note on ${table}`,
  (table) => `alter table ${table} enable row level security`,
  (table) => `alter table ${table} disable row level security`,
  () => "create table parts_more partition of parts for values in ('ß')",
  () => "alter table parts detach partition parts_eu; alter table parts attach partition parts_eu for values in ('eu')",
];

/** What the triggers above call. */
export const triggerFunctions: readonly string[] = [
  "create function touch() returns trigger language plpgsql as $$ begin new.extra := 'touched'; return new; end $$",
  `create function note() returns trigger language plpgsql as $$
    begin perform millrace.emit('torture.notes', tg_table_name); return null; end $$`,
];

/** Changes tables at random until it is stopped. Gives up on locks after a moment, as migrations should. */
export class TortureDdl implements AsyncDisposable {
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  readonly failures: string[] = [];
  done = 0;
  #client: pg.Client | undefined;
  #lastError: unknown;

  constructor(url: string, random: Random) {
    this.#running = this.#run(url, random);
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

  /** For whoever waits for its end. */
  findings(): string {
    return `ddl: ${this.done} changes, the last failure ${String(this.#lastError)}`;
  }

  async #run(url: string, random: Random): Promise<void> {
    const names = [...tables, bank].map(({ name }) => name);
    while (!this.#stopping.signal.aborted) {
      const client = new pg.Client({
        connectionString: url,
        connectionTimeoutMillis: 5000,
        application_name: "ddl",
      });
      client.on("error", () => undefined);
      this.#client = client;
      try {
        await client.connect();
        await client.query("set lock_timeout = '300ms'; set statement_timeout = '10s'");
        while (!this.#stopping.signal.aborted) {
          const change = changes[random.below(changes.length)];
          const sql = change?.(names[random.below(names.length)] ?? "plain", random) ?? "select 1";
          await client.query(sql).then(
            () => {
              this.done += 1;
            },
            (error: unknown) => this.#failed(error, sql),
          );
          await hold(random.below(50));
        }
      } catch (error) {
        // The server is away: again, once it is back.
        this.#lastError = error;
        await hold(10);
      } finally {
        await client.end().catch(() => undefined);
      }
    }
  }

  #failed(error: unknown, sql: string): void {
    if (!(error instanceof pg.DatabaseError)) throw error;
    this.#lastError = error;
    // Locks, deadlocks, cancellations, what is there already, partitions that hold rows for one another.
    if (!/^(?:40|55|57|08|42P07|42P17|42710|23514|0A000|42601|25001)/.test(error.code ?? ""))
      this.failures.push(`${sql}: ${error.code} ${error.message}`);
  }
}
