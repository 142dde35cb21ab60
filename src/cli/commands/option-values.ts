import { usageFailure } from "../failure.ts";

/** For options that may be repeated. */
export function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}

/** For options that take names separated by commas. */
export function commaList(value: string): readonly string[] {
  return value
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}

/** The most that a count on the wire can say. */
export const mostCount = 2 ** 32 - 1;

/** For options that take a whole number between `least` and `most`. */
export function wholeNumber(option: string, least: number, most = Number.MAX_SAFE_INTEGER): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (!/^\d+$/.test(value) || number < least) {
      throw usageFailure(`${option} ${value} is not a whole number of at least ${least}.`);
    }
    if (number > most) throw usageFailure(`${option} ${value} is too large: ${most} is the most.`);
    return number;
  };
}

/** `name=value`, for headers and labels. */
export function namedValue(
  text: string,
  before: Readonly<Record<string, string>> = {},
): Readonly<Record<string, string>> {
  const at = text.indexOf("=");
  if (at < 1) throw usageFailure(`\`${text}\` has no name and value.`, "Write name=value.");
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) };
}

const spans: Readonly<Record<string, number>> = { s: 1000, min: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };

/** For options that take a length of time with its unit: `30min`, `12h`, `7d`. In milliseconds. */
export function timeSpan(option: string): (value: string) => number {
  return (value) => {
    const [, number, unit = ""] = /^(\d+(?:\.\d+)?)\s*(s|min|h|d|w)$/.exec(value) ?? [];
    const milliseconds = Number(number) * (spans[unit] ?? Number.NaN);
    if (milliseconds >= 1000) return milliseconds;
    const what = Number.isNaN(milliseconds) ? "no length of time" : "too short: 1s is the least";
    throw usageFailure(`${option} ${value} is ${what}.`, "Write it with its unit: 90s, 30min, 12h, 7d or 2w.");
  };
}

const powers = ["", "k", "m", "g", "t"];

/** For options that take a size in bytes, or with its unit: `500MiB`, `50GiB`, `50g`. */
export function byteSize(option: string): (value: string) => number {
  return (value) => {
    const [, number, unit = ""] = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$/i.exec(value) ?? [];
    const bytes = Math.round(Number(number) * 1024 ** powers.indexOf(unit.toLowerCase()));
    if (Number.isSafeInteger(bytes)) return bytes;
    throw usageFailure(`${option} ${value} is no size.`, "Write bytes, or a unit with them: 500MiB, 50GiB, 2TiB.");
  };
}

/** For options that can also be without a limit. */
export function orNone<T>(none: string, parse: (value: string) => T): (value: string) => T | "none" {
  return (value) => (value === none ? "none" : parse(value));
}
