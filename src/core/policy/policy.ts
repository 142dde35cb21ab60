import type { Version } from "../event.ts";
import { type Page, type Tick, tickEnd } from "../page.ts";
import type { Position, Progress } from "../stream/scan.ts";

/** What becomes of a stream that cannot keep up. `docs/policies.md` says what each is for. */
export type PolicyKind = "BLOCK" | "DROP_OLDEST" | "DROP_NEWEST" | "LATEST" | "SAMPLE" | "DISCONNECT";

/** What a stream does once it is too far behind. */
export interface Policy {
  readonly kind: PolicyKind;
  /** Settled versions that the stream may have yet to pass before the policy acts. Means nothing to BLOCK. Default 10,000. */
  readonly maxLagEvents: number;
  /** Of so many matching events SAMPLE delivers one; at least 2. Means nothing to the others. Default 10. */
  readonly sampleEvery: number;
}

/** More than most transactions hold, and seconds rather than minutes of most feeds. */
export const DEFAULT_MAX_LAG_EVENTS = 10_000;
/** Of SAMPLE, when nobody says. */
export const DEFAULT_SAMPLE_EVERY = 10;

/** Loses nothing. */
export const BLOCK: Policy = {
  kind: "BLOCK",
  maxLagEvents: DEFAULT_MAX_LAG_EVENTS,
  sampleEvery: DEFAULT_SAMPLE_EVERY,
};

/** The policies that leave events out. */
export type GapReason = Exclude<PolicyKind, "BLOCK" | "DISCONNECT">;

/** Versions of which matching events are left out. */
export interface LeftOut {
  /** Of the last of them. */
  readonly lastVersion: Version;
  /** Matching events; `undefined` when they were not looked at. */
  readonly dropped: number | undefined;
  readonly reason: GapReason;
}

/** What a policy wants done next. */
export type Verdict =
  /** Deliver what follows: nothing after `until`, and only those of a piece that was thinned, when there is one. */
  | { readonly kind: "deliver"; readonly until: Version; readonly kept: ReadonlySet<Version> | undefined }
  /** Say this gap, and go on behind it. */
  | { readonly kind: "jump"; readonly to: Position; readonly leftOut: LeftOut }
  /** Say this gap: what is kept of its versions is delivered next. */
  | { readonly kind: "announce"; readonly leftOut: LeftOut }
  /** Get hold of what follows this version: more is to be known first. */
  | { readonly kind: "look"; readonly after: Version }
  /** Ask again, when others have had their turn. */
  | { readonly kind: "more" };

/** A policy at work on one stream. Asked before everything that the stream takes. */
export interface Course {
  /**
   * The piece of which events were left out, as long as that matters: in its middle there is no boundary, and cursors say
   * which piece it is.
   */
  readonly piece: Thinned | undefined;
  /** `pageAfter` gives a page that holds the version after its argument, if one is at hand. */
  next(progress: Progress, pageAfter: (after: Version) => Page | undefined): Verdict;
}

/** How a piece of history is thinned, up to a version. What is kept after any of its versions follows from these alone. */
export interface Thinned {
  readonly until: Version;
  /** Every so many-th matching event, counted from the last one; 0 for the newest of each key. */
  readonly every: number;
}

/** Versions that are thinned together, at most: the price of one piece, in time, and in memory for as long as it is sent. */
export const MAX_PIECE = 16_384;

/** Whether a piece may reach from one version to another. */
export function isPiece(after: Version, { until }: Thinned): boolean {
  return until > after && until - after <= MAX_PIECE;
}

/** Nothing is left out. */
export const FREE: Verdict = { kind: "deliver", until: Number.POSITIVE_INFINITY, kept: undefined };

/** The end of a tick as a place to be at. */
export function endOf(tick: Tick): Position {
  return { version: tickEnd(tick), tick };
}
