import type { Lane } from "../lane/lane.ts";
import type { Policy, Thinned } from "../policy/policy.ts";
import type { StreamLife } from "./stream-life.ts";

/** What a stream was asked for. */
export interface StreamOptions {
  readonly lane: Lane;
  readonly life: StreamLife;
  /** Default: BLOCK. */
  readonly policy?: Policy | undefined;
  /** Default: as many as there are. */
  readonly maxEventsPerSecond?: number | undefined;
  readonly checkpointIntervalMs: number;
  /** Whether it says a checkpoint at the end of every tick, also of those that hold nothing for it. Default false. */
  readonly checkpointEveryTick?: boolean | undefined;
  /** What was left out around its start, and said so, in an earlier call. */
  readonly thinned?: Thinned | undefined;
  /** What it is called from outside. Default: nothing. */
  readonly streamId?: string | undefined;
}
