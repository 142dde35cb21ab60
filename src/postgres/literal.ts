import pg from "pg";

/** What can be written into a statement that goes without parameters. */
export type Literal = string | number | boolean | null | readonly string[];

/**
 * Puts values in the place of $1, $2, …: for statements of one message, which takes no parameters. With
 * standard_conforming_strings on or off.
 */
export function withLiterals(statement: string, values: readonly Literal[]): string {
  return statement.replaceAll(/\$(\d+)/g, (_, place: string) => literal(values[Number(place) - 1] ?? null));
}

function literal(value: Literal): string {
  if (value === null) return "null";
  if (typeof value === "string") return pg.escapeLiteral(value);
  if (typeof value === "object") return `array[${value.map((item) => pg.escapeLiteral(item)).join(", ")}]::text[]`;
  return String(value);
}
