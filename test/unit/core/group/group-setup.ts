import { encodeCursor } from "../../../../src/core/cursor.ts";
import type { Event } from "../../../../src/core/event.ts";
import { createFeed } from "../../../../src/core/feed/feed-service.ts";
import type { EpochFeed, StreamRequest } from "../../../../src/core/feed.ts";
import type { EventsFrame, Frame } from "../../../../src/core/frame.ts";
import type { GroupForwarding } from "../../../../src/core/group/group-forwarding.ts";
import type { GroupLimits } from "../../../../src/core/group/group-limits.ts";
import { createGroups } from "../../../../src/core/group/group-service.ts";
import type { Outlet, StreamControl } from "../../../../src/core/outlet.ts";
import type { Groups } from "../../../../src/core/subscription/group-consumers.ts";
import { createSubscriptions } from "../../../../src/core/subscription/subscription-service.ts";
import type { SubscriptionStore } from "../../../../src/core/subscription/subscription-store.ts";
import type {
  Acknowledged,
  Consumer,
  GroupTerms,
  Rejection,
  Subscriptions,
} from "../../../../src/core/subscription/subscriptions.ts";
import { createMemoryStore, type MemoryStore } from "../../../../src/memory/store.ts";
import { ManualTime } from "../manual-time.ts";
import { REQUEST } from "../memory-feed.ts";

export const signal = new AbortController().signal;

export const TERMS: GroupTerms = {
  maxInFlight: 1_000,
  ackDeadlineMs: 2_000,
  maxAttempts: 5,
  deadLetterPolicy: "PARK",
  maxMembers: 256,
};

/** One process of several over the same store. */
export interface Replica {
  readonly feed: EpochFeed;
  readonly groups: Groups;
  readonly subscriptions: Subscriptions;
  readonly reports: string[];
}

/** Replicas over one memory, in time that stands still. */
export class GroupWorld {
  readonly time = new ManualTime();
  readonly memory: MemoryStore = createMemoryStore({ clock: this.time, sources: ["orders"] });
  /** Statements of each kind. */
  readonly statements: Record<string, number> = {};
  terms: GroupTerms = TERMS;
  /** Where there is one, what reaches other replicas. */
  forwarding: GroupForwarding | undefined;
  limits: Partial<GroupLimits> | undefined;
  maxStreamAgeMs = 0;
  #replicas = 0;

  async replica(): Promise<Replica> {
    this.#replicas += 1;
    const { time, maxStreamAgeMs } = this;
    const reports: string[] = [];
    const report = (message: string, error?: unknown) => void reports.push(`${message} ${String(error ?? "")}`);
    const base = { clock: time, timers: time, report };
    const feed = createFeed({ store: this.memory, wakeUp: this.#wakeUp(), ...base, maxStreamAgeMs });
    await feed.start(signal);
    const store = this.#counted(this.memory.subscriptions);
    const name = { replica: `replica ${this.#replicas}`, url: `http://replica-${this.#replicas}` };
    const { forwarding, limits } = this;
    const groups = createGroups({ feed, store, ...base, ...name, forwarding, limits, maxStreamAgeMs });
    const subscriptions = createSubscriptions({ feed, store, groups, ...base, ...name });
    await subscriptions.start(signal);
    return { feed, groups, subscriptions, reports };
  }

  async create({ subscriptions }: Replica, id = "g"): Promise<void> {
    const subscription = { id, definition: "{}", isGroup: true, topics: [], owner: "", labels: {} };
    await this.during(subscriptions.create({ ...subscription, expireAfterMs: undefined }, { kind: "oldest" }, signal));
  }

  /** Messages with these keys, in one transaction, settled; `undefined` for one without a key. */
  async emit(...keys: readonly (string | undefined)[]): Promise<void> {
    const transaction = this.memory.begin();
    for (const key of keys) {
      transaction.emit({ topic: "notes", key, operation: "MESSAGE", payload: "{}", headers: {} });
    }
    transaction.commit();
    await this.time.pass(50);
  }

  /** Lets time go by until this has come to an end. */
  async during<T>(work: Promise<T>, ms = 1_000): Promise<T> {
    let isOver = false;
    const watched = work.finally(() => {
      isOver = true;
    });
    watched.catch(() => undefined);
    for (let at = 0; at < ms && !isOver; at += 10) {
      await this.time.pass(10);
    }
    return await watched;
  }

  async member(replica: Replica, member: string, options: MemberOptions = {}): Promise<TestMember> {
    const consumer = new TestMember(this, replica, member, options);
    await this.during(consumer.open());
    await this.time.pass(20);
    return consumer;
  }

  #wakeUp() {
    return {
      nudge: () => undefined,
      wait: (_found: boolean, ending: AbortSignal) =>
        new Promise<void>((resolve) => {
          const cancel = this.time.after(40, resolve);
          ending.addEventListener("abort", () => [cancel(), resolve()], { once: true });
        }),
    };
  }

  #counted(store: SubscriptionStore): SubscriptionStore {
    const { statements } = this;
    return new Proxy(store, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name);
        if (typeof value !== "function") return value;
        return (...args: unknown[]) => {
          statements[String(name)] = (statements[String(name)] ?? 0) + 1;
          return Reflect.apply(value, target, args);
        };
      },
    });
  }
}

export interface MemberOptions {
  readonly id?: string;
  readonly inPieces?: boolean;
  readonly request?: Partial<StreamRequest>;
}

/** A member that takes whatever comes, unless it is told to stop. */
export class TestMember implements Outlet {
  readonly frames: Frame[] = [];
  readonly inline = false;
  ready = true;
  /** Whoever it is: it takes one frame, and then nothing until it is told to. */
  takesOne = false;
  ended = false;
  error: unknown;
  control: StreamControl | undefined;
  generation = 0;
  readonly #world: GroupWorld;
  readonly #replica: Replica;
  readonly #name: string;
  readonly #options: MemberOptions;

  constructor(world: GroupWorld, replica: Replica, name: string, options: MemberOptions) {
    this.#world = world;
    this.#replica = replica;
    this.#name = name;
    this.#options = options;
  }

  get id(): string {
    return this.#options.id ?? "g";
  }

  get #consumer(): Consumer {
    const { request, inPieces } = this.#options;
    const group = this.#world.terms;
    const terms = () => ({ request: { ...REQUEST, ...request }, group });
    return { id: this.id, member: this.#name, inPieces, terms };
  }

  async open(): Promise<void> {
    this.#take(await this.#replica.subscriptions.open(this.#consumer, signal));
  }

  /** Once its stream has ended. */
  async comeAgain(): Promise<void> {
    const consumer = { ...this.#consumer, generation: this.generation };
    this.ended = false;
    this.#take(await this.#world.during(this.#replica.subscriptions.reopen(consumer, signal)));
    await this.#world.time.pass(20);
  }

  get events(): readonly Event[] {
    return this.frames.flatMap((frame) => (frame.kind === "events" ? frame.events : []));
  }

  /** `key:version` of what came for the first time, `key:version×attempt` of what came again. */
  get told(): readonly string[] {
    return this.events.map(({ key, version, attempt }) => {
      return `${key ?? "-"}:${version}${attempt === undefined ? "" : `×${attempt}`}`;
    });
  }

  get closing(): string | undefined {
    const last = this.frames.at(-1);
    return last?.kind === "closing" ? last.reason : undefined;
  }

  get batches(): readonly EventsFrame[] {
    return this.frames.filter((frame) => frame.kind === "events");
  }

  /** Everything up to this frame, by default the last. */
  acknowledge(frame: Frame | undefined = this.batches.at(-1)): Promise<Acknowledged> {
    return this.say({ cursor: frame === undefined ? undefined : encodeCursor(frame.cursor) });
  }

  say(
    said: { cursor?: string | undefined; versions?: readonly number[]; rejections?: readonly Rejection[] },
    generation = this.generation,
  ): Promise<Acknowledged> {
    const { versions = [], rejections = [], cursor } = said;
    const acknowledgement = { id: this.id, generation, member: this.#name, cursor, versions, rejections };
    return this.#world.during(this.#replica.subscriptions.acknowledge(acknowledgement, signal));
  }

  leave(): void {
    this.control?.cancel(new Error("the member has gone"));
  }

  resume(): void {
    this.ready = true;
    this.control?.resume();
  }

  write(frame: Frame): void {
    this.frames.push(frame);
    this.ready = !this.takesOne;
  }

  end(error: unknown): void {
    this.ended = true;
    this.error = error;
  }

  #take(stream: Awaited<ReturnType<Subscriptions["open"]>>): void {
    this.frames.push(stream.opened);
    if (stream.opened.kind === "opened") {
      this.generation = stream.opened.lease?.generation ?? 0;
    }
    this.control = stream.attach(this);
  }
}
