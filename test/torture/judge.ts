import pg from "pg";
import type { Followed } from "./follower.ts";
import { bank, type TorturedTable, tables, total } from "./tables.ts";

/** A row as events and tables show it. */
interface Row {
  readonly amount: number;
  readonly rev: string;
}

/**
 * Replays a story and says what is wrong with it: versions that are not dense, an event that does not follow its row's
 * last one, amounts that do not add up where a transaction may end. Independent of how anything is captured: every change
 * of a row draws a new `rev`, so that a lost, doubled or swapped event breaks the row's chain.
 */
export function replay(log: readonly Followed[]): {
  complaints: readonly string[];
  state: Map<string, Map<string, Row>>;
} {
  const complaints: string[] = [];
  const state = new Map<string, Map<string, Row>>([...tables, bank].map(({ topic }) => [topic, new Map()]));
  let sum = 0;
  let version = 0;
  for (const { event, boundary } of log) {
    const complain = (what: string) =>
      complaints.push(`version ${event.version}, ${event.operation} ${event.topic} ${event.key}: ${what}`);
    if (event.version !== version + 1) complain(`follows version ${version}`);
    version = event.version;
    const rows = state.get(sourceTopic(event.topic));
    if (rows !== undefined && event.operation !== "MESSAGE") {
      const before = rowOf(event.before);
      const after = rowOf(event.after);
      const key = event.key ?? "";
      const known = rows.get(key);
      if (event.operation === "TRUNCATE") {
        for (const { amount } of rows.values()) sum -= amount;
        rows.clear();
      } else {
        if (event.operation === "INSERT" ? known !== undefined : known === undefined)
          complain("the row is not as it must be");
        if (event.operation !== "INSERT" && known?.rev !== before?.rev)
          complain(`comes after rev ${before?.rev}; the row's last one is ${known?.rev}`);
        sum += (after?.amount ?? 0) - (known?.amount ?? 0);
        if (after === undefined) rows.delete(key);
        else rows.set(key, after);
      }
    }
    if (boundary && sum !== total) {
      complain(`the amounts sum up to ${sum} where a transaction may end`);
      sum = total;
    }
  }
  return { complaints, state };
}

/** What a table holds and the replayed story does not, and the other way round. */
export async function compare(url: string, state: Map<string, Map<string, Row>>): Promise<readonly string[]> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => undefined);
  await client.connect();
  try {
    const complaints: string[] = [];
    let sum = 0;
    for (const table of [...tables, bank]) {
      const held = await rowsOf(client, table);
      const told = state.get(table.topic) ?? new Map<string, Row>();
      for (const [key, { rev, amount }] of held) {
        const row = told.get(key);
        sum += amount;
        if (row?.rev !== rev || row.amount !== amount)
          complaints.push(`${table.name} ${key}: the table has rev ${rev}, the story ${row?.rev ?? "no such row"}`);
      }
      for (const key of told.keys()) if (!held.has(key)) complaints.push(`${table.name} ${key}: only in the story`);
    }
    if (sum !== total) complaints.push(`the tables' own amounts sum up to ${sum}: the writers are wrong`);
    return complaints;
  } finally {
    await client.end();
  }
}

async function rowsOf(client: pg.Client, { name, key }: TorturedTable): Promise<Map<string, Row>> {
  const columns = key.map((column) => `t.${column}`).join(", ");
  const { rows } = await client.query<{ key: unknown[]; amount: number; rev: string }>(
    `select json_build_array(${columns}) as key, amount, rev::text as rev from ${name} t`,
  );
  return new Map(
    rows.map((row) => [
      row.key.length === 1 ? String(row.key[0]) : JSON.stringify(row.key),
      { amount: row.amount, rev: row.rev },
    ]),
  );
}

function rowOf(image: string | undefined): Row | undefined {
  if (image === undefined) return undefined;
  const row: { amount: number; rev: number } = JSON.parse(image);
  return { amount: row.amount, rev: String(row.rev) };
}

/** Topics of a template belong to one source. */
function sourceTopic(topic: string): string {
  return topic.startsWith("template.") ? "template.{region}" : topic;
}
