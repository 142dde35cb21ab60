import type { Event } from "../event.ts";
import type { EventsFrame } from "../frame.ts";
import type { GroupDeal } from "./group-deal.ts";
import type { GroupItem } from "./group-item.ts";
import type { GroupLedger } from "./group-ledger.ts";
import type { GroupMember } from "./group-member.ts";

/** Gives members what waits for them, a frame at a time, as much as each may have and takes. */
export class GroupGiving {
  readonly #ledger: GroupLedger;
  readonly #deal: GroupDeal;
  readonly #maxRuns: number;
  /** From then on nobody is given anything either. */
  untilMs = Number.POSITIVE_INFINITY;
  /** Those for whom there may be something to do. */
  readonly #eager = new Set<GroupMember>();
  /** Those that wait for there to be fewer runs. */
  readonly #barred = new Set<GroupMember>();
  #suspended = false;
  #redelivered = 0;
  #inFlight = 0;

  constructor(ledger: GroupLedger, deal: GroupDeal, maxRuns: number) {
    this.#ledger = ledger;
    this.#deal = deal;
    this.#maxRuns = maxRuns;
  }

  /** Nobody is given anything. */
  get suspended(): boolean {
    return this.#suspended;
  }

  set suspended(suspended: boolean) {
    this.#suspended = suspended;
  }

  /** Total. */
  get redelivered(): number {
    return this.#redelivered;
  }

  /** Of all members. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** There may be something to do for the member. */
  look(member: GroupMember): void {
    this.#eager.add(member);
  }

  /** The member has gone. */
  forget(member: GroupMember): void {
    this.#eager.delete(member);
    this.#barred.delete(member);
  }

  /** The member has it no more: call `GroupDeal.landed` for its slot once it is where it belongs. */
  takeFrom(member: GroupMember): void {
    member.inFlight -= 1;
    this.#inFlight -= 1;
  }

  /** A frame for each member that takes one. */
  *give(nowMs: number): Generator<{ readonly member: GroupMember; readonly frame: EventsFrame }> {
    if (this.#suspended || nowMs >= this.untilMs) {
      return;
    }
    for (const member of this.#barred) {
      this.#eager.add(member);
    }
    this.#barred.clear();
    for (const member of this.#eager) {
      this.#eager.delete(member);
      const frame = member.ready ? this.#frame(member, nowMs) : undefined;
      if (frame !== undefined) {
        member.ready = false;
        member.blockedAtMs = nowMs;
        yield { member, frame };
      }
    }
  }

  #frame(member: GroupMember, nowMs: number): EventsFrame | undefined {
    const { maxBatchEvents, maxBatchBytes, measure } = member.terms;
    const most = Math.min(maxBatchEvents, member.room);
    const events: Event[] = [];
    let bytes = 0;
    for (let { next } = member; next !== undefined && events.length < most; next = member.next) {
      if (!this.#mayGo(next)) {
        this.#barred.add(member);
        break;
      }
      const event = deliveredEvent(next);
      const size = event === undefined ? 0 : measure(event);
      if (event === undefined || (events.length > 0 && bytes + size > maxBatchBytes)) {
        break;
      }
      bytes += size;
      events.push(event);
      this.#give(member, next, nowMs);
    }
    const last = events.at(-1);
    if (last === undefined) {
      return undefined;
    }
    this.#ledger.delivered();
    return { kind: "events", events, cursor: member.cursorAt(this.#ledger.epoch, last.version), complete: false };
  }

  #give(member: GroupMember, item: GroupItem, nowMs: number): void {
    member.take();
    member.give(item, nowMs);
    this.#inFlight += 1;
    this.#deal.slot(item).inFlight += 1;
    if (item.deliveries > 1) {
      this.#redelivered += 1;
    }
    if (!item.replay) {
      this.#ledger.window.touch(item);
    }
  }

  /** With too many runs the lowest may go, and what has gone before: that makes no more of them. */
  #mayGo(item: GroupItem): boolean {
    const { window } = this.#ledger;
    return window.runs < this.#maxRuns || item.deliveries > 0 || item.replay || item === window.first;
  }
}

function deliveredEvent({ event, deliveries }: GroupItem): Event | undefined {
  return event === undefined || deliveries === 0 ? event : { ...event, attempt: deliveries + 1 };
}
