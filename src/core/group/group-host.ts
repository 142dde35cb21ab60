import { type Cursor, decodeCursor, deliveredTo, encodeCursor } from "../cursor.ts";
import { goingDown } from "../errors.ts";
import type { Event, Version } from "../event.ts";
import type { Feed, OpenStream } from "../feed.ts";
import type { ClosingReason, Frame } from "../frame.ts";
import type { Outlet, StreamControl } from "../outlet.ts";
import type { Clock } from "../ports.ts";
import type { AlarmClock, Sleeper } from "../stream/alarm-clock.ts";
import type { DeadLetter, StoredPosition, SubscriptionState } from "../subscription/subscription-store.ts";
import type { Acknowledgement, Consumer, GroupTerms, SubscriptionTerms } from "../subscription/subscriptions.ts";
import { SAFE_MS } from "./group-claims.ts";
import type { KnownDeadLetter } from "./group-dead-letters.ts";
import { foreignCursor, groupGone, memberGone, tooManyMembers } from "./group-failures.ts";
import type { GroupLimits } from "./group-limits.ts";
import { GroupMachine } from "./group-machine.ts";
import type { GroupStream } from "./group-stream.ts";
import { GroupStreams, memberTermsOf } from "./group-streams.ts";

/** What a held group works with, and tells. */
export interface GroupHostContext {
  readonly feed: Pick<Feed, "status">;
  readonly clock: Clock;
  readonly alarms: AlarmClock;
  /** Of members' streams; 0 for any age. */
  readonly maxStreamAgeMs: number;
  /** There is something to write: soon, or with whatever is next. */
  readonly write: (host: GroupHost, soon: boolean) => void;
  /** Its streams have been told, and what it has come to can be written for the last time. */
  readonly ended: (host: GroupHost, reason: ClosingReason | undefined) => void;
}

/** A group that was claimed. */
export interface ClaimedGroup {
  readonly id: string;
  /** Of the claim. */
  readonly generation: number;
  readonly terms: GroupTerms;
  readonly position: StoredPosition;
  readonly progress: string | undefined;
  readonly deadLetters: readonly KnownDeadLetter[];
  /** Of the subscription's selectors, from the position on. */
  readonly stream: OpenStream;
  /** Another one, from this cursor on, when it has come of age. */
  readonly open: (cursor: string) => Promise<OpenStream>;
  readonly limits?: Partial<GroupLimits> | undefined;
}

/** Generations of members are their claim's, times this, and a number: so they rise with both. */
const MEMBERS_OF_CLAIM = 100_000;

/** A group without members is held so long for them to come again, and so long when it delivers dead letters again. */
const LINGER_MS = 5_000;
const LINGER_REPLAYING_MS = 60_000;
/** So long members of a server that goes down may say what they have done, while nobody else is given anything. */
const LAST_WORDS_MS = 2_000;
/** Deadlines are met to within this share. */
const DEADLINE_SHARE = 0.1;
const LEAST_TICK_MS = 20;
const NEVER = Number.POSITIVE_INFINITY;

/**
 * A group that this process holds: its machine, the one stream that feeds it, the streams of its members, and whoever waits for
 * something to be durable. Whatever happens is told to the machine, and then done as it says, until it says nothing more.
 */
export class GroupHost implements Sleeper {
  readonly id: string;
  readonly generation: number;
  readonly machine: GroupMachine;
  ringsAtMs = NEVER;
  ringsAs = -1;
  /** Monotonic milliseconds: the claim was last known to hold, by a question that was asked then. */
  renewedAtMs: number;
  readonly #context: GroupHostContext;
  readonly #terms: GroupTerms;
  readonly #streams: GroupStreams;
  readonly #reopen: (cursor: string) => Promise<OpenStream>;
  #control: StreamControl;
  /** By revision. */
  #waiting: { readonly revision: number; readonly done: PromiseWithResolvers<StoredPosition> }[] = [];
  #stored: { readonly revision: number; readonly position: StoredPosition };
  /** The group's stream was told to wait. */
  #refused = false;
  #obeying = false;
  #draining = false;
  /** A server that goes down gives the group up then, at the latest. */
  #leavesAtMs = NEVER;
  #ended = false;
  #reason: unknown;
  #aloneSinceMs: number | undefined;
  #names = 0;

  constructor(group: ClaimedGroup, context: GroupHostContext) {
    const { id, generation, terms, position, progress, deadLetters, stream, limits } = group;
    const { clock, alarms, feed, maxStreamAgeMs } = context;
    this.id = id;
    this.generation = generation;
    this.#terms = terms;
    this.#context = context;
    this.#stored = { revision: 0, position };
    this.renewedAtMs = clock.monotonic();
    this.#aloneSinceMs = this.renewedAtMs;
    const first = generation * MEMBERS_OF_CLAIM;
    // The stream's own cursor: the position may be told in the terms of an epoch that has ended.
    const { cursor } = stream.opened;
    const machine = new GroupMachine({ terms, cursor, progress, deadLetters, generation: first, limits });
    this.machine = machine;
    const told = () => this.#obey();
    const { maxBytes } = stream;
    this.#streams = new GroupStreams({ id, machine, terms, feed, clock, alarms, maxBytes, maxStreamAgeMs, told });
    this.#reopen = group.open;
    this.#control = stream.attach(this.#intake());
    this.#arm();
  }

  get hasEnded(): boolean {
    return this.#ended;
  }

  /** Somebody waits for something to be durable, or much is not. */
  get mustWrite(): boolean {
    return this.#waiting.length > 0 || this.machine.ledger.unwritten === "much";
  }

  /** What the group's stream writes to. */
  #intake(): Outlet {
    const refuses = () => {
      this.#refused = !this.#ended && !this.#draining && !this.machine.wants;
      return this.#refused;
    };
    return {
      get ready() {
        return !refuses();
      },
      inline: false,
      write: (frame) => this.#take(frame),
      end: (error) => (error === undefined ? undefined : this.fail(error)),
    };
  }

  #take(frame: Frame): void {
    if (this.#ended || this.#draining) {
      return;
    }
    if (frame.kind === "closing" && frame.reason === "MAX_AGE") {
      void this.#goOn(frame.cursor);
    } else if (frame.kind === "closing") {
      this.drain(frame.retryAfterMs);
    } else if (frame.kind === "events") {
      this.machine.events(frame.events, frame.cursor, this.#nowMs);
      this.#obey();
    } else if (frame.kind === "checkpoint") {
      this.machine.passed(frame.cursor, this.#nowMs);
      this.#obey();
    }
  }

  /** With another stream, where the last one ended: its age is none of the members' business. */
  async #goOn(cursor: Cursor): Promise<void> {
    try {
      const stream = await this.#reopen(encodeCursor(cursor));
      if (this.#ended || this.#draining) {
        stream.close();
        return;
      }
      this.#control = stream.attach(this.#intake());
      this.#obey();
    } catch (error) {
      this.fail(error);
    }
  }

  /**
   * Takes a member in.
   *
   * @throws FeedError SUBSCRIPTION_BUSY
   */
  join({ member: asked, inPieces = false }: Consumer, { request }: SubscriptionTerms): OpenStream {
    this.#assertServing();
    const { members } = this.machine;
    const name = asked ?? this.#makeUpName();
    if (members.size >= this.#terms.maxMembers && ![...members.values()].some((member) => member.name === name)) {
      throw tooManyMembers(this.id, members.size);
    }
    const member = this.machine.join(name, memberTermsOf(request, this.#terms, inPieces), this.#nowMs);
    const stream = this.#streams.open(member, request);
    this.#obey();
    if (member.generation % MEMBERS_OF_CLAIM === MEMBERS_OF_CLAIM - 1) {
      // The last that has a generation of its own under this claim: all come again under another.
      this.close("MAX_AGE");
    }
    return stream;
  }

  /**
   * The stream of a member that comes again.
   *
   * @throws FeedError SUBSCRIPTION_FENCED
   */
  rejoin(generation: number, { request }: SubscriptionTerms): OpenStream {
    this.#assertServing();
    const member = this.machine.members.get(generation);
    if (member === undefined) {
      throw memberGone(this.id, generation);
    }
    this.#streams.replace(member, "TAKEN_OVER");
    this.machine.attach(member, memberTermsOf(request, this.#terms, true), this.#nowMs);
    const stream = this.#streams.open(member, request);
    this.#obey();
    return stream;
  }

  #makeUpName(): string {
    this.#names += 1;
    return `${this.generation}-${this.#names}`;
  }

  /**
   * What a member says. Resolves once it is durable, with where the group stands then; rejects when that is not known.
   *
   * @throws FeedError SUBSCRIPTION_FENCED, CURSOR_INVALID
   */
  async acknowledge(said: Acknowledgement): Promise<{ readonly position: StoredPosition; readonly accepted: number }> {
    const { generation, member, versions, rejections } = said;
    const cursor = said.cursor === undefined ? undefined : decodeCursor(said.cursor);
    const speaker = this.machine.members.get(generation);
    if (this.#ended || speaker === undefined || (member !== undefined && member !== speaker.name)) {
      throw memberGone(this.id, generation);
    }
    this.#assertOwn(cursor, generation);
    const accepted = this.machine.acknowledge(generation, { cursor, versions, rejections }, this.#nowMs) ?? 0;
    const durable = this.durable();
    this.#obey();
    return { position: await durable, accepted };
  }

  /**
   * A cursor that counts another member's deliveries, or is of another history, would cover what nobody has said anything of:
   * a client that came again, and still says what its stream before gave it, must not.
   */
  #assertOwn(cursor: Cursor | undefined, generation: number): void {
    const isForeign = cursor?.delivery !== undefined && cursor.deliveredTo !== deliveredTo(generation);
    if (cursor !== undefined && (isForeign || cursor.epoch !== this.machine.ledger.epoch)) {
      throw foreignCursor(this.id, generation);
    }
  }

  /** Resolves once all that has been said so far is durable; rejects when that is not known. */
  durable(): Promise<StoredPosition> {
    const { revision } = this.machine.ledger;
    if (revision <= this.#stored.revision) {
      return Promise.resolve(this.#stored.position);
    }
    const done = Promise.withResolvers<StoredPosition>();
    this.#waiting.push({ revision, done });
    this.#context.write(this, true);
    return done.promise;
  }

  /** What `machine.ledger.write` gave is written. */
  written(revision: number, position: StoredPosition): void {
    this.#stored = { revision, position };
    this.machine.written(true, this.#nowMs);
    const left = this.#waiting.findIndex((waiter) => waiter.revision > revision);
    const done = this.#waiting.splice(0, left < 0 ? this.#waiting.length : left);
    for (const waiter of done) {
      waiter.done.resolve(position);
    }
    this.#obey();
  }

  /** Nobody knows whether it is. It goes into what is written next; whoever waits may ask again. */
  notWritten(error: unknown): void {
    this.machine.written(false, this.#nowMs);
    this.#rejectAll(error);
    this.#obey();
  }

  #rejectAll(error: unknown): void {
    for (const { done } of this.#waiting.splice(0)) {
      done.reject(error);
    }
  }

  /** Delivers these again; answers how many. By version. */
  replay(letters: readonly DeadLetter[]): number {
    const replayed = letters.map((letter) => ({ event: eventOf(letter), attempts: letter.attempts }));
    const replaying = this.machine.replay(replayed, this.#nowMs);
    this.#obey();
    return replaying.length;
  }

  /** These dead letters are there no more. */
  discard(versions: readonly Version[]): void {
    this.machine.discard(versions, this.#nowMs);
    this.#obey();
  }

  /** The claim holds: the database said so when it was asked at this moment. */
  renewed(askedAtMs: number): void {
    this.renewedAtMs = askedAtMs;
    this.machine.heldUntil(askedAtMs + SAFE_MS);
    this.suspend(false);
  }

  /** Nothing is given out until the claim is known to hold. */
  suspend(suspended: boolean): void {
    this.machine.suspend(suspended || this.#draining, this.#nowMs);
    this.#obey();
  }

  /** What the database says of it. */
  observe(state: SubscriptionState | undefined): void {
    if (state === undefined) {
      this.close("DELETED");
    } else if (state.generation > this.generation) {
      this.close(state.movedGeneration > this.generation ? "MOVED" : "TAKEN_OVER");
    } else if (state.generation === this.generation && state.state === "PAUSED") {
      this.close("PAUSED");
    }
  }

  /** The server goes down: members are told, and given nothing more. What they say is still heard, until it closes. */
  drain(retryAfterMs: number): void {
    if (!this.#ended && !this.#draining) {
      this.#draining = true;
      this.#leavesAtMs = this.#nowMs + LAST_WORDS_MS;
      this.#context.alarms.stop(this);
      this.machine.suspend(true, this.#nowMs);
      this.#streams.close((stream) => stream.endWith("DRAINING", retryAfterMs));
      this.#control.cancel(undefined);
    }
  }

  /** It was drained, and nothing more is to be heard of members: another replica may have it. */
  get isDrained(): boolean {
    return this.#draining && (this.machine.inFlight === 0 || this.#nowMs >= this.#leavesAtMs);
  }

  #assertServing(): void {
    if (this.#draining || this.#ended) {
      throw this.#draining ? goingDown() : groupGone(this.id);
    }
  }

  /** Ends everything: members are told why. */
  close(reason: ClosingReason, retryAfterMs = 0): void {
    this.#finish((stream) => stream.endWith(reason, retryAfterMs), groupGone(this.id), reason);
  }

  /** The same with an error. */
  fail(error: unknown): void {
    this.#finish((stream) => stream.fail(error), error, undefined);
  }

  #finish(tell: (stream: GroupStream) => void, error: unknown, reason: ClosingReason | undefined): void {
    if (this.#ended) {
      return;
    }
    this.#ended = true;
    this.#reason = error;
    this.#context.alarms.stop(this);
    this.#streams.close(tell);
    this.#context.ended(this, reason);
    this.#control.cancel(undefined);
  }

  /** Nothing is written any more. */
  forget(): void {
    this.#rejectAll(this.#reason);
  }

  ring(nowMs: number): void {
    if (this.#ended) {
      return;
    }
    this.machine.tick(nowMs);
    this.#obey();
    this.#leaveWhenAlone(nowMs);
    this.#arm();
  }

  #leaveWhenAlone(nowMs: number): void {
    const { members, ledger } = this.machine;
    if (members.size > 0) {
      this.#aloneSinceMs = undefined;
      return;
    }
    this.#aloneSinceMs ??= nowMs;
    const lingersMs = ledger.letters.replaying.size > 0 ? LINGER_REPLAYING_MS : LINGER_MS;
    if (nowMs - this.#aloneSinceMs >= lingersMs) {
      this.close("MAX_AGE");
    }
  }

  /** Often enough, and not for each deadline: those change with every frame. */
  #arm(): void {
    if (!this.#ended && !this.#draining) {
      const nowMs = this.#nowMs;
      const oftenMs = Math.min(LINGER_MS, Math.max(LEAST_TICK_MS, this.#terms.ackDeadlineMs * DEADLINE_SHARE));
      this.#context.alarms.setFor(this, Math.min(Math.max(this.machine.nextDueMs(), nowMs + 1), nowMs + oftenMs));
    }
  }

  #obey(): void {
    if (this.#obeying || this.#ended) {
      return;
    }
    this.#obeying = true;
    try {
      this.#streams.obey();
    } finally {
      this.#obeying = false;
    }
    const { unwritten } = this.machine.ledger;
    if (unwritten !== "nothing") {
      this.#context.write(this, unwritten === "much");
    }
    if (this.#refused && this.machine.wants) {
      this.#control.resume();
    }
  }

  get #nowMs(): number {
    return this.#context.clock.monotonic();
  }
}

/** Whether a member's generation can be one of this claim. */
export function isOfClaim(generation: number, claim: number): boolean {
  return Math.floor(generation / MEMBERS_OF_CLAIM) === claim;
}

function eventOf(letter: DeadLetter): Event {
  const { version, topic, key, operation, before, after, transaction, occurredAtMicros, headers } = letter;
  const event = { version, topic, key, operation, before, after, transaction, occurredAtMicros, headers };
  return letter.transition === undefined ? event : { ...event, transition: letter.transition };
}
