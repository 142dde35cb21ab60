import type { Cursor } from "../../../../src/core/cursor.ts";
import type { Event, Version } from "../../../../src/core/event.ts";
import type { GroupWriting } from "../../../../src/core/group/group-ledger.ts";
import type { GroupLimits } from "../../../../src/core/group/group-limits.ts";
import { GroupMachine } from "../../../../src/core/group/group-machine.ts";
import type { GroupMember } from "../../../../src/core/group/group-member.ts";
import type { NewDeadLetter } from "../../../../src/core/subscription/subscription-store.ts";
import type { GroupTerms } from "../../../../src/core/subscription/subscriptions.ts";
import { type Durable, GroupJudge, must, Verdict } from "./group-judge.ts";

const EPOCH = "7a0c4e9e-2f6e-4a55-9f5e-0c8a3b1d2e4f";
const NAMES = ["a", "b", "c", "d", "e"];

interface Client {
  readonly member: GroupMember;
  readonly cursors: Cursor[];
  readonly versions: Version[];
  heardAtMs: number;
  attached: boolean;
}

/** What was seen of a walk: that it went where it was meant to go. */
export interface Seen {
  deliveries: number;
  redeliveries: number;
  acknowledged: number;
  deadLetters: number;
  replayed: number;
  crashes: number;
  barriers: number;
  late: number;
}

/** A random life of a group with members, crashes and writes that fail, from a seed; judged at every step. */
export class GroupWalk {
  readonly seen: Seen = {
    deliveries: 0,
    redeliveries: 0,
    acknowledged: 0,
    deadLetters: 0,
    replayed: 0,
    crashes: 0,
    barriers: 0,
    late: 0,
  };
  readonly #random: () => number;
  readonly #terms: GroupTerms;
  readonly #limits: Partial<GroupLimits>;
  readonly #history: readonly Event[];
  readonly #end: Version;
  readonly #judge: GroupJudge;
  readonly #clients = new Map<number, Client>();
  readonly #gone: number[] = [];
  #machine: GroupMachine;
  #fed = 0;
  #nowMs = 1_000;
  #generation = 0;
  /** What the database has. */
  readonly #stored = {
    version: 0,
    progress: undefined as string | undefined,
    letters: new Map<Version, NewDeadLetter>(),
  };
  #durable: Durable = { statuses: new Map() };
  readonly #discarded = new Set<Version>();
  #writing: { readonly writing: GroupWriting; readonly snapshot: Durable } | undefined;

  constructor(seed: number) {
    this.#random = mulberry(seed);
    const maxAttempts = this.#pick([1, 2, 3, 5]);
    this.#terms = {
      maxInFlight: 8,
      ackDeadlineMs: 1_000,
      maxAttempts,
      deadLetterPolicy: this.#pick(["PARK", "SKIP"]),
      maxMembers: 5,
    };
    const maxRuns = this.#pick([2, 5, 1_000]);
    this.#limits = {
      maxWindowEvents: this.#pick([5, 20, 200]),
      maxWaiting: this.#pick([4, 30]),
      maxRuns,
      maxDeadLetters: this.#pick([10, 1_000]),
      maxUnwritten: this.#pick([3, 1_000]),
      maxUnwrittenBytes: this.#pick([600, 1_000_000]),
    };
    this.#history = this.#makeHistory();
    this.#end = (this.#history.at(-1)?.version ?? 0) + 5;
    this.#judge = new GroupJudge(this.#terms, 0, maxRuns);
    this.#machine = this.#begin();
  }

  run(steps: number): void {
    for (let step = 0; step < steps; step++) {
      this.#step();
      this.#look();
    }
    this.#finish();
  }

  #step(): void {
    const { open } = this.#judge;
    const at = this.#random() * 100;
    if (at < 22) {
      this.#feed();
    } else if (at < 29) {
      this.#join();
    } else if (at < 32) {
      this.#withClient((client) => this.#leave(client));
    } else if (at < 52) {
      this.#withClient((client) => this.#ready(client));
    } else if (at < 62) {
      this.#withClient((client) => this.#acknowledgeUpTo(client));
    } else if (at < 72) {
      this.#withClient((client) => this.#acknowledgeSome(client));
    } else if (at < 78) {
      this.#withClient((client) => this.#reject(client));
    } else if (at < 79) {
      this.#lateWord();
    } else if (at < 85) {
      this.#pass(this.#pick([1, 200, 400, 1_100]));
    } else if (at < 93) {
      this.#write();
    } else if (at < 95) {
      this.#crash();
    } else if (at < 97) {
      this.#replay(this.#letters().filter(() => this.#random() < 0.6));
    } else if (at < 98) {
      this.#discard(this.#letters().filter(() => this.#random() < 0.3));
    } else if (open.length > 0) {
      this.#suspend(this.#random() < 0.3);
    }
  }

  #begin(): GroupMachine {
    const { version, progress, letters } = this.#stored;
    this.#generation += 1_000;
    return new GroupMachine({
      terms: this.#terms,
      cursor: cursorAt(version),
      progress,
      deadLetters: [...letters.values()],
      generation: this.#generation,
      limits: this.#limits,
    });
  }

  #feed(): void {
    if (!this.#machine.wants) {
      return;
    }
    const events = this.#history.slice(this.#fed, this.#fed + 1 + Math.floor(this.#random() * 12));
    const last = events.at(-1);
    if (last === undefined || this.#random() < 0.1) {
      // What lies between is not the group's.
      const until = (this.#history[this.#fed]?.version ?? this.#end + 1) - 1;
      this.#judge.passed(until);
      this.#machine.passed(cursorAt(until), this.#nowMs);
    } else {
      this.#fed += events.length;
      for (const event of events) {
        this.#judge.fed(event);
      }
      this.#machine.events(events, cursorAt(last.version), this.#nowMs);
    }
    this.#obey();
  }

  #join(inPieces = this.#random() < 0.3): void {
    const name = this.#pick(NAMES);
    const older = [...this.#clients.values()].find(({ member }) => member.name === name);
    if (older !== undefined) {
      this.#forget(older);
    }
    const maxInFlight = this.#pick([1, 3, 8]);
    const maxBatchEvents = this.#pick([1, 4, 100]);
    const terms = { maxInFlight, maxBatchEvents, maxBatchBytes: 10_000, measure: () => 300, inPieces };
    const member = this.#machine.join(name, terms, this.#nowMs);
    this.#judge.joined(member.generation, maxInFlight, maxBatchEvents);
    this.#clients.set(member.generation, {
      member,
      cursors: [],
      versions: [],
      heardAtMs: this.#nowMs,
      attached: true,
    });
    this.#obey();
  }

  #leave(client: Client): void {
    if (!client.member.terms.inPieces && client.attached && this.#random() < 0.5) {
      client.attached = false;
      client.heardAtMs = this.#nowMs;
      this.#machine.detach(client.member, this.#nowMs, false);
    } else if (!client.member.terms.inPieces) {
      this.#forget(client);
      this.#machine.leave(client.member, this.#nowMs);
    } else if (client.attached) {
      client.attached = false;
      client.heardAtMs = this.#nowMs;
      this.#machine.detach(client.member, this.#nowMs);
    } else {
      client.attached = true;
      client.heardAtMs = this.#nowMs;
      this.#judge.dropped(client.member.generation, false);
      this.#machine.attach(client.member, client.member.terms, this.#nowMs);
    }
    this.#obey();
  }

  #forget({ member }: Client): void {
    this.#judge.dropped(member.generation, true);
    this.#clients.delete(member.generation);
    this.#gone.push(member.generation);
  }

  #ready(client: Client): void {
    if (client.attached && !client.member.ready) {
      this.#machine.ready(client.member, this.#nowMs);
      this.#obey();
    }
  }

  #acknowledgeUpTo(client: Client): void {
    const carried = this.#pick(client.cursors);
    if (carried !== undefined) {
      const { version, delivery } = carried;
      this.#say(client, { version, ...(this.#random() < 0.8 ? { delivery } : {}) }, [], []);
    }
  }

  #acknowledgeSome(client: Client): void {
    const all = [...this.#judge.events.keys()];
    const foreign = this.#pick(all);
    const own = client.versions.filter(() => this.#random() < 0.5).slice(-6);
    this.#say(client, undefined, [...new Set(foreign === undefined ? own : [...own, foreign])], []);
  }

  #reject(client: Client): void {
    const versions = new Set(client.versions.slice(-8).filter(() => this.#random() < 0.4));
    const rejections = [...versions].map((version) => ({ version, reason: "no", giveUp: this.#random() < 0.1 }));
    const acknowledged = client.versions.filter((version) => !versions.has(version) && this.#random() < 0.2);
    const cursor = this.#random() < 0.3 ? this.#pick(client.cursors) : undefined;
    this.#say(client, cursor, [...new Set(acknowledged)], rejections);
  }

  #say(
    client: Client,
    cursor: Pick<Cursor, "version" | "delivery"> | undefined,
    versions: readonly Version[],
    rejections: readonly { readonly version: Version; readonly reason: string; readonly giveUp: boolean }[],
  ): void {
    const { generation } = client.member;
    client.heardAtMs = this.#nowMs;
    const rejected = this.#judge.rejected(generation, rejections);
    const expected = rejected + this.#judge.acknowledged(generation, versions, cursor);
    const accepted = this.#machine.acknowledge(generation, { cursor, versions, rejections }, this.#nowMs);
    must(accepted === expected, `accepted ${accepted} and not ${expected}`);
    this.seen.acknowledged += expected;
    this.#obey();
  }

  #lateWord(): void {
    const generation = this.#pick(this.#gone);
    if (generation !== undefined) {
      const versions = [...this.#judge.events.keys()];
      const said = { cursor: { version: this.#end, delivery: 1_000_000 }, versions, rejections: [] };
      must(this.#machine.acknowledge(generation, said, this.#nowMs) === undefined, "heard one that has gone");
      this.seen.late += 1;
      this.#obey();
    }
  }

  #pass(ms: number): void {
    this.#nowMs += ms;
    for (const client of this.#clients.values()) {
      if (!client.attached && this.#nowMs - client.heardAtMs >= this.#terms.ackDeadlineMs) {
        this.#forget(client);
      }
    }
    this.#judge.expired(this.#nowMs);
    // What is taken from one may be late for another, who was looked at before.
    this.#machine.tick(this.#nowMs);
    this.#obey();
    for (let turn = 0; turn <= NAMES.length && this.#machine.nextDueMs() <= this.#nowMs; turn++) {
      this.#machine.tick(this.#nowMs);
      this.#obey();
    }
    for (const client of this.#clients.values()) {
      const { generation, terms } = client.member;
      if (!this.#machine.members.has(generation)) {
        const isDone = !client.attached && !terms.inPieces && this.#judge.inFlightOf(generation) === 0;
        must(isDone, "a member is gone before it was done");
        this.#forget(client);
      }
    }
    must(this.#machine.nextDueMs() > this.#nowMs, "time has passed, and something is still due");
  }

  #suspend(suspended: boolean): void {
    this.#judge.suspended(suspended);
    this.#machine.suspend(suspended, this.#nowMs);
    this.#obey();
  }

  #write(): void {
    const begun = this.#writing;
    if (begun === undefined) {
      const writing = this.#machine.ledger.write();
      for (const { version, attempts } of writing.deadLetters) {
        this.#judge.buried(version, attempts);
        this.seen.deadLetters += 1;
      }
      this.#writing = { writing, snapshot: this.#judge.snapshot() };
      return;
    }
    // One in three fails, of which half have come to pass all the same.
    const fails = this.#random() < 0.33;
    if (!fails || this.#random() < 0.5) {
      this.#store(begun.writing, begun.snapshot);
    }
    this.#writing = undefined;
    this.#machine.written(!fails, this.#nowMs);
    this.#obey();
  }

  #store({ cursor, progress, deadLetters, settledDeadLetters }: GroupWriting, snapshot: Durable): void {
    const { letters } = this.#stored;
    must(cursor.version >= this.#stored.version, "what is kept went back");
    this.#stored.version = cursor.version;
    this.#stored.progress = progress;
    for (const letter of deadLetters) {
      letters.set(letter.version, letter);
    }
    for (const version of settledDeadLetters) {
      letters.delete(version);
    }
    this.#durable = snapshot;
  }

  #crash(): void {
    this.seen.crashes += 1;
    this.#gone.push(...this.#clients.keys());
    this.#clients.clear();
    if (this.#writing !== undefined && this.#random() < 0.5) {
      this.#store(this.#writing.writing, this.#writing.snapshot);
    }
    this.#writing = undefined;
    this.#judge.crashed(this.#durable, this.#stored.version, this.#discarded);
    const after = this.#history.findIndex(({ version }) => version > this.#stored.version);
    this.#fed = after === -1 ? this.#history.length : after;
    this.#machine = this.#begin();
  }

  /** What is kept of dead letters, once all is written. */
  #letters(): readonly NewDeadLetter[] {
    while (this.#writing !== undefined || this.#machine.ledger.unwritten === "much") {
      this.#write();
    }
    return [...this.#stored.letters.values()].sort((a, b) => a.version - b.version);
  }

  #replay(letters: readonly NewDeadLetter[]): void {
    const fresh = letters.filter(({ version }) => !this.#machine.ledger.letters.replaying.has(version));
    // Of a key those that lie before come along: else the order of the key would be the caller's choice.
    const chosen = fresh.filter(
      ({ version, topic, key }) =>
        !this.#letters().some(
          (other) => other.version < version && other.topic === topic && other.key === key && !letters.includes(other),
        ) && this.#quiet(topic, key, version),
    );
    const events = chosen.map(({ attempts, reason: _, transition: _transition, ...event }) => ({ event, attempts }));
    const replaying = this.#machine.replay(events, this.#nowMs);
    for (const { version, attempts } of chosen) {
      if (replaying.includes(version)) {
        this.#judge.replayed(version, attempts);
      } else {
        must(version > this.#stored.version, `did not replay ${version}`);
      }
    }
    this.seen.replayed += replaying.length;
    this.#obey();
  }

  /** Nothing later of the key is in flight: with SKIP it might be, and a replay then comes behind it. */
  #quiet(topic: string, key: string | undefined, version: Version): boolean {
    return ![...this.#judge.events.values()].some(
      ({ event, holder, replaying }) =>
        (holder !== undefined || replaying) && event.topic === topic && event.key === key && event.version > version,
    );
  }

  #discard(letters: readonly NewDeadLetter[]): void {
    for (const { version } of letters) {
      this.#stored.letters.delete(version);
      this.#discarded.add(version);
      this.#judge.discarded(version);
    }
    this.#machine.discard(
      letters.map(({ version }) => version),
      this.#nowMs,
    );
    this.#obey();
  }

  #obey(): void {
    for (const effect of this.#machine.effects()) {
      const client = this.#clients.get(effect.member.generation);
      if (effect.kind === "close") {
        must(client === undefined, "closed the stream of one that is in");
        continue;
      }
      this.#judge.delivered(effect.member.generation, effect.frame, this.#nowMs);
      must(client?.attached === true, "gave something to one without a stream");
      client.cursors.push(effect.frame.cursor);
      for (const { version, attempt = 1, key } of effect.frame.events) {
        client.versions.push(version);
        this.seen.deliveries += 1;
        this.seen.redeliveries += attempt > 1 ? 1 : 0;
        this.seen.barriers += key === undefined ? 1 : 0;
      }
    }
  }

  #look(): void {
    const { ledger } = this.#machine;
    this.#judge.position(ledger.cursor.version);
    must(this.#machine.inFlight === this.#judge.open.filter(({ holder }) => holder !== undefined).length, "in flight");
    const { maxWindowEvents = 0 } = this.#limits;
    must(ledger.window.size <= maxWindowEvents + 12, "the window is larger than it may be");
  }

  /** With good members everything comes to its end. */
  #finish(): void {
    this.#suspend(false);
    for (let round = 0; round < 2_000; round++) {
      if (this.#clients.size < 2) {
        this.#join(false);
      }
      this.#feed();
      for (const client of [...this.#clients.values()]) {
        if (!client.attached) {
          this.#leave(client);
          continue;
        }
        this.#ready(client);
        this.#say(client, client.cursors.at(-1), client.versions.slice(-20), []);
        client.cursors.splice(0);
      }
      if (round % 5 === 4) {
        this.#pass(300);
      }
      const letters = this.#letters();
      if (round % 20 === 19) {
        this.#replay(letters);
      }
      this.#look();
      const over = this.#fed === this.#history.length && letters.length === 0 && this.#judge.open.length === 0;
      if (over && this.#machine.ledger.cursor.version === this.#end) {
        return;
      }
    }
    const { wait } = this.#machine;
    throw new Verdict(`does not come to its end: ${wait}, ${this.#judge.open.map(({ event }) => event.version)}`);
  }

  #withClient(act: (client: Client) => void): void {
    const client = this.#pick([...this.#clients.values()]);
    if (client !== undefined) {
      act(client);
    }
  }

  #pick<T>(of: readonly T[]): T {
    return of[Math.floor(this.#random() * of.length)] as T;
  }

  #makeHistory(): readonly Event[] {
    const barriers = this.#pick([0, 0, 0.05, 0.2]);
    const keys = this.#pick([2, 6, 30]);
    const events: Event[] = [];
    let version = 0;
    for (let i = 0; i < 120; i++) {
      version += 1 + (this.#random() < 0.2 ? Math.floor(this.#random() * 4) : 0);
      const isBarrier = this.#random() < barriers;
      events.push({
        version,
        topic: this.#pick(["x", "y"]),
        key: isBarrier ? undefined : `k${Math.floor(this.#random() * keys)}`,
        operation: isBarrier ? "TRUNCATE" : "UPDATE",
        before: undefined,
        after: undefined,
        transaction: "1",
        occurredAtMicros: 1,
        headers: undefined,
      });
    }
    return events;
  }
}

function cursorAt(version: Version): Cursor {
  return { epoch: EPOCH, version, fingerprint: version, snapshot: undefined };
}

function mulberry(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
