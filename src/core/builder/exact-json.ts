/** Of the language since 2025; the types of its library do not have them yet. */
const parse = JSON.parse as (
  text: string,
  reviver: (key: string, value: unknown, context: { readonly source?: string }) => unknown,
) => unknown;
const { rawJSON } = JSON as JSON & { readonly rawJSON: (text: string) => unknown };

/** Whole numbers of so many digits may be beyond what a double holds exactly. */
const MANY_DIGITS = /\d{16}/;
const WHOLE = /^-?\d+$/;

/** The value of a JSON text. Whole numbers that a double cannot hold are bigints. */
export function parseExactly(text: string): unknown {
  if (!MANY_DIGITS.test(text)) {
    return JSON.parse(text);
  }
  return parse(text, (_key, value, { source }) =>
    typeof value === "number" && source !== undefined && !Number.isSafeInteger(value) && WHOLE.test(source)
      ? BigInt(source)
      : value,
  );
}

/**
 * The JSON text of a value, bigints as numbers; `undefined` of what JSON has no text for.
 *
 * @throws TypeError for what refers to itself
 */
export function textOf(value: unknown): string | undefined {
  if (typeof value !== "bigint" && !holdsBigint(value, 0)) {
    return JSON.stringify(value);
  }
  return JSON.stringify(value, (_key, part: unknown) => (typeof part === "bigint" ? rawJSON(String(part)) : part));
}

const DEEP = 64;

/** What lies deeper is taken to hold one: the slower way is right for everything. */
function holdsBigint(value: unknown, depth: number): boolean {
  if (typeof value === "bigint") return true;
  if (typeof value !== "object" || value === null) return false;
  return depth > DEEP || Object.values(value).some((part) => holdsBigint(part, depth + 1));
}

/** Makes a parsed value, and all that it holds, immutable. */
export function frozen<T>(value: T): T {
  if (typeof value === "object" && value !== null) {
    for (const part of Object.values(value)) frozen(part);
    Object.freeze(value);
  }
  return value;
}
