import type pg from "pg";
import type { Change } from "../checker/ledger.ts";
import type { Attempt } from "./change-log.ts";
import type { RowChanges } from "./changes.ts";
import type { Random } from "./random.ts";
import { type ShopTable, shopTables } from "./shop.ts";

/** How transactions are made. */
export interface Habits {
  /** Hot keys per table, 1 … keys. */
  readonly keys: number;
  /** Longest pause inside a transaction, in milliseconds. */
  readonly thinkMs: number;
  /** Whether to commit in two phases now and then; the cluster must allow it. */
  readonly twoPhase: boolean;
}

/** Begins a transaction and takes an xid, at once or only with the first write; now and then long before it. */
export async function begin(client: pg.ClientBase, attempt: Attempt, random: Random, habits: Habits): Promise<void> {
  await client.query("begin");
  if (random.chance(0.3)) {
    attempt.xid = await currentXid(client);
    await think(client, random, habits);
  }
}

/** Writes a few random changes, some under savepoints that may be taken back, and the row that proves the commit. */
export async function fill(
  client: pg.ClientBase,
  attempt: Attempt,
  changes: RowChanges,
  random: Random,
  habits: Habits,
): Promise<void> {
  for (const [table, id] of choosePlaces(random, habits)) {
    const savepoint = random.chance(0.2);
    if (savepoint) await client.query("savepoint step");
    const made = await change(changes, table, id, random, habits);
    if (savepoint && random.chance(0.6)) await client.query("rollback to savepoint step");
    else attempt.changes.push(...made);
    if (savepoint) await client.query("release savepoint step");
  }
  if (random.chance(0.2)) attempt.changes.push(...(await changes.emit(random.below(60))));
  if (random.chance(0.25)) await think(client, random, habits);
  await prove(client, attempt);
}

/** Notes the xid and writes the row by which a commit that was never acknowledged is known. */
export async function prove(client: pg.ClientBase, attempt: Attempt): Promise<void> {
  await client.query("insert into truth values ($1, $2)", [attempt.writer, attempt.number]);
  attempt.xid = await currentXid(client);
}

async function currentXid(client: pg.ClientBase): Promise<string> {
  const { rows } = await client.query<{ xid: string }>("select pg_current_xact_id()::text as xid");
  return rows[0]?.xid ?? "";
}

/** Sorted most of the time; otherwise some transactions deadlock, and roll back for it. */
function choosePlaces(random: Random, habits: Habits): readonly (readonly [ShopTable, number])[] {
  const places = Array.from({ length: 1 + random.below(4) }, (): readonly [ShopTable, number] => [
    shopTables[random.below(shopTables.length)] ?? "orders",
    1 + random.below(habits.keys),
  ]);
  return random.chance(0.95) ? places.sort(([t, a], [u, b]) => (t === u ? a - b : t < u ? -1 : 1)) : places;
}

async function change(
  changes: RowChanges,
  table: ShopTable,
  id: number,
  random: Random,
  habits: Habits,
): Promise<Change[]> {
  const dice = random.next();
  if (dice < 0.45) return orInsert(changes, table, id, await changes.update(table, [id]));
  if (dice < 0.6) return changes.update(table, [id, id + 1, id + 2]);
  if (dice < 0.75) return changes.insert(table, id);
  if (dice < 0.83) return changes.delete(table, id);
  if (dice < 0.9) return [...(await changes.delete(table, id)), ...(await changes.insert(table, id))];
  return changes.move(table, id, 1 + random.below(habits.keys));
}

async function orInsert(changes: RowChanges, table: ShopTable, id: number, made: Change[]): Promise<Change[]> {
  return made.length > 0 ? made : changes.insert(table, id);
}

/** Waits inside the transaction, as an application does between its statements. */
export async function think(client: pg.ClientBase, random: Random, habits: Habits): Promise<void> {
  await client.query("select pg_sleep($1)", [(random.next() * habits.thinkMs) / 1000]);
}
