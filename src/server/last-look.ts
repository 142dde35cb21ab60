import type { Clock } from "../core/ports.ts";

/** Something looked at from time to time, that is forgotten when the looks end. */
export interface LastLook<Seen> {
  /** What was seen last; `undefined` when that was longer ago than `maxAgeMs`, or never. */
  current(): Seen | undefined;
  saw(seen: Seen): void;
}

/** Keeps what was seen for `maxAgeMs`: old news that looks new is worse than none. */
export function createLastLook<Seen>(maxAgeMs: number, clock: Pick<Clock, "monotonic">): LastLook<Seen> {
  let last: { readonly seen: Seen; readonly atMs: number } | undefined;
  return {
    current: () => (last !== undefined && clock.monotonic() - last.atMs <= maxAgeMs ? last.seen : undefined),
    saw: (seen) => {
      last = { seen, atMs: clock.monotonic() };
    },
  };
}
