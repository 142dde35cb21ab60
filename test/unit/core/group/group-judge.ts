import type { Event, Version } from "../../../../src/core/event.ts";
import type { EventsFrame } from "../../../../src/core/frame.ts";
import type { GroupTerms } from "../../../../src/core/subscription/subscriptions.ts";

/** What the judge knows of one event. It looks at nothing but what goes in and what comes out. */
export interface Known {
  readonly event: Event;
  status: "open" | "acked" | "dead";
  /** A dead letter that is delivered again. */
  replaying: boolean;
  /** Who has it. */
  holder: number | undefined;
  deliveredAtMs: number;
  /** Which of the holder's deliveries. */
  seq: number;
  /** It came after everything of a lower version that the holder has had. */
  inOrder: boolean;
  deliveries: number;
  failures: number;
}

interface Member {
  readonly maxInFlight: number;
  readonly maxBatchEvents: number;
  seq: number;
  highest: Version;
}

/** As of a writing. */
export interface Durable {
  readonly statuses: ReadonlyMap<Version, Pick<Known, "status" | "deliveries" | "failures">>;
}

/** What is wrong with the group. */
export class Verdict extends Error {}

export function keyOf({ topic, key, operation }: Event): string | undefined {
  return key === undefined || operation === "TRUNCATE" ? undefined : `${topic}/${key}`;
}

/**
 * A simple model of a group, written from what is promised alone: a list of events and who has them, searched from end to end at
 * every question. It does not say what comes next, but whether what came was right.
 */
export class GroupJudge {
  readonly events = new Map<Version, Known>();
  readonly members = new Map<number, Member>();
  readonly #terms: GroupTerms;
  #position: Version;
  #passed: Version;
  #suspended = false;
  readonly #maxRuns: number;

  constructor(terms: GroupTerms, position: Version, maxRuns: number) {
    this.#terms = terms;
    this.#position = position;
    this.#passed = position;
    this.#maxRuns = maxRuns;
  }

  /** Where the stream has come to. */
  passed(version: Version): void {
    this.#passed = version;
  }

  fed(event: Event): void {
    this.#passed = event.version;
    const known = this.events.get(event.version);
    if (known !== undefined && known.status === "open" && known.failures >= this.#terms.maxAttempts) {
      known.status = "dead";
    }
    if (known === undefined) {
      this.events.set(event.version, {
        event,
        status: "open",
        replaying: false,
        holder: undefined,
        deliveredAtMs: 0,
        seq: 0,
        inOrder: false,
        deliveries: 0,
        failures: 0,
      });
    }
  }

  joined(generation: number, maxInFlight: number, maxBatchEvents: number): void {
    this.members.set(generation, { maxInFlight, maxBatchEvents, seq: 0, highest: 0 });
  }

  suspended(suspended: boolean): void {
    this.#suspended = suspended;
  }

  /** Frames are judged as they come. */
  delivered(generation: number, frame: EventsFrame, nowMs: number): void {
    const member = this.members.get(generation);
    must(member !== undefined, `member ${generation} has gone, and was given something`);
    must(!this.#suspended, "was given something while nobody may be");
    must(frame.events.length > 0, "an empty frame");
    must(frame.events.length <= member.maxBatchEvents, "a frame of more events than the member takes");
    for (const event of frame.events) {
      this.#deliveredOne(generation, member, event, nowMs);
    }
    must(frame.cursor.delivery === member.seq, "a frame's cursor is not that of its last delivery");
    must(this.#having(generation).length <= member.maxInFlight, "more in flight than the member may have");
  }

  #deliveredOne(generation: number, member: Member, event: Event, nowMs: number): void {
    const known = this.#known(event.version);
    const name = `version ${event.version} (${keyOf(event) ?? "barrier"})`;
    must(known.status === "open", `${name} is ${known.status}, and was delivered`);
    must(known.holder === undefined, `${name} is in flight at ${known.holder}, and was given to ${generation}`);
    must((event.attempt ?? 1) === known.deliveries + 1, `${name} says attempt ${event.attempt}: ${known.deliveries}`);
    if (known.deliveries === 0 && !known.replaying && this.#terms.deadLetterPolicy === "SKIP") {
      const isFirst = this.open.every((other) => other.replaying || other.event.version >= event.version);
      must(isFirst || this.runs < this.#maxRuns, `${name} was given out with ${this.runs} runs`);
    }
    const key = keyOf(event);
    for (const other of this.events.values()) {
      const { version } = other.event;
      const sameKey = key !== undefined && keyOf(other.event) === key;
      if (sameKey && version < event.version) {
        const before = other.status !== "open" || other.holder === generation;
        must(before, `${name} came to ${generation} before ${version}, at ${other.holder}`);
        const parked = this.#terms.deadLetterPolicy === "PARK" && other.status === "dead" && !known.replaying;
        must(!parked, `${name} was delivered behind the dead letter ${version}`);
      }
      must(!(sameKey && version > event.version && other.holder !== undefined), `${version} went before ${name}`);
      if (!known.replaying && !other.replaying && other.status === "open" && version < event.version) {
        must(key !== undefined || this.#mayBeParked(other), `barrier ${name} passed ${version}`);
        must(keyOf(other.event) !== undefined, `${name} passed the barrier ${version}`);
      }
    }
    member.seq += 1;
    known.inOrder = event.version > member.highest;
    member.highest = Math.max(member.highest, event.version);
    known.holder = generation;
    known.deliveredAtMs = nowMs;
    known.seq = member.seq;
    known.deliveries += 1;
  }

  /** Answers how many the member may acknowledge. */
  acknowledged(
    generation: number,
    versions: readonly Version[],
    upTo: { readonly version: Version; readonly delivery?: number | undefined } | undefined,
  ): number {
    const covers = ({ seq, inOrder, event }: Known): boolean =>
      upTo !== undefined &&
      (upTo.delivery === undefined ? inOrder && event.version <= upTo.version : seq <= upTo.delivery);
    let accepted = 0;
    for (const known of this.#having(generation)) {
      if (covers(known) || versions.includes(known.event.version)) {
        known.status = "acked";
        known.holder = undefined;
        known.replaying = false;
        accepted += 1;
      }
    }
    return accepted;
  }

  rejected(generation: number, rejections: readonly { readonly version: Version; readonly giveUp: boolean }[]): number {
    const own = this.#having(generation).filter(({ event }) => rejections.some((r) => r.version === event.version));
    const given = new Set(rejections.filter(({ giveUp }) => giveUp).map(({ version }) => version));
    this.#failed(generation, own, (known) => {
      known.failures += 1;
      return given.has(known.event.version) || known.failures >= this.#terms.maxAttempts;
    });
    return own.length;
  }

  /** Its member has gone, or has come again without a word. */
  dropped(generation: number, gone: boolean): void {
    this.#failedWithoutWord(generation, this.#having(generation));
    if (gone) {
      this.members.delete(generation);
    }
  }

  expired(nowMs: number): void {
    for (const generation of this.members.keys()) {
      const late = this.#having(generation).filter(
        ({ deliveredAtMs }) => nowMs - deliveredAtMs >= this.#terms.ackDeadlineMs,
      );
      this.#failedWithoutWord(generation, late);
    }
  }

  #failedWithoutWord(generation: number, failed: readonly Known[]): void {
    const met = new Set<string>();
    this.#failed(generation, failed, (known) => {
      const key = keyOf(known.event) ?? `barrier ${known.event.version}`;
      known.failures += met.has(key) ? 0 : 1;
      const counts = !met.has(key);
      met.add(key);
      return counts && known.failures >= this.#terms.maxAttempts;
    });
  }

  /** Ascending, as `fails` counts the first of a key. */
  #failed(generation: number, failed: readonly Known[], fails: (known: Known) => boolean): void {
    const from = new Map<string, Version>();
    for (const known of [...failed].sort((a, b) => a.event.version - b.event.version)) {
      known.holder = undefined;
      const dies = fails(known);
      const key = keyOf(known.event);
      if (dies) {
        known.status = "dead";
        known.replaying = false;
      }
      if (key !== undefined && !from.has(key) && (!dies || this.#terms.deadLetterPolicy === "PARK")) {
        from.set(key, known.event.version);
      }
    }
    for (const known of this.#having(generation)) {
      const key = keyOf(known.event);
      if (key !== undefined && known.event.version > (from.get(key) ?? Number.POSITIVE_INFINITY)) {
        known.holder = undefined;
      }
    }
  }

  /** The group says that it has given this up. */
  buried(version: Version, attempts: number): void {
    const known = this.#known(version);
    must(known.status === "dead" || this.#mayBeParked(known), `version ${version} is a dead letter without a reason`);
    must(known.holder === undefined, `version ${version} is a dead letter in flight`);
    must(attempts === known.deliveries, `the dead letter ${version} has had ${known.deliveries}, not ${attempts}`);
    known.status = "dead";
    known.replaying = false;
  }

  replayed(version: Version, attempts: number): void {
    const known = this.#known(version);
    known.deliveries = attempts;
    known.status = "open";
    known.replaying = true;
    known.failures = 0;
  }

  discarded(version: Version): void {
    const known = this.#known(version);
    known.status = "acked";
    known.replaying = false;
    known.holder = undefined;
  }

  /** The group's position is true, and rises. */
  position(version: Version): void {
    must(version >= this.#position, `the position went back from ${this.#position} to ${version}`);
    this.#position = version;
    must(version <= this.#passed, "the position is beyond the stream");
    for (const known of this.events.values()) {
      const behind = known.event.version > version || known.status !== "open" || known.replaying;
      must(
        behind || this.#mayBeParked(known),
        `the position ${version} is beyond ${known.event.version}, which is open`,
      );
    }
  }

  /** Runs of events behind the position that are settled for sure. */
  get runs(): number {
    let runs = 0;
    let inRun = true;
    for (const known of this.events.values()) {
      if (known.event.version > this.#passed) {
        break;
      }
      const settled = known.status !== "open" || known.replaying;
      runs += settled && !inRun ? 1 : 0;
      inRun = settled;
    }
    return runs;
  }

  get open(): readonly Known[] {
    return [...this.events.values()].filter(({ status }) => status === "open");
  }

  snapshot(): Durable {
    const statuses = new Map(
      [...this.events].map(([version, { status, replaying, deliveries, failures, holder }]) => [
        version,
        // Who has it when the holder of the group ends has it in vain.
        {
          status: replaying ? ("dead" as const) : status,
          deliveries,
          failures: failures + (holder === undefined ? 0 : 1),
        },
      ]),
    );
    return { statuses };
  }

  /** The process has died: what was not durable has not happened. What was dead then and is discarded now stays so. */
  crashed({ statuses }: Durable, position: Version, discarded: ReadonlySet<Version>): void {
    this.members.clear();
    this.#suspended = false;
    this.#position = position;
    this.#passed = position;
    for (const known of this.events.values()) {
      const { version } = known.event;
      const durable = statuses.get(version);
      known.status = discarded.has(version) ? "acked" : (durable?.status ?? "open");
      known.replaying = false;
      known.holder = undefined;
      known.deliveries = durable?.deliveries ?? 0;
      known.failures = durable?.failures ?? 0;
    }
  }

  inFlightOf(generation: number): number {
    return this.#having(generation).length;
  }

  #having(generation: number): Known[] {
    return [...this.events.values()].filter(({ holder }) => holder === generation);
  }

  /** It may have become a dead letter behind another, of which nothing was said yet. */
  #mayBeParked(known: Known): boolean {
    const key = keyOf(known.event);
    if (this.#terms.deadLetterPolicy === "SKIP" || key === undefined || known.holder !== undefined) {
      return false;
    }
    for (const { event, status } of this.events.values()) {
      if (event.version < known.event.version && status === "dead" && keyOf(event) === key) {
        return true;
      }
    }
    return false;
  }

  #known(version: Version): Known {
    const known = this.events.get(version);
    if (known === undefined) {
      throw new Verdict(`version ${version} was never read`);
    }
    return known;
  }
}

export function must(right: boolean, what: string): asserts right {
  if (!right) {
    throw new Verdict(what);
  }
}
