import type { Version } from "../../core/event.ts";
import { type Lineage, sharedVersion } from "../../core/lineage.ts";
import { placeInVersion } from "../../core/subscription/position-place.ts";
import type { StoredPosition } from "../../core/subscription/subscription-store.ts";

/** What a position means in the epoch in force: what lies above a fork was forgotten with it. `undefined` for strangers. */
export function versionInForce(position: StoredPosition, inForce: Lineage): Version | undefined {
  const shared = sharedVersion(inForce, position.epoch);
  return shared === undefined ? undefined : Math.min(position.version, shared);
}

/**
 * Whether a position takes the place of the one that is kept: never backwards. Those of two epochs are compared by what they
 * mean in the epoch in force, and one that means nothing there never takes the place of one that does.
 */
export function isForward(told: StoredPosition, kept: StoredPosition, inForce: Lineage): boolean {
  if (told.epoch === kept.epoch) {
    const sameVersion = told.version === kept.version;
    return sameVersion ? placeInVersion(told) >= placeInVersion(kept) : told.version > kept.version;
  }
  const meant = versionInForce(told, inForce);
  if (meant === undefined || meant < told.version) {
    return false;
  }
  const before = versionInForce(kept, inForce) ?? -1;
  return meant > before || (meant === before && age(told, inForce) < age(kept, inForce));
}

/** 0 for the epoch in force, 1 for its parent. */
function age({ epoch }: StoredPosition, { epoch: inForce, lineage }: Lineage): number {
  const index = lineage.findIndex((ancestor) => ancestor.epoch === epoch);
  return epoch === inForce ? 0 : index < 0 ? Number.POSITIVE_INFINITY : index + 1;
}
