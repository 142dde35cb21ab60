import { nearNames } from "../core/near-names.ts";
import type { Policy } from "../core/policy/policy.ts";
import type { Selector } from "../core/selector/selector.ts";
import type { FollowOptions } from "./request.ts";

type Names<T> = Readonly<Record<keyof T, true>>;

const OPTIONS: Names<FollowOptions> = {
  from: true,
  selectors: true,
  policy: true,
  maxBatchEvents: true,
  maxBatchBytes: true,
  maxBatchDelayMs: true,
  maxEventsPerSecond: true,
  checkpointIntervalMs: true,
  checkpointEveryTick: true,
  afterTransaction: true,
};
const SELECTOR: Names<Selector> = { topics: true, keys: true, operations: true, filter: true, fields: true };
const POLICY: Names<Policy> = { kind: true, maxLagEvents: true, sampleEvery: true };
const FROM = { cursor: true, version: true, epoch: true, time: true } as const;

/** One option that is not as it should be. */
export interface Violation {
  readonly field: string;
  readonly message: string;
}

/**
 * Names that mean nothing, by their paths. A program without types that writes `polices` would get another delivery than it
 * asked for, and never hear of it.
 */
export function unknownNames(options: FollowOptions): readonly Violation[] {
  const { from, selectors = [], policy } = options;
  return [
    ...unknownIn(options, OPTIONS, ""),
    ...unknownIn(from, FROM, "from."),
    ...[...selectors].flatMap((selector, at) => unknownIn(selector, SELECTOR, `selectors[${at}].`)),
    ...unknownIn(policy, POLICY, "policy."),
  ];
}

function unknownIn(object: unknown, known: Readonly<Record<string, true>>, path: string): readonly Violation[] {
  if (typeof object !== "object" || object === null) return [];
  return Object.keys(object)
    .filter((name) => !Object.hasOwn(known, name))
    .map((name) => ({ field: `${path}${name}`, message: `is no option${meant(name, Object.keys(known))}` }));
}

function meant(name: string, known: readonly string[]): string {
  const near = nearNames(name, known);
  return near.length === 0 ? `; there are ${known.join(", ")}` : `; did you mean ${near.join(" or ")}?`;
}
