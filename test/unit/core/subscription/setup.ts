import { encodeCursor } from "../../../../src/core/cursor.ts";
import { createFeed } from "../../../../src/core/feed/feed-service.ts";
import type { EpochFeed, Start, StreamRequest } from "../../../../src/core/feed.ts";
import type { Frame } from "../../../../src/core/frame.ts";
import type { Outlet, StreamControl } from "../../../../src/core/outlet.ts";
import { createSubscriptions } from "../../../../src/core/subscription/subscription-service.ts";
import type { NewSubscription, SubscriptionStore } from "../../../../src/core/subscription/subscription-store.ts";
import type { Acknowledged, Consumer, Subscriptions } from "../../../../src/core/subscription/subscriptions.ts";
import { createMemoryStore, type MemoryStore } from "../../../../src/memory/store.ts";
import { ManualTime } from "../manual-time.ts";
import { REQUEST } from "../memory-feed.ts";

export const signal = new AbortController().signal;

/** One process of several over the same store. */
export interface Replica {
  readonly feed: EpochFeed;
  readonly subscriptions: Subscriptions;
  readonly reports: string[];
}

export class SubscribedWorld {
  readonly time = new ManualTime();
  memory: MemoryStore = createMemoryStore({ clock: this.time, sources: ["orders"] });
  /** Statements of each kind that the replicas have sent. */
  readonly statements: Record<string, number> = {};
  #replicas = 0;

  /** One that is deaf hears of no changes but by asking. */
  async replica(
    deaf = false,
    through = (store: SubscriptionStore) => store,
    maxSubscriptions?: number,
  ): Promise<Replica> {
    this.#replicas += 1;
    const { time } = this;
    const reports: string[] = [];
    const report = (message: string) => reports.push(message);
    const feed = createFeed({ store: this.memory, wakeUp: this.#wakeUp(), clock: time, timers: time, report });
    await feed.start(signal);
    const subscriptions = createSubscriptions({
      feed,
      store: through(this.#counted(this.memory.subscriptions, deaf)),
      clock: time,
      timers: time,
      replica: `replica ${this.#replicas}`,
      maxSubscriptions,
      report,
    });
    await subscriptions.start(signal);
    return { feed, subscriptions, reports };
  }

  /** So many messages, in one transaction, settled and delivered. */
  async emit(count = 1): Promise<void> {
    const transaction = this.memory.begin();
    for (let i = 0; i < count; i++) {
      transaction.emit({ topic: "notes", key: undefined, operation: "MESSAGE", payload: "{}", headers: {} });
    }
    transaction.commit();
    await this.time.pass(50);
  }

  async create(
    { subscriptions }: Replica,
    id = "s",
    start: Start = { kind: "now" },
    more: Partial<NewSubscription> = {},
  ) {
    const subscription = { id, definition: "{}", isGroup: false, topics: [], owner: "", labels: {}, ...more };
    return await subscriptions.create({ expireAfterMs: undefined, ...subscription }, start, signal);
  }

  #wakeUp() {
    return {
      nudge: () => undefined,
      wait: (_found: boolean, ending: AbortSignal) =>
        new Promise<void>((resolve) => {
          const cancel = this.time.after(10, resolve);
          ending.addEventListener("abort", () => [cancel(), resolve()], { once: true });
        }),
    };
  }

  /** The store, whose statements are counted; one that is deaf hears of no changes but by asking. */
  #counted(store: SubscriptionStore, deaf: boolean): SubscriptionStore {
    const { statements } = this;
    return new Proxy(store, {
      get(target, name) {
        if (name === "onChange" && deaf) return () => () => undefined;
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

/** A consumer that takes whatever comes, unless it is told to stop. */
export class TestConsumer implements Outlet {
  readonly frames: Frame[] = [];
  readonly inline = false;
  ready = true;
  ended = false;
  error: unknown;
  control: StreamControl | undefined;
  readonly #replica: Replica;
  readonly #id: string;

  private constructor(replica: Replica, id: string) {
    this.#replica = replica;
    this.#id = id;
  }

  static async open(replica: Replica, id = "s", options: Partial<StreamRequest> = {}): Promise<TestConsumer> {
    const consumer = new TestConsumer(replica, id);
    consumer.#take(await replica.subscriptions.open(consumerOf(id, options), signal));
    return consumer;
  }

  static async reopen(replica: Replica, generation: number, id = "s"): Promise<TestConsumer> {
    const consumer = new TestConsumer(replica, id);
    consumer.#take(await replica.subscriptions.reopen({ ...consumerOf(id), generation }, signal));
    return consumer;
  }

  get generation(): number {
    const [opened] = this.frames;
    return opened?.kind === "opened" ? (opened.lease?.generation ?? 0) : 0;
  }

  get events() {
    return this.frames.flatMap((frame) => (frame.kind === "events" ? frame.events : []));
  }

  /** `version` of what came for the first time, `version×attempt` of what came again. */
  get told(): string[] {
    return this.events.map(({ version, attempt }) => (attempt === undefined ? `${version}` : `${version}×${attempt}`));
  }

  get closing(): string | undefined {
    const last = this.frames.at(-1);
    return last?.kind === "closing" ? last.reason : undefined;
  }

  acknowledge(frame: Frame | undefined, generation = this.generation): Promise<Acknowledged> {
    return this.#replica.subscriptions.acknowledge(acknowledgement(this.#id, frame, generation), signal);
  }

  /** The last batch, and everything before it. */
  acknowledgeAll(generation = this.generation): Promise<Acknowledged> {
    return this.acknowledge(
      this.frames.findLast(({ kind }) => kind === "events"),
      generation,
    );
  }

  leave(): void {
    this.control?.cancel(new Error("the consumer has gone"));
  }

  write(frame: Frame): void {
    this.frames.push(frame);
  }

  end(error: unknown): void {
    this.ended = true;
    this.error = error;
  }

  #take(stream: Awaited<ReturnType<Subscriptions["open"]>>): void {
    this.frames.push(stream.opened);
    this.control = stream.attach(this);
  }
}

export function consumerOf(id: string, options: Partial<StreamRequest> = {}): Consumer {
  return { id, member: undefined, terms: () => ({ request: { ...REQUEST, ...options }, group: undefined }) };
}

export function acknowledgement(id: string, frame: Frame | undefined, generation: number) {
  const cursor = frame === undefined ? undefined : encodeCursor(frame.cursor);
  return { id, generation, member: undefined, cursor, versions: [], rejections: [] };
}
