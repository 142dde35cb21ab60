import pg from "pg";
import { fits, type KeyType, keyTexts } from "./key-text.ts";
import type { SnapshotSource } from "./sources.ts";

/** Which of a source's rows are to be copied; nothing for all of them. */
export interface KeyRange {
  /** Texts of the order's columns: only the rows after them. */
  readonly after?: readonly string[] | undefined;
  /** `Event.key`s: at least their rows, if not all. */
  readonly keys?: readonly string[] | undefined;
}

/**
 * Whether the rows are to be read through the index of their order rather than sorted. Not where keys are wanted: those
 * are few, found each by itself, and soon sorted.
 */
export function walksIndex(source: SnapshotSource, { keys }: KeyRange): boolean {
  return orderOf(source) !== undefined && (keys === undefined || wanted(source, keys).length === 0);
}

/** The columns whose values tell the rows of a source apart and put them in order; `undefined` when nothing does. */
export function orderOf(source: SnapshotSource): readonly KeyType[] | undefined {
  const order = source.uniqueColumns?.map((column) => source.keyTypes.find((type) => type.column === column));
  return order?.every((type) => type?.exact && type.notNull) ? order.filter(isType) : undefined;
}

function isType(type: KeyType | undefined): type is KeyType {
  return type !== undefined;
}

/** What a key says of the columns of the order; `undefined` when it is no key of this source. */
export function orderTexts(source: SnapshotSource, key: string): readonly string[] | undefined {
  const texts = keyTexts(key, source.keyColumns.length);
  if (texts === undefined) return undefined;
  return orderOf(source)?.map(({ column }) => texts[source.keyColumns.indexOf(column)] ?? "");
}

/** `from …` of the rows in the range, as `t`, in their order. ONLY, because a child by inheritance has its own triggers. */
export function rowsIn(source: SnapshotSource, range: KeyRange): string {
  const order = orderOf(source);
  const columns = order?.map(({ column }) => column) ?? source.sortColumns;
  const conditions = [
    ...(order === undefined || range.after === undefined ? [] : [isAfter(order, range.after)]),
    ...(range.keys === undefined ? [] : wanted(source, range.keys)),
    ...(source.deletedColumn === null ? [] : [isThere(source.deletedColumn)]),
  ];
  const where = conditions.length === 0 ? "" : `where ${conditions.join(" and ")}`;
  const by = columns.length === 0 ? "" : `order by ${columns.map(columnOf).join(", ")}`;
  return `from ${source.partitioned ? "" : "only "}${tableOf(source)} t ${where} ${by}`;
}

/** Null or false: by its output function, for a cast to text may be anybody's. */
function isThere(deletedColumn: string): string {
  return `pg_catalog.format('%s', ${columnOf(deletedColumn)}) in ('', 'f')`;
}

function isAfter(order: readonly KeyType[], texts: readonly string[]): string {
  const values = order.map((type, at) => literal(texts[at] ?? "", type));
  return `${rowOf(order.map(({ column }) => columnOf(column)))} > ${rowOf(values)}`;
}

/**
 * Whoever asks may ask for anything: a text that cannot be of the column's type is nobody's key, and never reaches a cast.
 * Where that cannot be told here, all rows are copied: whoever delivers them looks at their keys too.
 */
function wanted(source: SnapshotSource, keys: readonly string[]): readonly string[] {
  const { keyTypes, keyColumns, utf8 } = source;
  if (keyTypes.length !== keyColumns.length || !keyTypes.every(({ exact }) => exact)) return [];
  const rows: string[] = [];
  for (const key of keys) {
    const texts = keyTexts(key, keyColumns.length);
    if (texts === undefined) continue;
    const fit = keyTypes.map((type, at) => fits(texts[at] ?? "", type, utf8));
    if (fit.includes("no")) continue;
    if (fit.includes("unknown")) return [];
    rows.push(rowOf(keyTypes.map((type, at) => literal(texts[at] ?? "", type))));
  }
  if (rows.length === 0) return ["false"];
  return [`${rowOf(keyColumns.map(columnOf))} in (${rows.join(", ")})`];
}

/**
 * Which of many keys are at or before one, by the database's own comparison. $1… an array of texts for each column of the
 * order, then the one's texts. Answers positions in the arrays, from 1.
 */
export function keysUpTo(order: readonly KeyType[]): string {
  const count = order.length;
  const places = order.map((_, at) => at);
  const arrays = places.map((at) => `$${at + 1}::text[]`);
  const left = order.map(({ type, collation }, at) =>
    collation === null ? `k.c${at}::${type}` : `k.c${at}::${type} collate ${collation}`,
  );
  const right = order.map(({ type }, at) => `$${count + at + 1}::text::${type}`);
  return `
    select k.n::int as place
    from unnest(${arrays.join(", ")}) with ordinality k(${places.map((at) => `c${at}`).join(", ")}, n)
    where ${rowOf(left)} <= ${rowOf(right)}`;
}

function columnOf(column: string): string {
  return `t.${pg.escapeIdentifier(column)}`;
}

/** A single value in brackets is that value. */
function rowOf(values: readonly string[]): string {
  return `(${values.join(", ")})`;
}

function literal(text: string, { type }: KeyType): string {
  return `${pg.escapeLiteral(text)}::${type}`;
}

/** The table's name, quoted and qualified. */
export function tableOf({ schema, table }: SnapshotSource): string {
  return `${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(table)}`;
}

/** An array of texts as an expression. */
export function textArray(values: readonly string[]): string {
  return `array[${values.map((value) => pg.escapeLiteral(value)).join(", ")}]::text[]`;
}
