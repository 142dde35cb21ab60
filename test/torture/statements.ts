import type pg from "pg";
import type { Random } from "../support/workload/random.ts";
import { accounts, regions, type TorturedTable, tables } from "./tables.ts";

/** A random statement in a transaction; what it added to the sum of all amounts. */
type Statement = (client: pg.Client, random: Random) => Promise<number>;

/** Rows that statements aim at: few, so that they collide. */
const ids = 1000;

const table = (name: string): TorturedTable => {
  const found = tables.find((one) => one.name === name);
  if (found === undefined) throw new Error(`There is no table ${name}.`);
  return found;
};

const someTable = (random: Random): TorturedTable => tables[random.below(tables.length)] ?? table("plain");
const region = (random: Random): string => `'${regions[random.below(regions.length)]}'`;
const idOf = ({ key }: TorturedTable): string => key.at(-1) ?? "id";
const hasRegion = ({ columns }: TorturedTable): boolean => columns.includes("region");

/** `… returning` amounts whose sum is the change, or the negative of it. */
async function sumOf(client: pg.Client, sql: string): Promise<number> {
  const { rows } = await client.query<{ sum: string | null }>(
    `with touched as (${sql}) select sum(delta) as sum from touched`,
  );
  return Number(rows[0]?.sum ?? 0);
}

const insertRows: Statement = (client, random) => {
  const into = someTable(random);
  const from = random.below(ids);
  const count = random.chance(0.05) ? 300 : 1 + random.below(4);
  const where = hasRegion(into) ? `, ${region(random)}` : "";
  const columns = `${idOf(into)}${hasRegion(into) ? ", region" : ""}, amount`;
  const upsert = random.chance(0.5);
  // Of a row that is there already nobody can tell what it held: an upsert brings and changes nothing.
  const amount = upsert ? 0 : random.below(5);
  const conflict = upsert ? `(${into.key.join(", ")}) do update set extra = 'again'` : "do nothing";
  return sumOf(
    client,
    `insert into ${into.name} (${columns})
     select i${where}, ${amount} from generate_series(${from}, ${from + count - 1}) i
     on conflict ${conflict} returning ${amount} as delta`,
  );
};

const updateRows: Statement = (client, random) => {
  const of = someTable(random);
  const from = random.below(ids);
  const add = random.below(7) - 3;
  return sumOf(
    client,
    `update ${of.name} set amount = amount + ${add}
     where ${idOf(of)} between ${from} and ${from + random.below(30)} returning ${add} as delta`,
  );
};

const touchRows: Statement = async (client, random) => {
  const of = someTable(random);
  await client.query(`update ${of.name} set extra = extra where ${idOf(of)} % ${3 + random.below(40)} = 0`);
  return 0;
};

const deleteRows: Statement = (client, random) => {
  const from = tables.filter(({ name }) => name !== "parent")[random.below(tables.length - 1)] ?? table("plain");
  const id = random.below(ids);
  return sumOf(
    client,
    `delete from ${from.name} where ${idOf(from)} between ${id} and ${id + random.below(8)} returning -amount as delta`,
  );
};

/** Its children go with it, and their amounts. */
const deleteParent: Statement = async (client, random) => {
  const id = random.below(ids);
  const { rowCount } = await client.query(`select from parent where id = ${id} for update`);
  if (rowCount === 0) return 0;
  const { rows } = await client.query<{ sum: string | null }>(
    `select sum(amount) from (select amount from child where parent = ${id} for update) c`,
  );
  const own = await sumOf(client, `delete from parent where id = ${id} returning -amount as delta`);
  return own - Number(rows[0]?.sum ?? 0);
};

const adopt: Statement = async (client, random) => {
  const id = random.below(ids);
  await client.query(`update child set parent = ${id} where id % 50 = ${random.below(50)}
    and exists (select from parent where id = ${id} for key share)`);
  return 0;
};

const moveKeys: Statement = async (client, random) => {
  const of = someTable(random);
  const id = random.below(ids);
  await client.query(`update ${of.name} set ${idOf(of)} = ${idOf(of)} + ${ids * (1 + random.below(20))}
    where ${idOf(of)} between ${id} and ${id + 3}`);
  return 0;
};

const moveRegion: Statement = async (client, random) => {
  const of = [table("composite"), table("parts"), table("template")][random.below(3)] ?? table("parts");
  const id = random.below(ids);
  await client.query(`update ${of.name} set region = ${region(random)} where ${idOf(of)} between ${id} and ${id + 5}`);
  return 0;
};

const truncate: Statement = async (client, random) => {
  const of = [table("template"), table("composite"), table("parts")][random.below(3)] ?? table("template");
  await client.query(`lock table ${of.name} in access exclusive mode`);
  // A snapshot from before the lock may miss what is truncated.
  const isolation = await client.query<{ level: string }>("select current_setting('transaction_isolation') as level");
  if (isolation.rows[0]?.level !== "read committed") return 0;
  const { rows } = await client.query<{ sum: string | null }>(`select sum(amount) from ${of.name}`);
  await client.query(`truncate ${of.name}`);
  return -Number(rows[0]?.sum ?? 0);
};

const merge: Statement = async (client, random) => {
  const id = random.below(ids);
  await client.query(`merge into plain t using generate_series(${id}, ${id + 20}) as s(i) on t.id = s.i
    when matched and t.amount = 0 then delete
    when matched then update set extra = 'merged'
    when not matched then insert (id) values (s.i)`);
  return 0;
};

/** Each as often as it stands here. */
const statements: readonly Statement[] = [
  insertRows,
  insertRows,
  insertRows,
  updateRows,
  updateRows,
  touchRows,
  deleteRows,
  deleteParent,
  adopt,
  moveKeys,
  moveRegion,
];

/** Runs one at random and answers by how much it changed the sum. */
export function anyStatement(client: pg.Client, random: Random, hasMerge: boolean): Promise<number> {
  if (random.chance(0.01)) return truncate(client, random);
  if (hasMerge && random.chance(0.05)) return merge(client, random);
  const chosen = statements[random.below(statements.length)] ?? touchRows;
  return chosen(client, random);
}

/**
 * Puts into the bank what the rest of the transaction has taken out of it. False when the bank has no such row: to a snapshot
 * that is older than a rewrite of the table it is empty.
 */
export async function balance(client: pg.Client, random: Random, sum: number): Promise<boolean> {
  if (sum === 0) return true;
  const id = 1 + random.below(accounts);
  const { rowCount } = await client.query("update bank set amount = amount - $1 where id = $2", [sum, id]);
  return rowCount === 1;
}
