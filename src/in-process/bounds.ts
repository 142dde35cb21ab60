import { FeedError } from "../core/errors.ts";
import type { PolicyKind } from "../core/policy/policy.ts";
import { unknownNames, type Violation } from "./known-names.ts";
import type { FollowOptions } from "./request.ts";

const KINDS: Readonly<Record<PolicyKind, true>> = {
  BLOCK: true,
  DROP_OLDEST: true,
  DROP_NEWEST: true,
  LATEST: true,
  SAMPLE: true,
  DISCONNECT: true,
};

/**
 * What validation does for requests over the wire. Options of programs without types come as they are, and a stream that
 * keeps one of ten events must not be asked for one of none.
 *
 * @throws FeedError INVALID_REQUEST, with every option that is out of its bounds or that there is not
 */
export function assertWithinBounds(options: FollowOptions): void {
  const { policy } = options;
  const bounded: readonly (readonly [option: string, value: number | undefined, least: number])[] = [
    ["maxBatchEvents", options.maxBatchEvents, 1],
    ["maxBatchBytes", options.maxBatchBytes, 1],
    ["maxBatchDelayMs", options.maxBatchDelayMs, 0],
    ["maxEventsPerSecond", options.maxEventsPerSecond, 1],
    ["checkpointIntervalMs", options.checkpointIntervalMs, 1],
    ["policy.maxLagEvents", policy?.maxLagEvents, 1],
    ["policy.sampleEvery", policy?.sampleEvery, 2],
  ];
  const violations = [
    ...unknownNames(options),
    ...bounded
      .filter(([, value, least]) => value !== undefined && !(Number.isFinite(value) && value >= least))
      .map(([field, value, least]) => ({ field, message: `is ${value}; the least is ${least}` })),
  ];
  if (policy !== undefined && !Object.hasOwn(KINDS, policy.kind)) {
    violations.push({
      field: "policy.kind",
      message: `is \`${policy.kind}\`; it is one of ${Object.keys(KINDS).join()}`,
    });
  }
  const [first] = violations;
  if (first !== undefined) {
    const action = "Correct the options; what is left out has a default.";
    throw new FeedError("INVALID_REQUEST", sentence(first), action, { violations });
  }
}

function sentence({ field, message }: Violation): string {
  return `${field} ${message}${message.endsWith("?") ? "" : "."}`;
}
