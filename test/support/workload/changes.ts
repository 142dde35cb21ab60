import type pg from "pg";
import type { Change } from "../checker/ledger.ts";
import { notesTopic, type ShopTable } from "./shop.ts";

/** Makes changes inside a transaction that the caller has begun, and says what they were. Each takes the row as it is. */
export class RowChanges {
  #connection: pg.ClientBase | undefined;
  readonly #writer: number;
  /** Tells lives apart: rises with each birth of this writer, over all its transactions. */
  #births = 0;
  #notes = 0;

  constructor(writer: number) {
    this.#writer = writer;
  }

  /** Makes them on this connection from now on. Lives and notes are counted on, so that no two ever share a name. */
  on(client: pg.ClientBase): this {
    this.#connection = client;
    return this;
  }

  get #client(): pg.ClientBase {
    if (this.#connection === undefined) throw new Error("Say on which connection first.");
    return this.#connection;
  }

  /** Raises the counters of these rows in one statement; those that are not there are passed over. */
  async update(table: ShopTable, ids: readonly number[]): Promise<Change[]> {
    const { rows } = await this.#client.query<{ id: number; life: string; counter: string }>(
      `update ${table} set counter = counter + 1 where id = any($1) returning id, life, counter`,
      [ids],
    );
    return rows.map((row) => ({
      topic: table,
      key: String(row.id),
      operation: "UPDATE",
      life: row.life,
      counter: Number(row.counter),
    }));
  }

  /** Begins a life unless the row is there. */
  async insert(table: ShopTable, id: number): Promise<Change[]> {
    const life = this.#newLife();
    const { rowCount } = await this.#client.query(
      `insert into ${table} values ($1, $2, 1, repeat('p', $3)) on conflict do nothing`,
      [id, life, id % 40],
    );
    return rowCount === 1 ? [await this.#birth(table, id, life)] : [];
  }

  /** Ends the row's life if it has one. */
  async delete(table: ShopTable, id: number): Promise<Change[]> {
    const { rows } = await this.#client.query<{ life: string; counter: string }>(
      `delete from ${table} where id = $1 returning life, counter`,
      [id],
    );
    const [row] = rows;
    return row === undefined ? [] : [await this.#death(table, id, row.life, Number(row.counter))];
  }

  /** Changes a row's key: the end of a life here and the beginning of one there. Nothing when the place is taken. */
  async move(table: ShopTable, from: number, to: number): Promise<Change[]> {
    if (from === to) return [];
    const { rows } = await this.#client.query<{ life: string; counter: string }>(
      `select life, counter from ${table} where id = $1 for update`,
      [from],
    );
    const [row] = rows;
    if (row === undefined) return [];
    const life = this.#newLife();
    await this.#client.query("savepoint move");
    try {
      await this.#client.query(`update ${table} set id = $2, life = $3, counter = 1 where id = $1`, [from, to, life]);
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "23505")) throw error;
      await this.#client.query("rollback to savepoint move");
      return [];
    }
    return [await this.#death(table, from, row.life, Number(row.counter)), await this.#birth(table, to, life)];
  }

  /** An event of the application's own. */
  async emit(padding: number): Promise<Change[]> {
    this.#notes += 1;
    const key = `w${this.#writer}`;
    const payload = { life: "message", counter: this.#notes, padding: "n".repeat(padding) };
    await this.#client.query("select millrace.emit($1, $2, $3::json)", [notesTopic, key, JSON.stringify(payload)]);
    return [{ topic: notesTopic, key, operation: "MESSAGE", life: "message", counter: this.#notes }];
  }

  #newLife(): string {
    this.#births += 1;
    return `w${this.#writer}.${this.#births}`;
  }

  async #birth(table: ShopTable, id: number, life: string): Promise<Change> {
    // FOR UPDATE: reads what is committed now, or fails under an older snapshot.
    const { rows } = await this.#client.query<{ life: string | null }>(
      "select life from grave where tbl = $1 and id = $2 for update",
      [table, id],
    );
    return {
      topic: table,
      key: String(id),
      operation: "INSERT",
      life,
      counter: 1,
      previousLife: rows[0]?.life ?? undefined,
    };
  }

  async #death(table: ShopTable, id: number, life: string, counter: number): Promise<Change> {
    await this.#client.query("update grave set life = $3 where tbl = $1 and id = $2", [table, id, life]);
    return { topic: table, key: String(id), operation: "DELETE", life, counter };
  }
}
