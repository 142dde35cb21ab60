import type { Cursor } from "../cursor.ts";
import type { Event, Version } from "../event.ts";
import type { GroupTerms } from "../subscription/subscriptions.ts";
import { GroupDeal } from "./group-deal.ts";
import type { GroupAcknowledgement, GroupEffect, GroupStart } from "./group-exchange.ts";
import { ENDED, type Failure, failing, failuresOf } from "./group-failure.ts";
import { GroupGiving } from "./group-giving.ts";
import { GroupItem, orderKeyOf } from "./group-item.ts";
import { GroupLedger } from "./group-ledger.ts";
import { DEFAULT_GROUP_LIMITS, type GroupWait } from "./group-limits.ts";
import { GroupMember, type MemberTerms } from "./group-member.ts";
import { GroupRoom } from "./group-room.ts";

/**
 * The members of a group, and who of them is given what: a machine without I/O, timers or a clock of its own. Whoever drives it
 * tells it what happens, does what `effects` says, and writes what `ledger` gives. It never waits for a write: a member is
 * answered when its word is durable, and gets more before.
 *
 * The order of a key is strict because of three things together. Keys share slots, and a slot's events go to its owner alone,
 * by version. A slot changes hands only when nothing of it is in flight. And when an event is taken back, so are all later ones
 * of its key: they wait behind it.
 *
 * What it costs: each event is one object, in the window until everything before it is settled, and in the list of whoever it
 * waits for, or has it. What happens to every event is O(1); what is rare (a member comes or goes, something is taken back)
 * is linear in what waits. The alternative, a queue for each key, makes keys cost memory, and each event a look into a map; it
 * is not needed, since later events of a key are found among what one member has.
 */
export class GroupMachine {
  /** What has become of its events. */
  readonly ledger: GroupLedger;
  readonly #terms: GroupTerms;
  readonly #parks: boolean;
  readonly #room: GroupRoom;
  readonly #deal: GroupDeal;
  readonly #giving: GroupGiving;
  readonly #members = new Map<number, GroupMember>();
  readonly #named = new Map<string, GroupMember>();
  /** One that has gone, as long as something may wait for it. */
  #leaving: GroupMember | undefined;
  #generation: number;
  #effects: GroupEffect[] = [];

  constructor({ terms, generation, limits, ...record }: GroupStart) {
    this.#terms = terms;
    this.#parks = terms.deadLetterPolicy === "PARK";
    this.#generation = generation;
    const ledger = new GroupLedger(record);
    this.ledger = ledger;
    const bounds = { ...DEFAULT_GROUP_LIMITS, ...limits };
    this.#room = new GroupRoom(bounds, {
      ledger,
      deal: () => this.#deal,
      giving: () => this.#giving,
      members: () => this.#members.size,
    });
    this.#deal = new GroupDeal({
      window: ledger.window,
      parks: (orderKey, { version }) => this.#parks && ledger.letters.parks(orderKey, version),
      giveUp: (item) => ledger.giveUp(item, ENDED.parked),
      held: ({ version }) => this.#room.holds(version),
      eager: (member) => this.#giving.look(member),
    });
    this.#giving = new GroupGiving(ledger, this.#deal, bounds.maxRuns);
  }

  /** Those that are in, with or without a stream, by generation. */
  get members(): ReadonlyMap<number, GroupMember> {
    return this.#members;
  }

  /** Total. */
  get redelivered(): number {
    return this.#giving.redelivered;
  }

  get inFlight(): number {
    return this.#giving.inFlight;
  }

  /** Whether it takes more of the stream. */
  get wants(): boolean {
    return this.#room.free;
  }

  /** Why nothing new is given out, when that is not just because there is nothing. */
  get wait(): GroupWait | undefined {
    return this.#room.wait;
  }

  /** Of what is the member's, as far as it is known to be now, everything up to here has been given to it. */
  reach({ next }: GroupMember): Version {
    const { frontier } = this.#deal;
    return next === undefined ? frontier : Math.min(frontier, next.version - 1);
  }

  /** What is to be done. Done at once, or never. */
  effects(): readonly GroupEffect[] {
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  /** Takes a member in; its stream takes frames once that is said. An older one of its name goes. */
  join(name: string, terms: MemberTerms, nowMs: number): GroupMember {
    const older = this.#named.get(name);
    if (older !== undefined) {
      this.#effects.push({ kind: "close", member: older, reason: "TAKEN_OVER" });
      this.#remove(older, ENDED.replaced);
    }
    this.#generation += 1;
    const member = new GroupMember(this.#generation, name, terms, nowMs);
    this.#members.set(member.generation, member);
    this.#named.set(name, member);
    this.#rebalance();
    this.#go(nowMs);
    return member;
  }

  /** The member's stream has ended, and it does not come in pieces. What it has goes to others. */
  leave(member: GroupMember, nowMs: number): void {
    if (this.#members.has(member.generation)) {
      this.#remove(member, ENDED.left);
      this.#rebalance();
      this.#go(nowMs);
    }
  }

  /**
   * The member's stream has ended, and what the member has is still its own: it comes in pieces, or it was told to go, and then
   * is not given anything more.
   */
  detach(member: GroupMember, nowMs: number, comesAgain = true): void {
    member.attached = false;
    member.ready = false;
    member.blockedAtMs = undefined;
    member.heardAtMs = nowMs;
    if (!comesAgain) {
      this.#stall(member, "leaving");
      this.#go(nowMs);
    }
  }

  /** A member that comes in pieces has a stream again: what it has and did not acknowledge comes first. */
  attach(member: GroupMember, terms: MemberTerms, nowMs: number): void {
    member.terms = terms;
    member.attached = true;
    member.ready = false;
    member.heardAtMs = nowMs;
    this.#fail(member, failing(member, ENDED.cameAgain));
    this.#recover(member);
    this.#go(nowMs);
  }

  /** The member's stream takes a frame. */
  ready(member: GroupMember, nowMs: number): void {
    if (this.#members.has(member.generation)) {
      member.ready = true;
      member.blockedAtMs = undefined;
      if (member.stalled === "blocked") {
        this.#recover(member);
      }
      this.#giving.look(member);
      this.#go(nowMs);
    }
  }

  /** The member's stream took something else, and takes no more for now. */
  busy(member: GroupMember, nowMs: number): void {
    if (member.ready) {
      member.ready = false;
      member.blockedAtMs = nowMs;
    }
  }

  /** The hold on the subscription may be over: nothing is given out until it is known to go on. */
  suspend(suspended: boolean, nowMs: number): void {
    this.#giving.suspended = suspended;
    this.#go(nowMs);
  }

  /**
   * The hold is known to go on until then. What a process says that slept longer is a matter of which of its timers rings first:
   * nothing is given out after that moment, whoever asks.
   */
  heldUntil(atMs: number): void {
    this.#giving.untilMs = atMs;
  }

  /** Events of the stream, in order. */
  events(events: readonly Event[], cursor: Cursor, nowMs: number): void {
    for (const event of events) {
      const item = this.ledger.take(event);
      if (item.failures >= this.#terms.maxAttempts) {
        this.ledger.giveUp(item, ENDED.holderEnded);
      } else if (item.state !== "settled") {
        this.#deal.add(item);
      }
    }
    this.passed(cursor, nowMs);
  }

  /** The stream has come to here: what lies between is not the group's. */
  passed(cursor: Cursor, nowMs: number): void {
    this.ledger.passed(cursor);
    this.#go(nowMs);
  }

  /** How many were the member's to speak of; `undefined` when the generation is not a member's any more. */
  acknowledge(generation: number, said: GroupAcknowledgement, nowMs: number): number | undefined {
    const member = this.#members.get(generation);
    if (member === undefined) {
      return undefined;
    }
    member.heardAtMs = nowMs;
    // First: the cursor of the same call does not cover what was rejected, nor what is taken back with it.
    const failures = new Map<GroupItem, Failure>();
    for (const { version, reason, giveUp } of said.rejections) {
      const item = this.ledger.find(version);
      if (item !== undefined && member.has(item)) {
        failures.set(item, { item, reason, giveUp });
      }
    }
    this.#fail(member, [...failures.values()], true);
    let accepted = failures.size + (said.cursor === undefined ? 0 : this.#acknowledgeUpTo(member, said.cursor));
    for (const version of said.versions) {
      accepted += this.#acknowledge(member, this.ledger.find(version));
    }
    this.#recover(member);
    this.#giving.look(member);
    this.#go(nowMs);
    return accepted;
  }

  #acknowledgeUpTo(member: GroupMember, { version, delivery }: Pick<Cursor, "version" | "delivery">): number {
    let accepted = 0;
    if (delivery === undefined) {
      // No frame of this group carried it: it tells nothing of what came out of order.
      for (const item of member.having((given) => given.inOrder && given.version <= version)) {
        accepted += this.#acknowledge(member, item);
      }
      return accepted;
    }
    for (let { oldest } = member; oldest !== undefined && oldest.seq <= delivery; oldest = member.oldest) {
      accepted += this.#acknowledge(member, oldest);
    }
    return accepted;
  }

  #acknowledge(member: GroupMember, item: GroupItem | undefined): number {
    if (item === undefined || !member.has(item)) {
      return 0;
    }
    this.#giving.takeFrom(member);
    this.ledger.acknowledge(item);
    this.#deal.landed(this.#deal.slot(item));
    return 1;
  }

  /** Deliveries of a member that came to nothing. What is not given up is taken back, with what its key has behind it. */
  #fail(member: GroupMember, failures: readonly Failure[], said = false): void {
    if (failures.length === 0) {
      return;
    }
    const { maxAttempts } = this.#terms;
    const { dead, back } = failuresOf(failures, member, { maxAttempts, parks: this.#parks, said });
    const landed = [...dead.keys(), ...back];
    for (const item of landed) {
      item.state = "waiting";
      this.#giving.takeFrom(member);
    }
    this.ledger.delivered();
    // In its place before its slot counts it as landed: the slot may then move, with all that waits.
    this.#deal.takeBack(back);
    for (const item of landed) {
      this.#deal.landed(this.#deal.slot(item));
    }
    this.#bury(dead);
  }

  /** They become dead letters, and so does what waits behind them. */
  #bury(dead: ReadonlyMap<GroupItem, string>): void {
    const from = new Map<string, Version>();
    for (const [item, reason] of dead) {
      const orderKey = item.event === undefined ? "" : orderKeyOf(item.event);
      if (orderKey !== "" && this.#parks) {
        from.set(orderKey, Math.min(item.version, from.get(orderKey) ?? item.version));
      }
      this.ledger.giveUp(item, reason);
    }
    if (from.size > 0) {
      const flows = ({ event, version }: GroupItem) =>
        event === undefined || version < (from.get(orderKeyOf(event)) ?? Number.POSITIVE_INFINITY);
      for (const item of this.#deal.sift(flows, this.#holders())) {
        this.ledger.giveUp(item, ENDED.parked);
      }
    }
  }

  /** All for whom something may wait. */
  #holders(): readonly GroupMember[] {
    const members = [...this.#members.values()];
    return this.#leaving === undefined ? members : [...members, this.#leaving];
  }

  /**
   * Dead letters are delivered again: those that are known, are not already, and do not lie beyond where the group has come to
   * since it was taken up, for what lies before them would come after them. By version. Answers which.
   */
  replay(letters: readonly { readonly event: Event; readonly attempts: number }[], nowMs: number): readonly Version[] {
    const known = this.ledger.letters;
    const replaying: Version[] = [];
    for (const { event, attempts } of letters) {
      const { version } = event;
      if (known.has(version) && !known.replaying.has(version) && version <= this.#deal.frontier) {
        // What was tried before does not count: it shall be tried as often as a new one.
        const item = new GroupItem(event, attempts, attempts, true);
        known.replay(item);
        this.#deal.assign(item);
        replaying.push(version);
      }
    }
    this.#go(nowMs);
    return replaying;
  }

  /** Dead letters are not there any more. */
  discard(versions: Iterable<Version>, nowMs: number): void {
    for (const version of versions) {
      const item = this.ledger.letters.replaying.get(version);
      this.ledger.letters.forget(version);
      if (item !== undefined) {
        this.#drop(item);
      }
    }
    this.#go(nowMs);
  }

  #drop(item: GroupItem): void {
    const { member } = item;
    if (member?.has(item) === true) {
      this.#giving.takeFrom(member);
      item.settle();
      this.#deal.landed(this.#deal.slot(item));
    } else {
      this.#deal.sift((other) => other !== item, this.#holders());
      item.settle();
    }
  }

  /** Time has gone by. */
  tick(nowMs: number): void {
    const { ackDeadlineMs } = this.#terms;
    for (const member of [...this.#members.values()]) {
      const isDone = member.stalled === "leaving" && member.inFlight === 0;
      if (!member.attached && (isDone || nowMs - member.heardAtMs >= ackDeadlineMs)) {
        this.#remove(member, ENDED.stayedAway);
        this.#rebalance();
        continue;
      }
      this.#expire(member, nowMs);
      if (member.waiting > 0 && nowMs - (member.blockedAtMs ?? nowMs) >= ackDeadlineMs) {
        this.#stall(member, "blocked");
      }
    }
    this.#go(nowMs);
  }

  #expire(member: GroupMember, nowMs: number): void {
    const { ackDeadlineMs } = this.#terms;
    const first = member.oldest?.deliveredAtMs;
    if (first === undefined || nowMs - first < ackDeadlineMs) {
      return;
    }
    const reason = `It was not acknowledged within ${ackDeadlineMs / 1000} s.`;
    this.#fail(
      member,
      failing(member, reason, ({ deliveredAtMs }) => nowMs - deliveredAtMs >= ackDeadlineMs),
    );
    if (member.heardAtMs <= first) {
      this.#stall(member, "silent");
    }
  }

  /** When `tick` has something to do, if nothing else happens before; infinity for never. */
  nextDueMs(): number {
    const { ackDeadlineMs } = this.#terms;
    let since = Number.POSITIVE_INFINITY;
    for (const member of this.#members.values()) {
      const away = member.attached ? since : member.heardAtMs;
      const blocked = member.waiting > 0 && member.stalled === undefined ? member.blockedAtMs : undefined;
      since = Math.min(since, away, blocked ?? since, member.oldest?.deliveredAtMs ?? since);
    }
    return since + ackDeadlineMs;
  }

  #stall(member: GroupMember, how: GroupMember["stalled"]): void {
    if (member.stalled === undefined || how === "leaving") {
      member.stalled = how;
      this.#rebalance();
    }
  }

  #recover(member: GroupMember): void {
    if (member.stalled !== undefined && (member.attached || member.stalled !== "leaving")) {
      member.stalled = undefined;
      this.#rebalance();
    }
  }

  /** Call `#rebalance` next. */
  #remove(member: GroupMember, reason: string): void {
    this.#members.delete(member.generation);
    this.#named.delete(member.name);
    member.ready = false;
    this.#leaving = member;
    this.#fail(member, failing(member, reason));
  }

  #rebalance(): void {
    const members = [...this.#members.values()];
    const lively = members.filter(({ stalled }) => stalled === undefined);
    this.#deal.rebalance(lively.length > 0 ? lively : members, this.#holders());
    if (this.#leaving !== undefined) {
      this.#giving.forget(this.#leaving);
      this.#leaving = undefined;
    }
  }

  /** The writing of what `ledger.write` gave has ended, well or not. */
  written(done: boolean, nowMs: number): void {
    this.ledger.written(done);
    this.#go(nowMs);
  }

  #go(nowMs: number): void {
    this.#deal.deal();
    for (const given of this.#giving.give(nowMs)) {
      this.#effects.push({ kind: "frame", ...given });
    }
  }
}
