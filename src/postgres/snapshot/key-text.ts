/** The type of a key column, without its domains. */
export interface KeyType {
  readonly column: string;
  /** Quoted and qualified. */
  readonly type: string;
  readonly name: string;
  /** Quoted and qualified; `null` for types without one. */
  readonly collation: string | null;
  /** Of an enum. */
  readonly labels: readonly string[] | null;
  /** Its JSON is the text of the value, and the text equals the value. */
  readonly exact: boolean;
  /** No row has a null here. */
  readonly notNull: boolean;
}

/**
 * The texts of a key's columns: of one column the key itself, of several the elements of a JSON array, each with every
 * digit it was written with. `undefined` when it is no key of so many columns.
 */
export function keyTexts(key: string, columns: number): readonly string[] | undefined {
  if (columns === 1) return isText(key) ? [key] : undefined;
  const elements = key.match(/"(?:[^"\\]|\\.)*"|[^,[\]"]+/g) ?? [];
  if (elements.length !== columns || `[${elements.join(",")}]` !== key) return undefined;
  const texts = elements.map(elementText);
  return texts.every((text) => text !== undefined) ? texts : undefined;
}

function elementText(json: string): string | undefined {
  if (!json.startsWith('"')) return /^(?:true|false|-?\d[\d.eE+-]*)$/.test(json) ? json : undefined;
  try {
    const text: unknown = JSON.parse(json);
    return typeof text === "string" && isText(text) ? text : undefined;
  } catch {
    return undefined;
  }
}

/** Postgres takes it for a text. */
function isText(text: string): boolean {
  return !text.includes("\0") && text.isWellFormed();
}

/**
 * Whether a text is one of the type: `yes` is a promise that the database casts it, `no` one that no row has it, whoever
 * made it up. `unknown` is for what only the database can tell.
 */
export function fits(text: string, { name, labels }: KeyType, utf8: boolean): "yes" | "no" | "unknown" {
  if (labels !== null) return answer(labels.includes(text));
  const bounds = integerBounds[name];
  if (bounds !== undefined) {
    if (!/^-?\d{1,20}$/.test(text)) return "no";
    const value = BigInt(text);
    return answer(value >= bounds[0] && value <= bounds[1]);
  }
  switch (name) {
    case "text":
    case "varchar":
    case "bpchar":
      return utf8 || Buffer.byteLength(text) === text.length ? "yes" : "unknown";
    case "uuid":
      return answer(/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text));
    case "bool":
      return answer(text === "true" || text === "false");
    case "numeric":
      if (/^(?:NaN|-?Infinity)$/.test(text)) return "unknown";
      if (!/^-?\d+(?:\.\d+)?$/.test(text)) return "no";
      return text.length <= 1000 ? "yes" : "unknown";
    default:
      return "unknown";
  }
}

function answer(yes: boolean): "yes" | "no" {
  return yes ? "yes" : "no";
}

const integerBounds: Readonly<Record<string, readonly [bigint, bigint]>> = {
  int2: [-(2n ** 15n), 2n ** 15n - 1n],
  int4: [-(2n ** 31n), 2n ** 31n - 1n],
  int8: [-(2n ** 63n), 2n ** 63n - 1n],
  oid: [0n, 2n ** 32n - 1n],
};
