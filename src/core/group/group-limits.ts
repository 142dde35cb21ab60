/** What one group may hold. At a bound nothing new is given out, and the group says which it is; nothing is dropped. */
export interface GroupLimits {
  /** Most events behind the position that are read: settled ones, those in flight, those that wait. Default 100,000. */
  readonly maxWindowEvents: number;
  /** Most bytes of those that are not settled. Default 16 MiB. */
  readonly maxWindowBytes: number;
  /** Most versions between the position and what is read, whether they are the group's or not. Default 10,000,000. */
  readonly maxWindowVersions: number;
  /** Most events that wait to be given out. Default 16,384. */
  readonly maxWaiting: number;
  /** Most runs of acknowledged events behind the position: each costs some bytes in every write. Default 4,096. */
  readonly maxRuns: number;
  /** Most dead letters, parked ones among them. Default 100,000. */
  readonly maxDeadLetters: number;
  /** Most dead letters that have yet to be written: they are in memory. Default 10,000. */
  readonly maxUnwritten: number;
  /** Most bytes of those: one statement writes them. Default 16 MiB. */
  readonly maxUnwrittenBytes: number;
}

/** What a group may hold unless told otherwise. */
export const DEFAULT_GROUP_LIMITS: GroupLimits = {
  maxWindowEvents: 100_000,
  maxWindowBytes: 16 * 1024 * 1024,
  maxWindowVersions: 10_000_000,
  maxWaiting: 16_384,
  maxRuns: 4_096,
  maxDeadLetters: 100_000,
  maxUnwritten: 10_000,
  maxUnwrittenBytes: 16 * 1024 * 1024,
};

/**
 * Why nothing new is given out: nobody is there · too many dead letters · what was acknowledged lies too far, or in too many
 * pieces, behind what was not · a barrier waits for what is before it, or is not acknowledged · its hold on the subscription has
 * not been renewed · its members have as much as they may.
 */
export type GroupWait = "NO_MEMBERS" | "DEAD_LETTERS" | "WINDOW" | "RUNS" | "BARRIER" | "UNRENEWED" | "MEMBERS_FULL";
