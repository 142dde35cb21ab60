import type pg from "pg";

/** Uniform in [0, 1). */
export type Random = () => number;

/** One thing that happens in a shop: a transaction of its own. */
export interface Occurrence {
  readonly name: string;
  /** How often, relative to the others. */
  readonly weight: number;
  readonly run: (client: pg.ClientBase, random: Random) => Promise<void>;
}

/** The shop stays about this big: it may run for months. */
const mostCustomers = 200;
const mostOrders = 1000;

const firstNames = [
  "Ada",
  "Bruno",
  "Chidi",
  "Dilnoza",
  "Eszter",
  "Fatima",
  "Grace",
  "Hiro",
  "Ines",
  "Jakub",
  "Kofi",
  "Lan",
];
const lastNames = [
  "Almeida",
  "Berg",
  "Chen",
  "Diallo",
  "Eriksen",
  "Fontaine",
  "García",
  "Haddad",
  "Ito",
  "Jansen",
  "Kaya",
];
const regions = ["eu", "eu", "us", "us", "apac"];
const goods = [
  { sku: "tea-earl-grey", cents: 690 },
  { sku: "mug-stoneware", cents: 1450 },
  { sku: "kettle-1.7l", cents: 4990 },
  { sku: "biscuits-oat", cents: 325 },
  { sku: "tray-walnut", cents: 3800 },
];

/** Everything that happens. Most of it is orders on their way. */
export const occurrences: readonly Occurrence[] = [
  {
    name: "sign up",
    weight: 4,
    run: (client, random) => inTransaction(client, "commit", () => signUp(client, random)),
  },
  {
    name: "place an order",
    weight: 26,
    run: (client, random) => inTransaction(client, "commit", () => placeOrder(client, random)),
  },
  { name: "pay", weight: 24, run: (client) => inTransaction(client, "commit", () => pay(client)) },
  {
    name: "ship",
    weight: 20,
    run: (client) => inTransaction(client, "commit", () => advance(client, "paid", "shipped")),
  },
  {
    name: "deliver",
    weight: 18,
    run: (client) => inTransaction(client, "commit", () => advance(client, "shipped", "delivered")),
  },
  {
    name: "cancel",
    weight: 3,
    run: (client) => inTransaction(client, "commit", () => advance(client, "placed", "cancelled")),
  },
  // The card is declined: none of this must ever be seen.
  {
    name: "change one's mind",
    weight: 2,
    run: (client, random) => inTransaction(client, "rollback", () => placeOrder(client, random)),
  },
  { name: "forget old orders", weight: 3, run: (client) => inTransaction(client, "commit", () => forget(client)) },
];

/** One of them, by weight. */
export function chooseOccurrence(random: Random): Occurrence | undefined {
  let left = random() * occurrences.reduce((sum, { weight }) => sum + weight, 0);
  return occurrences.find(({ weight }) => {
    left -= weight;
    return left < 0;
  });
}

async function inTransaction(
  client: pg.ClientBase,
  end: "commit" | "rollback",
  work: () => Promise<void>,
): Promise<void> {
  await client.query("begin");
  try {
    await work();
    await client.query(end);
  } catch (error) {
    await client.query("rollback");
    throw error;
  }
}

async function signUp(client: pg.ClientBase, random: Random): Promise<void> {
  const name = `${pick(firstNames, random)} ${pick(lastNames, random)}`;
  const email = `${name
    .toLowerCase()
    .normalize("NFD")
    .replaceAll(/[^a-z ]/g, "")
    .replace(" ", ".")}@example.com`;
  await client.query(
    `insert into customers (name, email, region)
     select $1, $2, $3 where (select count(*) from customers) < $4`,
    [name, email, pick(regions, random), mostCustomers],
  );
}

async function placeOrder(client: pg.ClientBase, random: Random): Promise<void> {
  const items = Array.from({ length: 1 + Math.floor(random() * 3) }, () => {
    const { sku, cents } = pick(goods, random);
    return { sku, quantity: 1 + Math.floor(random() * 3), price: (cents / 100).toFixed(2), cents };
  });
  const total = items.reduce((sum, { quantity, cents }) => sum + quantity * cents, 0);
  await client.query(
    `insert into orders (customer_id, region, items, total)
     select id, region, $1, $2 from customers order by id offset floor($3::float8 * (select count(*) from customers)) limit 1`,
    [
      JSON.stringify(items.map(({ sku, quantity, price }) => ({ sku, quantity, price }))),
      (total / 100).toFixed(2),
      random(),
    ],
  );
}

/** Two tables in one transaction: both changes arrive between the same two checkpoints. */
async function pay(client: pg.ClientBase): Promise<void> {
  await client.query(
    `with paid as (
       update orders set status = 'paid', updated_at = now()
       where id = (select id from orders where status = 'placed' order by id limit 1) returning customer_id, total)
     update customers set spent = spent + paid.total from paid where customers.id = paid.customer_id`,
  );
}

async function advance(client: pg.ClientBase, from: string, to: string): Promise<void> {
  await client.query(
    `update orders set status = $2, updated_at = now()
     where id = (select id from orders where status = $1 order by id limit 1)`,
    [from, to],
  );
}

async function forget(client: pg.ClientBase): Promise<void> {
  await client.query(
    `delete from orders where id in (
       select id from orders where status in ('delivered', 'cancelled')
         and id <= (select coalesce(max(id), 0) from orders) - $1 order by id limit 50)
     or id = (select min(id) from orders where status = 'cancelled')`,
    [mostOrders],
  );
}

function pick<T>(from: readonly [T, ...T[]] | readonly T[], random: Random): T {
  const found = from[Math.floor(random() * from.length)];
  if (found === undefined) throw new RangeError("nothing to pick from");
  return found;
}
