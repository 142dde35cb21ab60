import type { Version } from "../event.ts";
import type { GroupDeal } from "./group-deal.ts";
import type { GroupGiving } from "./group-giving.ts";
import type { GroupLedger } from "./group-ledger.ts";
import type { GroupLimits, GroupWait } from "./group-limits.ts";

/** What a group looks at to see whether there is room. */
export interface RoomView {
  readonly ledger: GroupLedger;
  readonly deal: () => GroupDeal;
  readonly giving: () => GroupGiving;
  readonly members: () => number;
}

/** Whether a group takes more, and why not. */
export class GroupRoom {
  readonly #limits: GroupLimits;
  readonly #view: RoomView;

  constructor(limits: GroupLimits, view: RoomView) {
    this.#limits = limits;
    this.#view = view;
  }

  /** For more of the stream. */
  get free(): boolean {
    const { maxWindowEvents, maxWindowBytes, maxWindowVersions } = this.#limits;
    const { window } = this.#view.ledger;
    return (
      this.#view.members() > 0 &&
      !this.holds(window.passed + 1) &&
      !this.#full &&
      window.size < maxWindowEvents &&
      window.bytes < maxWindowBytes &&
      window.passed - window.settledUpTo < maxWindowVersions
    );
  }

  /**
   * This may not be dealt out, for it might become one dead letter too many. What lies before one has been dealt out before, and
   * must be again after a restart: else the position might never come to where dead letters can be replayed.
   */
  holds(version: Version): boolean {
    const { maxDeadLetters, maxUnwritten, maxUnwrittenBytes } = this.#limits;
    const { count, unwritten, unwrittenBytes, highest } = this.#view.ledger.letters;
    const isFull = count >= maxDeadLetters || unwritten >= maxUnwritten || unwrittenBytes >= maxUnwrittenBytes;
    return isFull && version > highest;
  }

  /** Why nothing new is given out, when that is not just because there is nothing. */
  get wait(): GroupWait | undefined {
    const { ledger, members, giving, deal } = this.#view;
    if (members() === 0) {
      return "NO_MEMBERS";
    }
    if (giving().suspended) {
      return "UNRENEWED";
    }
    if (this.holds(deal().frontier + 1)) {
      return "DEAD_LETTERS";
    }
    if (ledger.window.runs >= this.#limits.maxRuns) {
      return "RUNS";
    }
    if (deal().barred) {
      return "BARRIER";
    }
    return this.free ? undefined : this.#full ? "MEMBERS_FULL" : "WINDOW";
  }

  get #full(): boolean {
    return this.#view.ledger.window.unsettled - this.#view.giving().inFlight >= this.#limits.maxWaiting;
  }
}
