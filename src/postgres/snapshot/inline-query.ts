import pg from "pg";
import { FeedError } from "../../core/errors.ts";
import type { SqlQuery } from "../../core/source/initial-state.ts";

/** What a placeholder must not be looked for in (strings, names, dollar quotes, comments), or a placeholder. */
const PARTS = /'(?:[^']|'')*'|"(?:[^"]|"")*"|\$([A-Za-z_]\w*)?\$[\s\S]*?\$\1\$|--[^\n]*|\/\*[\s\S]*?\*\/|\$(\d+)/g;

/**
 * A query as one text, for COPY, which takes no parameters. For standard_conforming_strings on.
 *
 * @throws FeedError INVALID_REQUEST for a value that has no literal, or a placeholder that has no value
 */
export function inlineQuery({ sql, parameters }: SqlQuery): string {
  const text = sql.trim().replace(/;\s*$/, "");
  if (text === "") throw unusable("it is empty");
  if (parameters.length === 0) return text;
  return text.replaceAll(PARTS, (part: string, _tag: string | undefined, place: string | undefined) => {
    if (place === undefined) return part;
    if (Number(place) > parameters.length) throw unusable(`$${place} has no value`);
    return literal(parameters[Number(place) - 1]);
  });
}

function literal(value: unknown): string {
  if (value === null) return "null";
  if (typeof value === "string") return escaped(value);
  if (typeof value === "boolean" || typeof value === "bigint") return `(${value})`;
  if (typeof value === "number" && Number.isFinite(value)) return `(${value})`;
  if (value instanceof Date && !Number.isNaN(value.getTime())) return escaped(value.toISOString());
  if (Array.isArray(value) && value.length > 0) return `array[${value.map(literal).join(", ")}]`;
  throw unusable(`a value of it is ${Array.isArray(value) ? "an empty list" : `a ${typeof value}`}`);
}

function escaped(text: string): string {
  if (text.includes("\0")) throw unusable("a text of it holds a NUL");
  // With a backslash it is an escape string, which begins with a space so that it is apart from what stands before.
  return pg.escapeLiteral(text);
}

function unusable(why: string): FeedError {
  return new FeedError(
    "INVALID_REQUEST",
    `The query cannot be used: ${why}.`,
    "Values are texts, numbers, bigints, booleans, dates, null and lists of these.",
  );
}
