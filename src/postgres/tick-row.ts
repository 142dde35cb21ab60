import { crc32 } from "node:zlib";
import type { Tick } from "../core/page.ts";

/** A tick's row as the SQL side writes it in one text: tick:first_version:count:microseconds:snapshot. */
export function tickFromText(text: string): Tick {
  const [tick, firstVersion, count, timeMicros] = text.split(":", 4).map(Number);
  return {
    tick: tick ?? Number.NaN,
    firstVersion: firstVersion ?? Number.NaN,
    count: count ?? Number.NaN,
    timeMicros: timeMicros ?? Number.NaN,
    fingerprint: crc32(text),
  };
}
