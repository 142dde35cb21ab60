import { createPostgresStore } from "../../../src/postgres/store.ts";
import type { WatchedDatabase } from "../capture/watched-database.ts";

/** An event as the feed reads it, with text for bytes. */
export interface Told {
  readonly topic: string;
  readonly key: string | undefined;
  readonly operation: string;
  readonly before: string | undefined;
  readonly after: string | undefined;
  readonly headers: string | undefined;
}

/** What events of a table are held against. */
export interface Mirrored {
  /** As in SQL, with ONLY where it is needed. */
  readonly table: string;
  /** The source's topic or template. Default: `table`. */
  readonly topic?: string;
  /** Key columns. Default `id`. */
  readonly key?: readonly string[];
  /** Columns of the image as SQL; default all. */
  readonly columns?: string;
  /** Images by key that were in the table before the first event. */
  readonly before?: ReadonlyMap<string, string>;
  /** Keys may meet within a statement: an INSERT replaces, a DELETE of another row than the one that is there does nothing. */
  readonly keysMeet?: boolean;
}

/** Settles and reads all that is committed, by the way that a server reads it. */
export async function toldBy(database: WatchedDatabase): Promise<readonly Told[]> {
  const signal = new AbortController().signal;
  const store = createPostgresStore({ url: database.url, directUrl: false });
  try {
    await store.start(signal);
    const told: Told[] = [];
    for (let after = 0; ; ) {
      const page = await store.advance(after, signal);
      if (page === undefined) return told;
      for (const { topic, key, operation, before, after: image, headers } of page.events) {
        told.push({ topic, key, operation, before: text(before), after: text(image), headers: text(headers) });
      }
      after = page.firstVersion + page.events.length - 1;
    }
  } finally {
    await store.stop();
  }
}

/**
 * The rule that every kind of table and statement is held to: whoever begins with the rows that were there and does what the
 * events say ends with the table, byte for byte, and never finds a row other than the event says that it was. Returns the
 * events of the table as `UPDATE orders.eu 7`, with the topic left out where it is the table's own.
 */
export async function mirror(database: WatchedDatabase, mirrored: Mirrored): Promise<readonly string[]> {
  const topic = mirrored.topic ?? mirrored.table;
  const told = (await toldBy(database)).filter((event) => belongs(topic, event.topic));
  const rows = new Map(mirrored.before);
  for (const event of told) apply(rows, event, mirrored.keysMeet ?? false);
  const table = await imagesByKey(database, mirrored);
  assertSame(table, rows);
  return told.map((event) =>
    [
      event.operation,
      ...(event.topic === topic ? [] : [event.topic]),
      ...(event.key === undefined ? [] : [event.key]),
    ].join(" "),
  );
}

/** The rows of a table as they are now. */
export async function imagesByKey(
  database: WatchedDatabase,
  { table, key = ["id"], columns = "*" }: Mirrored,
): Promise<ReadonlyMap<string, string>> {
  const session = await database.session();
  try {
    await session.query(
      "set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set intervalstyle = 'iso_8601'; set extra_float_digits = 1; set bytea_output = 'hex'",
    );
    const { rows } = await session.query<{ image: string }>(
      `select row_to_json(mirrored)::text as image from (select ${columns} from ${table}) mirrored`,
    );
    const images = new Map(rows.map(({ image }) => [keyIn(image, key), image]));
    if (images.size !== rows.length) throw new Error(`rows of ${table} share a key`);
    return images;
  } finally {
    await session.end();
  }
}

function text(image: Uint8Array | undefined): string | undefined {
  return image === undefined ? undefined : Buffer.from(image).toString("utf8");
}

function belongs(topicOrTemplate: string, topic: string): boolean {
  if (topicOrTemplate === topic) return true;
  const pattern = topicOrTemplate.replaceAll(".", "[.]").replaceAll(/\{[^{}]+\}/g, "[^.]+");
  return new RegExp(`^${pattern}$`).test(topic);
}

function keyIn(image: string, columns: readonly string[]): string {
  const row = JSON.parse(image) as Readonly<Record<string, unknown>>;
  const values = columns.map((column) => row[column]);
  return values.length === 1 ? String(values[0]) : JSON.stringify(values);
}

function apply(rows: Map<string, string>, event: Told, keysMeet: boolean): void {
  const { operation, key = "", before, after, topic } = event;
  const known = rows.get(key);
  const refuse = (why: string): never => {
    throw new Error(
      `${operation} ${topic} ${key}: ${why}\n  known:  ${known}\n  before: ${before}\n  after:  ${after}`,
    );
  };
  switch (operation) {
    case "MESSAGE":
      return;
    case "TRUNCATE":
      rows.clear();
      return;
    case "INSERT":
      if (known !== undefined && !keysMeet) refuse("the row is there already");
      rows.set(key, after ?? refuse("no image"));
      return;
    case "UPDATE":
      if (known !== before) refuse("the row was not that");
      rows.set(key, after ?? refuse("no image"));
      return;
    case "DELETE":
      if (known === before && known !== undefined) rows.delete(key);
      else if (!keysMeet) refuse("the row was not that");
      return;
    default:
      refuse("unknown operation");
  }
}

function assertSame(table: ReadonlyMap<string, string>, rows: ReadonlyMap<string, string>): void {
  const wrong = [
    ...[...table].filter(([key, image]) => rows.get(key) !== image),
    ...[...rows].filter(([key]) => !table.has(key)),
  ];
  if (wrong.length === 0) return;
  const [key = ""] = wrong[0] ?? [];
  throw new Error(
    `${wrong.length} rows differ, the first with key ${key}:\n  table:  ${table.get(key)}\n  events: ${rows.get(key)}`,
  );
}
