import type { Cursor } from "../cursor.ts";
import type { Version } from "../event.ts";
import type { ClosingReason, EventsFrame } from "../frame.ts";
import type { GroupTerms, Rejection } from "../subscription/subscriptions.ts";
import type { GroupRecord } from "./group-ledger.ts";
import type { GroupLimits } from "./group-limits.ts";
import type { GroupMember } from "./group-member.ts";

/** What a group is, and what it goes on from. */
export interface GroupStart extends GroupRecord {
  readonly terms: GroupTerms;
  /** Those of members are above it. */
  readonly generation: number;
  readonly limits?: Partial<GroupLimits> | undefined;
}

/** What the host is to do, in this order. */
export type GroupEffect =
  | { readonly kind: "frame"; readonly member: GroupMember; readonly frame: EventsFrame }
  | { readonly kind: "close"; readonly member: GroupMember; readonly reason: ClosingReason };

/** What a member says of what it was given. */
export interface GroupAcknowledgement {
  /** Everything up to here. */
  readonly cursor: Pick<Cursor, "version" | "delivery"> | undefined;
  readonly versions: readonly Version[];
  readonly rejections: readonly Rejection[];
}
