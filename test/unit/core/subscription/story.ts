import { encodeCursor } from "../../../../src/core/cursor.ts";
import { FeedError } from "../../../../src/core/errors.ts";
import type { SubscriptionStore } from "../../../../src/core/subscription/subscription-store.ts";
import { acknowledgement, type Replica, SubscribedWorld, signal, TestConsumer } from "./setup.ts";

/** What is done to the database of a story, to see whether its judge notices. */
export type Fault =
  /** Whoever acknowledges is believed, whatever its generation. */
  | "believes_everybody"
  /** Acknowledgements are answered without being written. */
  | "answers_too_early"
  /** A position that is said moves the subscription back, too. */
  | "moves_back"
  /** A consumer begins after what was delivered, instead of what was acknowledged. */
  | "takes_delivered_for_done"
  /** Deliveries that are told count twice. */
  | "counts_twice";

export interface StoryOptions {
  readonly seed: number;
  readonly steps: number;
  readonly fault?: Fault;
  /** Nobody is killed, and nobody takes over: then `attempt` is exact. */
  readonly orderly?: boolean;
}

interface Life {
  readonly consumer: TestConsumer;
  readonly replica: Killable;
  /** Its last frame that it knows to be acknowledged. */
  taken: number;
}

interface Killable {
  readonly replica: Replica;
  readonly alive: { value: boolean };
}

/**
 * Consumers that come, acknowledge, go, take over from each other on two replicas and are killed with them, at random; what
 * each was given is held against what it may be given.
 */
export async function tellStory({ seed, steps, fault, orderly = false }: StoryOptions): Promise<readonly string[]> {
  return await new Story(seed, fault, orderly).tell(steps);
}

class Story {
  readonly #world = new SubscribedWorld();
  readonly #objections: string[] = [];
  readonly #random: () => number;
  readonly #fault: Fault | undefined;
  readonly #orderly: boolean;
  readonly #replicas: Killable[] = [];
  readonly #lives: Life[] = [];
  readonly #deliveries = new Map<number, number>();
  #acknowledged = 0;
  #position = 0;

  constructor(seed: number, fault: Fault | undefined, orderly: boolean) {
    this.#random = mulberry(seed);
    this.#fault = fault;
    this.#orderly = orderly;
  }

  async tell(steps: number): Promise<readonly string[]> {
    await this.#join();
    if (!this.#orderly) await this.#join();
    await this.#world.create(this.#one(this.#replicas).replica);
    for (let step = 0; step < steps; step++) await this.#step();
    await this.#end();
    return this.#objections;
  }

  async #step(): Promise<void> {
    const roll = this.#random();
    if (roll < 0.25) await this.#world.emit(1 + Math.floor(this.#random() * 4));
    else if (roll < 0.45) await this.#open();
    else if (roll < 0.75) await this.#acknowledge();
    else if (roll < 0.87) this.#leave();
    else if (roll < 0.95) await this.#world.time.pass(Math.floor(this.#random() * 3_000));
    else if (!this.#orderly) await this.#kill();
    this.#take();
    await this.#look();
  }

  async #join(): Promise<void> {
    const alive = { value: true };
    const faulty = (store: SubscriptionStore) => this.#spoil(store, alive);
    this.#replicas.push({ replica: await this.#world.replica(false, faulty), alive });
  }

  async #open(): Promise<void> {
    if (this.#orderly) {
      this.#leave();
      await this.#world.time.pass(10);
    }
    const replica = this.#one(this.#replicas);
    const before = this.#acknowledged;
    const consumer = await TestConsumer.open(replica.replica);
    const [opened] = consumer.frames;
    const version = opened?.kind === "opened" ? opened.version : -1;
    this.#expect(version === before, `opened at ${version}, after ${before} was acknowledged`);
    this.#lives.push({ consumer, replica, taken: version });
    await this.#world.time.pass(20);
  }

  /** The newest consumer or an older one, whatever it was given last or before. */
  async #acknowledge(): Promise<void> {
    const life = this.#random() < 0.8 ? this.#lives.at(-1) : this.#one(this.#lives);
    const event = life && this.#one(life.consumer.events);
    if (life === undefined || event === undefined || !life.replica.alive.value) return;
    const frame = life.consumer.frames.find(({ cursor }) => cursor.version >= event.version);
    if (frame === undefined) return;
    const cursor = encodeCursor({ ...frame.cursor, version: event.version, fingerprint: 0 });
    const newest = Math.max(...this.#lives.map(({ consumer }) => consumer.generation));
    const said = acknowledgement("s", undefined, life.consumer.generation);
    const outcome = await life.replica.replica.subscriptions.acknowledge({ ...said, cursor }, signal).catch(failure);
    if (outcome instanceof FeedError) {
      this.#expect(outcome.code === "SUBSCRIPTION_FENCED", `an acknowledgement failed with ${outcome.code}`);
      this.#expect(life.consumer.generation < newest, "the newest consumer was fenced");
      return;
    }
    this.#expect(life.consumer.generation === newest, `generation ${life.consumer.generation} was believed`);
    this.#expect(
      outcome.version >= event.version,
      `${event.version} was acknowledged, and it stands at ${outcome.version}`,
    );
    this.#acknowledged = Math.max(this.#acknowledged, event.version);
  }

  #leave(): void {
    this.#lives.at(-1)?.consumer.leave();
  }

  /** Says nothing any more, from one moment to the next. */
  async #kill(): Promise<void> {
    const at = Math.floor(this.#random() * this.#replicas.length);
    const [killed] = this.#replicas.splice(at, 1);
    if (killed !== undefined) killed.alive.value = false;
    await this.#join();
  }

  /** What has come since the last time: each in its place, and as the how manieth time it says. */
  #take(): void {
    for (const life of this.#lives) {
      const { consumer } = life;
      for (const { version, attempt = 1 } of consumer.events.filter((event) => event.version > life.taken)) {
        this.#expect(version === life.taken + 1, `${version} came after ${life.taken}`);
        life.taken = version;
        const times = (this.#deliveries.get(version) ?? 0) + 1;
        this.#deliveries.set(version, times);
        const right = this.#orderly ? attempt === times : attempt <= times;
        this.#expect(right, `${version} came for the ${times}th time, and said ${attempt}`);
      }
    }
  }

  async #look(): Promise<void> {
    const { position } = await this.#world.memory.subscriptions.get("s", signal);
    this.#expect(position.version >= this.#position, `moved back from ${this.#position} to ${position.version}`);
    this.#expect(position.version >= this.#acknowledged, `${this.#acknowledged} was acknowledged and is not kept`);
    this.#position = position.version;
  }

  /** A last consumer gets all that is left. */
  async #end(): Promise<void> {
    await this.#world.emit();
    await this.#open();
    await this.#world.time.pass(50);
    this.#take();
    const { head } = this.#one(this.#replicas).replica.feed.status();
    for (let version = 1; version <= head; version++) {
      this.#expect(this.#deliveries.has(version), `${version} never came`);
    }
  }

  #expect(holds: boolean, objection: string): void {
    if (!holds) this.#objections.push(objection);
  }

  #one<T>(many: readonly T[]): T {
    const one = many[Math.floor(this.#random() * many.length)];
    if (one === undefined && many.length > 0) throw new Error("there is none");
    return one as T;
  }

  #spoil(store: SubscriptionStore, alive: { readonly value: boolean }): SubscriptionStore {
    const fault = this.#fault;
    const spoilt: Partial<SubscriptionStore> = {
      advance: async (advances, ending) => {
        if (!alive.value) return await new Promise<never>(() => undefined);
        if (fault === "answers_too_early" && this.#random() < 0.3) {
          const positions = advances.flatMap(({ position }) => position ?? []);
          if (positions.length === advances.length) {
            return positions.map((position) => ({ kind: "advanced", position }) as const);
          }
        }
        if (fault === "moves_back") {
          for (const { id, position, generation } of advances) {
            const { generation: newest } = await store.get(id, ending);
            if (position !== undefined && generation === newest) return await movedBack(store, advances, ending);
          }
        }
        const said = advances.map((advance) => ({
          ...advance,
          ...(fault === "believes_everybody" ? { generation: 0 } : {}),
          ...(fault === "counts_twice" && advance.delivered !== undefined
            ? { delivered: advance.delivered.map((step) => ({ ...step, attempts: step.attempts + 1 })) }
            : {}),
        }));
        return await store.advance(said, ending);
      },
      claim: async (id, claimant, ending) => {
        const claim = await store.claim(id, claimant, ending);
        const last = claim.kind === "claimed" ? claim.delivered.at(-1) : undefined;
        if (fault !== "takes_delivered_for_done" || last === undefined || claim.kind !== "claimed") return claim;
        const { epoch } = claim.record.position;
        const cursor = encodeCursor({ epoch, version: last.version, fingerprint: 0, snapshot: undefined });
        return { ...claim, record: { ...claim.record, position: { cursor, epoch, version: last.version } } };
      },
    };
    return new Proxy(store, {
      get(target, name) {
        const value: unknown = Reflect.get(spoilt, name) ?? Reflect.get(target, name);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  }
}

/** By what moves subscriptions, and raises no generation that anybody could notice. */
async function movedBack(
  store: SubscriptionStore,
  advances: Parameters<SubscriptionStore["advance"]>[0],
  ending: AbortSignal,
) {
  const outcomes = [];
  for (const advance of advances) {
    const { position } = advance;
    const [outcome] = await store.advance([advance], ending);
    if (position !== undefined && outcome?.kind === "advanced" && outcome.position.version > position.version) {
      await store.seek(advance.id, position, ending);
      outcomes.push({ kind: "advanced", position } as const);
    } else if (outcome !== undefined) {
      outcomes.push(outcome);
    }
  }
  return outcomes;
}

function failure(error: unknown): FeedError {
  if (error instanceof FeedError) return error;
  throw error;
}

/** Uniform in [0, 1), the same for the same seed. */
function mulberry(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
