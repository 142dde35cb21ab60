import type { Version } from "../event.ts";
import type { DeliveredUpTo } from "./subscription-store.ts";

// How often the events after a position were delivered, as steps: those up to the first version so often, those after it up to
// the second so often. Whoever is cut and goes on from the position adds one step at most, so there are few.

/** Steps, ascending. What lies behind the last one was never delivered. */
export type Deliveries = readonly DeliveredUpTo[];

/** A consumer that is cut this often within what it has not acknowledged has other worries than exact numbers. */
const MAX_STEPS = 32;

/** How often this version was delivered, as far as is known. */
export function deliveriesOf(version: Version, steps: Deliveries): number {
  return steps.find((step) => version <= step.version)?.attempts ?? 0;
}

/** Once more, from the position up to this version. */
export function deliveredAgain(steps: Deliveries, upTo: Version): Deliveries {
  const again: DeliveredUpTo[] = [];
  let from = -1;
  for (const step of steps) {
    if (step.version <= upTo) {
      again.push({ version: step.version, attempts: step.attempts + 1 });
    } else {
      if (from < upTo) {
        again.push({ version: upTo, attempts: step.attempts + 1 });
      }
      again.push(step);
    }
    from = step.version;
  }
  if (from < upTo) {
    again.push({ version: upTo, attempts: 1 });
  }
  return fewer(joined(again));
}

/** What is left of them behind a position. */
export function beyond(steps: Deliveries, position: Version): Deliveries {
  return steps.some(({ version }) => version <= position) ? steps.filter(({ version }) => version > position) : steps;
}

function joined(steps: Deliveries): Deliveries {
  return steps.filter((step, index) => step.attempts !== steps[index + 1]?.attempts);
}

/** The nearest two become one, with the greater number of both: rather too many than too few. */
function fewer(steps: Deliveries): Deliveries {
  let left = steps;
  while (left.length > MAX_STEPS) {
    const at = nearest(left);
    const attempts = Math.max(left[at]?.attempts ?? 0, left[at + 1]?.attempts ?? 0);
    left = joined(left.flatMap((step, index) => (index === at ? [] : index === at + 1 ? { ...step, attempts } : step)));
  }
  return left;
}

function nearest(steps: Deliveries): number {
  let best = 0;
  let least = Number.POSITIVE_INFINITY;
  for (let at = 0; at + 1 < steps.length; at++) {
    const distance = (steps[at + 1]?.version ?? 0) - (steps[at]?.version ?? 0);
    if (distance < least) {
      best = at;
      least = distance;
    }
  }
  return best;
}
