import type { Version } from "../event.ts";
import type { Feed, OpenStream } from "../feed.ts";
import type { ClosingReason, Frame } from "../frame.ts";
import type { Clock } from "../ports.ts";
import type { AlarmClock } from "../stream/alarm-clock.ts";
import type { GroupTerms, SubscriptionTerms } from "../subscription/subscriptions.ts";
import type { GroupMachine } from "./group-machine.ts";
import type { GroupMember, MemberTerms } from "./group-member.ts";
import { GroupStream, type StreamHost } from "./group-stream.ts";

/** What the streams of a group's members need of it. */
export interface GroupStreamsContext {
  readonly id: string;
  readonly machine: GroupMachine;
  readonly terms: GroupTerms;
  readonly feed: Pick<Feed, "status">;
  readonly clock: Clock;
  readonly alarms: AlarmClock;
  /** As `OpenStream.maxBytes`. */
  readonly maxBytes: number;
  readonly maxStreamAgeMs: number;
  /** The machine was told something. */
  readonly told: () => void;
}

/** The streams of a group's members: what the machine gives goes out here, and what becomes of a stream it is told. */
export class GroupStreams implements StreamHost {
  readonly clock: Clock;
  readonly alarms: AlarmClock;
  readonly #context: GroupStreamsContext;
  readonly #streams = new Map<GroupMember, GroupStream>();
  /** Also of those that are ending, which are no member's any more. */
  readonly #members = new Map<GroupStream, GroupMember>();
  readonly #urgent = new Set<GroupStream>();
  #closed = false;

  constructor(context: GroupStreamsContext) {
    this.#context = context;
    this.clock = context.clock;
    this.alarms = context.alarms;
  }

  /** Of a member that has none yet. */
  open(member: GroupMember, request: SubscriptionTerms["request"]): OpenStream {
    const { id, machine, terms, feed, maxBytes, maxStreamAgeMs } = this.#context;
    const { cursor, epoch } = machine.ledger;
    const { version } = cursor;
    const status = feed.status();
    const head = Math.max(status.head, version);
    const { generation, name } = member;
    const lease = { subscriptionId: id, generation, member: name, maxInFlight: terms.maxInFlight };
    const oldest = Math.min(status.oldest, head + 1);
    const { deadlineMs, checkpointIntervalMs } = request;
    const opened: Frame = { kind: "opened", epoch, version, cursor, head, oldest, streamId: "", lease };
    const stream = new GroupStream(this, { opened, maxBytes, maxStreamAgeMs, deadlineMs, checkpointIntervalMs });
    this.#streams.set(member, stream);
    this.#members.set(stream, member);
    if (stream.isUrgent) {
      this.#urgent.add(stream);
    }
    return stream;
  }

  /** The member's stream is another one's business from now on: it is told why it ends. */
  replace(member: GroupMember, reason: ClosingReason): void {
    const stream = this.#streams.get(member);
    this.#streams.delete(member);
    stream?.endWith(reason);
  }

  ready(stream: GroupStream): void {
    const member = this.#memberOf(stream);
    if (member !== undefined) {
      this.#context.machine.ready(member, this.clock.monotonic());
      this.#context.told();
    }
  }

  beat(stream: GroupStream): void {
    const member = this.#memberOf(stream);
    if (member !== undefined && stream.ready) {
      // What it was told before does not become untrue when something is taken back.
      stream.write(this.#checkpoint(member, Math.max(stream.told, this.#context.machine.reach(member))));
      if (!stream.ready) {
        // Else events would be given to a stream that does not take them, and count as delivered.
        this.#context.machine.busy(member, this.clock.monotonic());
      }
    }
  }

  ended(stream: GroupStream): void {
    const { machine } = this.#context;
    const member = this.#memberOf(stream);
    this.#members.delete(stream);
    this.#urgent.delete(stream);
    if (member === undefined) {
      return;
    }
    this.#streams.delete(member);
    const comesAgain = member.terms.inPieces;
    if (comesAgain || stream.wasClosed) {
      machine.detach(member, this.clock.monotonic(), comesAgain);
    } else {
      machine.leave(member, this.clock.monotonic());
    }
    this.#context.told();
  }

  /** Does what the machine says, which may make it say more. */
  obey(): void {
    const { machine } = this.#context;
    for (let effects = machine.effects(); effects.length > 0; effects = machine.effects()) {
      for (const { member, ...effect } of effects) {
        if (effect.kind === "close") {
          this.replace(member, effect.reason);
          continue;
        }
        const stream = this.#streams.get(member);
        stream?.write(effect.frame);
        if (stream?.ready === true) {
          machine.ready(member, this.clock.monotonic());
        }
      }
    }
    for (const stream of this.#urgent) {
      const member = this.#members.get(stream);
      if (member !== undefined && machine.reach(member) > stream.told) {
        this.beat(stream);
      }
    }
  }

  /** All of them end. The machine is not told. */
  close(tell: (stream: GroupStream) => void): void {
    this.#closed = true;
    for (const stream of [...this.#members.keys()]) {
      tell(stream);
    }
  }

  #memberOf(stream: GroupStream): GroupMember | undefined {
    const member = this.#members.get(stream);
    return member !== undefined && !this.#closed && this.#streams.get(member) === stream ? member : undefined;
  }

  #checkpoint(member: GroupMember, version: Version): Frame {
    const { head, state, logOldest } = this.#context.feed.status();
    const { epoch } = this.#context.machine.ledger;
    const isStale = state === "STALE";
    const lag = Math.max(0, head - version);
    return {
      kind: "checkpoint",
      cursor: member.cursorAt(epoch, version),
      version,
      state: isStale ? "STALE" : version + 1 >= logOldest ? "LIVE" : "CATCHING_UP",
      lagVersions: isStale ? undefined : lag,
      lagMs: !isStale && lag === 0 ? 0 : undefined,
      timeMicros: undefined,
      progress: undefined,
    };
  }
}

/** What a member takes, as its stream's request says. */
export function memberTermsOf(
  { maxBatchBytes, maxBatchEvents = Number.POSITIVE_INFINITY, codec }: SubscriptionTerms["request"],
  { maxInFlight }: GroupTerms,
  inPieces: boolean,
): MemberTerms {
  return { maxInFlight, maxBatchEvents, maxBatchBytes, measure: codec.measure, inPieces };
}
