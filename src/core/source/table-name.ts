/** A table's name, taken apart. */
export interface TableName {
  readonly schema: string;
  readonly table: string;
}

const PART = /^(?:"((?:[^"]|"")+)"|([\p{L}_][\p{L}\p{N}_$]*))/u;

/**
 * Takes apart a name as SQL writes it, `public.orders` or `shop."Order Items"`: what is not quoted is folded to lower case.
 * `undefined` when it is none, or names no schema.
 */
export function parseTableName(text: string): TableName | undefined {
  const schema = PART.exec(text);
  if (schema === null || text[schema[0].length] !== ".") return undefined;
  const rest = text.slice(schema[0].length + 1);
  const table = PART.exec(rest);
  return table === null || table[0].length !== rest.length
    ? undefined
    : { schema: identifier(schema), table: identifier(table) };
}

function identifier([, quoted, bare]: RegExpExecArray): string {
  return quoted === undefined ? (bare ?? "").toLowerCase() : quoted.replaceAll('""', '"');
}

/** Whether both name the same table. */
export function isSameTable(one: string, other: string): boolean {
  const a = parseTableName(one);
  const b = parseTableName(other);
  return a !== undefined && b !== undefined && a.schema === b.schema && a.table === b.table;
}
