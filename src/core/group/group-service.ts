import { pause } from "../back-off.ts";
import { goingDown } from "../errors.ts";
import type { Version } from "../event.ts";
import type { OpenStream } from "../feed.ts";
import type { ClosingReason } from "../frame.ts";
import { AlarmClock } from "../stream/alarm-clock.ts";
import type { GroupStats, Groups, GroupsOptions } from "../subscription/group-consumers.ts";
import type {
  DeadLetter,
  DeadLetterFilter,
  SubscriptionRecord,
  SubscriptionState,
} from "../subscription/subscription-store.ts";
import type { Acknowledged, Acknowledgement, Consumer } from "../subscription/subscriptions.ts";
import { allDeadLetters, type ClaimContext, LEASE_MS, takeUp, type Whereabouts, whereIs } from "./group-claims.ts";
import { heldElsewhere, memberGone, nobodyToReplayTo, tooManyMembersHere } from "./group-failures.ts";
import type { ForwardedMember, GroupForwarding } from "./group-forwarding.ts";
import { GroupHost, type GroupHostContext, isOfClaim } from "./group-host.ts";
import { GroupKeeper } from "./group-keeper.ts";
import type { GroupLimits, GroupWait } from "./group-limits.ts";
import { GroupWriter } from "./group-writer.ts";

/** What groups are made of. */
export interface GroupServiceOptions extends Omit<GroupsOptions, "report"> {
  /** Told of failures that nobody else is told of. Default: nobody is. */
  readonly report?: GroupsOptions["report"] | undefined;
  /** The way to groups that other replicas hold. Default: there is none. */
  readonly forwarding?: GroupForwarding | undefined;
  readonly limits?: Partial<GroupLimits> | undefined;
  /** As `FeedOptions.maxStreamAgeMs`. Default 0: any age. */
  readonly maxStreamAgeMs?: number | undefined;
  /** Most members of all groups that are held here. Default 10,000. */
  readonly maxMembers?: number | undefined;
}

/** The groups of a feed. Start them after it, stop them before it. */
export function createGroups(options: GroupServiceOptions): Groups {
  return new GroupService({ ...options, report: options.report ?? (() => undefined) });
}

/** Who has a group that is not here is asked of the database again after so long. */
const REMEMBER_MS = 2_000;
const DEFAULT_MAX_MEMBERS = 10_000;
/** Dead letters of one read, for those that are delivered again. */
const REPLAY_PAGE = 200;
/** A server that goes down is gone within about this, and another one may be there. */
const DRAIN_RETRY_MS = 1_000;
const DRAIN_LOOK_MS = 10;

type ResolvedOptions = GroupServiceOptions & { readonly report: GroupsOptions["report"] };

type Elsewhere = Extract<Whereabouts, { readonly kind: "elsewhere" }>;

/**
 * Holds groups: claims those that somebody asks for here, passes on what belongs to another replica, and gives up what nobody
 * uses. One replica at a time has a group; see `docs/decisions/0011-groups.md`.
 */
class GroupService implements Groups {
  readonly #options: ResolvedOptions;
  readonly #stopping = new AbortController();
  readonly #hosts = new Map<string, GroupHost>();
  readonly #taking = new Map<string, Promise<GroupHost | Elsewhere>>();
  readonly #asking = new Map<string, Promise<Elsewhere | undefined>>();
  readonly #elsewhere = new Map<string, Elsewhere & { readonly untilMs: number }>();
  readonly #ending = new Set<Promise<void>>();
  readonly #checking = new Set<string>();
  readonly #writer: GroupWriter;
  readonly #keeper: GroupKeeper;
  readonly #hosting: GroupHostContext;
  readonly #claiming: ClaimContext;
  readonly #past = { acknowledged: 0, redelivered: 0, deadLetters: 0 };
  #fenced = 0;
  #forgetChanges: (() => void) | undefined;

  constructor(options: ResolvedOptions) {
    this.#options = options;
    const { signal } = this.#stopping;
    const { feed, clock, timers, store, replica, url, limits, maxStreamAgeMs = 0 } = options;
    this.#writer = new GroupWriter({ ...options, signal, lost: (host) => void this.#lost(host) });
    this.#hosting = {
      feed,
      clock,
      alarms: new AlarmClock(clock, timers),
      maxStreamAgeMs,
      write: (host, soon) => this.#writer.add(host, soon),
      ended: (host, reason) => this.#ended(host, reason),
    };
    this.#claiming = { store, feed, clock, claimant: { replica, url, leaseMs: LEASE_MS }, limits, signal };
    const audit = (host: GroupHost) => this.discarded(host.id);
    const lost = (host: GroupHost) => void this.#lost(host);
    const { forwarding } = options;
    this.#keeper = new GroupKeeper({ ...options, forwarding, signal, hosts: this.#hosts, lost, audit });
  }

  async start(): Promise<void> {
    this.#forgetChanges = this.#options.store.onChange((id) => this.#changed(id));
  }

  async stop(): Promise<void> {
    this.#forgetChanges?.();
    this.#keeper.stop();
    this.#options.forwarding?.drain(DRAIN_RETRY_MS);
    await Promise.allSettled(this.#taking.values());
    for (const host of [...this.#hosts.values()]) {
      host.drain(DRAIN_RETRY_MS);
      host.close("DRAINING", DRAIN_RETRY_MS);
    }
    await Promise.allSettled(this.#ending);
    this.#stopping.abort(goingDown());
    await this.#writer.stop();
  }

  async open(consumer: Consumer, record: SubscriptionRecord, signal: AbortSignal): Promise<OpenStream> {
    const terms = consumer.terms(record);
    const where = await unless(signal, this.#find(record, consumer.terms));
    if (where instanceof GroupHost) {
      this.#assertRoom();
      return where.join(consumer, terms);
    }
    const { id, member, inPieces } = consumer;
    const forwarded = { id, member, inPieces, generation: undefined, request: terms.request };
    return await this.#passStreamOn(id, where, forwarded, signal);
  }

  async #passStreamOn(id: string, where: Elsewhere, member: ForwardedMember, signal: AbortSignal): Promise<OpenStream> {
    const stream = await this.#passOn(id, where, (forwarding, url) => forwarding.open(url, member, signal));
    this.#keeper.look();
    return stream;
  }

  #assertRoom(): void {
    const { maxMembers = DEFAULT_MAX_MEMBERS } = this.#options;
    let members = 0;
    for (const { machine } of this.#hosts.values()) {
      members += machine.members.size;
    }
    if (members >= maxMembers) {
      throw tooManyMembersHere(members);
    }
  }

  async reopen(
    consumer: Consumer & { readonly generation: number },
    record: SubscriptionRecord,
    signal: AbortSignal,
  ): Promise<OpenStream> {
    const { id, member, generation } = consumer;
    const terms = consumer.terms(record);
    const where = await this.#speakersGroup(generation, record, signal);
    if (where instanceof GroupHost) {
      return this.#counting(() => where.rejoin(generation, terms));
    }
    if (where === undefined) {
      throw this.#countFenced(memberGone(id, generation));
    }
    const forwarded = { id, member, inPieces: true, generation, request: terms.request };
    return await this.#passStreamOn(id, where, forwarded, signal);
  }

  async acknowledge(
    acknowledgement: Acknowledgement,
    record: SubscriptionRecord,
    signal: AbortSignal,
  ): Promise<Acknowledged> {
    const { id, generation } = acknowledgement;
    const where = await this.#speakersGroup(generation, record, signal);
    if (where instanceof GroupHost) {
      if (!where.machine.members.has(generation)) {
        throw this.#countFenced(memberGone(id, generation));
      }
      const { position, accepted } = await unless(signal, where.acknowledge(acknowledgement));
      return { cursor: position.cursor, version: position.version, accepted };
    }
    if (where === undefined) {
      throw this.#countFenced(memberGone(id, generation));
    }
    return await this.#passOn(id, where, (forwarding, url) => forwarding.acknowledge(url, acknowledgement, signal));
  }

  async replayDeadLetters(record: SubscriptionRecord, filter: DeadLetterFilter, limit: number, signal: AbortSignal) {
    const { id } = record;
    const where = await this.#ask(record, signal);
    if (where === undefined || (where instanceof GroupHost && where.machine.members.size === 0)) {
      throw nobodyToReplayTo(id);
    }
    return where instanceof GroupHost
      ? await this.#replay(where, filter, limit, signal)
      : await this.#passOn(id, where, (to, url) => to.replayDeadLetters(url, id, filter, limit, signal));
  }

  async #replay(host: GroupHost, filter: DeadLetterFilter, limit: number, signal: AbortSignal) {
    const { letters } = host.machine.ledger;
    await unless(signal, host.durable());
    let replaying = 0;
    let after: Version | undefined;
    for (let more = true; more && replaying < limit && !host.hasEnded; ) {
      const page = await this.#options.store.deadLetters(host.id, filter, { limit: REPLAY_PAGE, after }, signal);
      const fresh: readonly DeadLetter[] = page.items.filter(({ version }) => !letters.replaying.has(version));
      replaying += host.replay(fresh.slice(0, limit - replaying));
      after = page.items.at(-1)?.version;
      more = page.more && after !== undefined;
    }
    return { replaying, remaining: letters.count - letters.replaying.size };
  }

  replaying(id: string): ReadonlySet<Version> {
    return new Set(this.#hosts.get(id)?.machine.ledger.letters.replaying.keys());
  }

  discarded(id: string): void {
    const host = this.#hosts.get(id);
    if (host !== undefined && host.machine.ledger.letters.count > 0 && !this.#checking.has(id)) {
      this.#checking.add(id);
      void this.#check(host).finally(() => this.#checking.delete(id));
    }
  }

  /** Which of the dead letters that the group knows are there no more. */
  async #check(host: GroupHost): Promise<void> {
    const { letters } = host.machine.ledger;
    const known = [...letters.versions];
    try {
      await host.durable();
      const { signal } = this.#stopping;
      const { total } = await this.#options.store.deadLetters(host.id, {}, { limit: 1, after: undefined }, signal);
      if (total >= known.length) {
        return;
      }
      const there = new Set<Version>();
      for (const { version } of await allDeadLetters(host.id, this.#options.store, signal)) {
        there.add(version);
      }
      host.discard(known.filter((version) => !there.has(version) && letters.has(version)));
    } catch (error) {
      this.#options.report(`Which dead letters of group "${host.id}" are left could not be read.`, error);
    }
  }

  #changed(id: string | undefined): void {
    for (const held of id === undefined ? [...this.#hosts.keys()] : [id]) {
      this.#elsewhere.delete(held);
      this.discarded(held);
    }
  }

  async drain(graceMs: number): Promise<void> {
    const { forwarding, clock, timers } = this.#options;
    this.#keeper.drain();
    const untilMs = clock.monotonic() + graceMs;
    const { signal } = this.#stopping;
    while ((forwarding?.streams ?? 0) > 0 && clock.monotonic() < untilMs && !signal.aborted) {
      await pause(DRAIN_LOOK_MS, timers, signal).catch(() => undefined);
    }
  }

  held(): readonly string[] {
    return [...this.#hosts.keys(), ...this.#taking.keys()];
  }

  observe(id: string, state: SubscriptionState | undefined): void {
    this.#hosts.get(id)?.observe(state);
  }

  stats(): GroupStats {
    const waiting: Partial<Record<GroupWait, number>> = {};
    const stats = { ...this.#past, groups: this.#hosts.size, members: 0, inFlight: 0, fenced: this.#fenced, waiting };
    for (const { machine } of this.#hosts.values()) {
      const { acknowledged, deadLetters } = machine.ledger;
      const { wait } = machine;
      if (wait !== undefined) {
        waiting[wait] = (waiting[wait] ?? 0) + 1;
      }
      stats.members += machine.members.size;
      stats.inFlight += machine.inFlight;
      stats.acknowledged += acknowledged;
      stats.redelivered += machine.redelivered;
      stats.deadLetters += deadLetters;
    }
    return stats;
  }

  /** The group here, taken up if nobody has it; or where it is. */
  async #find(record: SubscriptionRecord, termsOf: Consumer["terms"]): Promise<GroupHost | Elsewhere> {
    const { id } = record;
    const host = await this.#hostOf(record);
    if (host !== undefined) {
      return host;
    }
    const taking = this.#taking.get(id) ?? this.#take(id, termsOf).finally(() => this.#taking.delete(id));
    this.#taking.set(id, taking);
    return await taking;
  }

  async #take(id: string, termsOf: Consumer["terms"]): Promise<GroupHost | Elsewhere> {
    this.#stopping.signal.throwIfAborted();
    // Whoever gives the group up, or looks who has it, claims it for that, and must not do so after this.
    await Promise.allSettled([...this.#ending, this.#asking.get(id)]);
    const where = await takeUp(id, termsOf, this.#claiming);
    if (where.kind === "elsewhere") {
      return this.#remember(id, where);
    }
    const host = new GroupHost(where.group, this.#hosting);
    host.renewed(where.askedAtMs);
    if (!host.hasEnded) {
      this.#hosts.set(id, host);
      this.#keeper.look();
    }
    return host;
  }

  /** As `#ask`, for what a member of this generation says: of another claim there is none any more, wherever the group is. */
  async #speakersGroup(generation: number, record: SubscriptionRecord, signal: AbortSignal) {
    if (isOfClaim(generation, record.generation)) {
      return await this.#ask(record, signal);
    }
    void this.#hostOf(record);
    return undefined;
  }

  /** The group here, or where it is; `undefined` when nobody has it, which is then so still. */
  async #ask(record: SubscriptionRecord, signal: AbortSignal): Promise<GroupHost | Elsewhere | undefined> {
    const { id } = record;
    const host = (await this.#hostOf(record)) ?? this.#taking.get(id);
    if (host !== undefined) {
      return await unless(signal, Promise.resolve(host));
    }
    const remembered = this.#elsewhere.get(id);
    if (remembered !== undefined && remembered.untilMs > this.#options.clock.monotonic()) {
      return remembered;
    }
    if (record.state !== "ACTIVE" || this.#options.feed.status().state === "DRAINING") {
      return undefined;
    }
    const asking = this.#asking.get(id) ?? whereIs(id, this.#claiming).finally(() => this.#asking.delete(id));
    this.#asking.set(id, asking);
    const where = await unless(signal, asking);
    return where === undefined ? undefined : this.#remember(id, where);
  }

  /** That which is held here, unless the database has said meanwhile that it is not any more. */
  async #hostOf({ id, generation }: SubscriptionRecord): Promise<GroupHost | undefined> {
    const host = this.#hosts.get(id);
    if (host !== undefined && generation > host.generation) {
      await this.#lost(host);
    }
    return this.#hosts.get(id);
  }

  #remember(id: string, where: Elsewhere): Elsewhere {
    this.#elsewhere.set(id, { ...where, untilMs: this.#options.clock.monotonic() + REMEMBER_MS });
    return where;
  }

  async #passOn<T>(
    id: string,
    { url, forMs }: Elsewhere,
    pass: (forwarding: GroupForwarding, url: string) => Promise<T>,
  ): Promise<T> {
    const { forwarding } = this.#options;
    if (forwarding === undefined || url === undefined) {
      throw heldElsewhere(id, url, forMs);
    }
    try {
      return await pass(forwarding, url);
    } catch (error) {
      this.#elsewhere.delete(id);
      throw error;
    }
  }

  /** Somebody else has it, or did something to it: the database knows what. */
  async #lost(host: GroupHost): Promise<void> {
    // Whoever has it now is giving the same keys out, however long it takes to ask why.
    host.suspend(true);
    try {
      const [state] = await this.#options.store.states([host.id], this.#stopping.signal);
      host.observe(state);
    } catch {
      // It ends in any case.
    }
    host.close("TAKEN_OVER");
  }

  #ended(host: GroupHost, reason: ClosingReason | undefined): void {
    const { acknowledged, deadLetters } = host.machine.ledger;
    this.#past.acknowledged += acknowledged;
    this.#past.redelivered += host.machine.redelivered;
    this.#past.deadLetters += deadLetters;
    if (this.#hosts.get(host.id) === host) {
      this.#hosts.delete(host.id);
    }
    const ending = this.#giveUp(host, reason).finally(() => this.#ending.delete(ending));
    this.#ending.add(ending);
  }

  /** What is not its any more it does not write. */
  async #giveUp(host: GroupHost, reason: ClosingReason | undefined): Promise<void> {
    const { id, generation } = host;
    if (reason === "MOVED" || reason === "TAKEN_OVER" || reason === "DELETED") {
      this.#writer.forget(host);
      host.forget();
      return;
    }
    await this.#writer.finish(host);
    host.forget();
    await this.#options.store.release([{ id, generation }], this.#stopping.signal).catch(() => undefined);
  }

  #counting<T>(act: () => T): T {
    try {
      return act();
    } catch (error) {
      throw this.#countFenced(error);
    }
  }

  #countFenced(error: unknown): unknown {
    this.#fenced += 1;
    return error;
  }
}

/** What was begun goes on, whether or not its caller waits to hear of it. */
function unless<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
    if (signal.aborted) {
      onAbort();
    }
  });
}
