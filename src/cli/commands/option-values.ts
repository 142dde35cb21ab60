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

/** For options that take a whole number of at least `least`. */
export function wholeNumber(option: string, least: number): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (/^\d+$/.test(value) && Number.isSafeInteger(number) && number >= least) return number;
    throw usageFailure(`${option} ${value} is not a whole number of at least ${least}.`);
  };
}

/** `name=value`, for headers. */
export function namedValue(
  text: string,
  before: Readonly<Record<string, string>> = {},
): Readonly<Record<string, string>> {
  const at = text.indexOf("=");
  if (at < 1) throw usageFailure(`\`${text}\` is no header.`, "Give it as name=value.");
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) };
}
