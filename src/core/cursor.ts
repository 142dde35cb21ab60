import type { Version } from "./event.ts";

/**
 * "After this version of this epoch", or "in the middle of a snapshot taken at this version". Immutable; ordered by
 * version within an epoch. Its text form is opaque to clients.
 */
export interface Cursor {
  /** UUID. */
  readonly epoch: string;
  readonly version: Version;
  /** Of the tick that settled `version`; see `Tick.fingerprint`. */
  readonly fingerprint: number;
  /** The snapshot at `version` is not complete: to resume is to take it again. */
  readonly snapshot: boolean;
}
