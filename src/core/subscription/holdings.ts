import type { Clock, Timers } from "../ports.ts";
import type { Advances, PlainAdvance } from "./advances.ts";
import type { Groups } from "./group-consumers.ts";
import type { Holding } from "./holding.ts";
import { storedPosition } from "./positions.ts";
import type { SubscriptionState, SubscriptionStore } from "./subscription-store.ts";

/** Deliveries are told to the database so long after the first that it does not know of. */
const TELL_MS = 1_000;
/** Held subscriptions are looked after so often, if no hint comes before. */
const LOOK_MS = 2_000;
/** A hint waits so long for others: one claim is several of them. */
const HINT_MS = 5;
/** A subscription that is being read is said to be used, and its silent progress is written, so often. */
const USE_MS = 60_000;
/** Of one that expires: so many times before it would. */
const USES_BEFORE_EXPIRY = 4;
/** Holdings without a stream that are kept, for consumers that come in pieces, and for how long. */
const MAX_AT_REST = 10_000;
const REST_MS = 150_000;

/** What holdings are kept with. */
export interface HoldingsOptions {
  readonly store: Pick<SubscriptionStore, "states">;
  readonly advances: Advances;
  readonly groups: Pick<Groups, "held" | "observe"> | undefined;
  readonly clock: Clock;
  readonly timers: Timers;
  readonly signal: AbortSignal;
  readonly report: (message: string, error?: unknown) => void;
  readonly onFenced: () => void;
}

/**
 * What this process holds of all subscriptions, and what goes to and fro between it and the database while they are held: how
 * far was delivered, that they are used, and whether somebody else has taken, paused, moved or deleted one. All of it is said
 * and asked of all of them at once.
 */
export class Holdings {
  readonly #options: HoldingsOptions;
  readonly #held = new Map<string, Holding>();
  readonly #untold = new Set<Holding>();
  #looks = 0;
  #looking = false;
  #lookAgain = false;
  #cancelLook: (() => void) | undefined;
  #lookAtMs = Number.POSITIVE_INFINITY;
  #cancelTell: (() => void) | undefined;
  #failing = false;

  constructor(options: HoldingsOptions) {
    this.#options = options;
  }

  /** Begun so far. */
  get looks(): number {
    return this.#looks;
  }

  get streams(): number {
    let streams = 0;
    for (const { stream } of this.#held.values()) {
      streams += stream === undefined ? 0 : 1;
    }
    return streams;
  }

  of(id: string): Holding | undefined {
    return this.#held.get(id);
  }

  /** Takes the place of an older one, whose stream ends. */
  add(holding: Holding): void {
    const before = this.#held.get(holding.id);
    if (before !== undefined && before !== holding) {
      this.#drop(before, "TAKEN_OVER");
    }
    this.#held.set(holding.id, holding);
    this.#lookIn(LOOK_MS);
  }

  /** Its stream has ended. */
  rest(holding: Holding): void {
    holding.usedAtMs = this.#options.clock.monotonic();
    if (holding.untold) {
      this.#tell([holding]);
    }
  }

  /** Resolves when the database has been told all that this process has delivered of it, as far as it can be. */
  async told(id: string): Promise<void> {
    const holding = this.#held.get(id);
    if (holding?.untold === true) {
      this.#tell([holding]);
    }
    await holding?.telling;
  }

  /** Something was delivered that the database does not know of. */
  delivered(holding: Holding): void {
    if (this.#untold.size === 0) {
      this.#cancelTell = this.#options.timers.after(TELL_MS, () => this.#tell([...this.#untold]));
    }
    this.#untold.add(holding);
  }

  /** Somebody may have changed it, or any of them. */
  hint(id: string | undefined): void {
    const { groups } = this.#options;
    if (id === undefined || this.#held.has(id) || groups?.held().includes(id) === true) {
      this.#lookIn(HINT_MS);
    }
  }

  /** It was changed here. */
  drop(id: string, reason: "PAUSED" | "MOVED" | "DELETED"): void {
    const holding = this.#held.get(id);
    if (holding !== undefined) {
      this.#drop(holding, reason);
    }
    if (this.#options.groups?.held().includes(id) === true) {
      this.#lookIn(0);
    }
  }

  /** Looks after groups, of which it is told when it looks. */
  lookSoon(): void {
    this.#lookIn(LOOK_MS);
  }

  /** Tells the database all that it does not know, and looks no more. */
  async stop(): Promise<void> {
    this.#cancelLook?.();
    this.#cancelTell?.();
    for (const holding of this.#held.values()) {
      this.#use(holding);
    }
    await this.#options.advances.settled();
    this.#cancelLook?.();
    this.#cancelTell?.();
  }

  #drop(holding: Holding, reason: "TAKEN_OVER" | "PAUSED" | "MOVED" | "DELETED"): void {
    if (this.#held.get(holding.id) === holding) {
      this.#held.delete(holding.id);
    }
    this.#untold.delete(holding);
    holding.stream?.endWith(reason);
    holding.stream = undefined;
  }

  #letRest(): void {
    const oldestMs = this.#options.clock.monotonic() - REST_MS;
    let over = this.#held.size - this.streams - MAX_AT_REST;
    for (const holding of this.#held.values()) {
      if (holding.stream === undefined && (holding.usedAtMs < oldestMs || over > 0)) {
        this.#held.delete(holding.id);
        over -= 1;
      }
    }
  }

  #tell(holdings: readonly Holding[]): void {
    for (const holding of holdings) {
      this.#untold.delete(holding);
      if (holding.untold) {
        const delivered = holding.tell();
        if (delivered.length > 0) {
          this.#say(holding, { id: holding.id, generation: holding.generation, delivered });
        }
      }
    }
  }

  /** That it is used, and where it stands without anybody having to say so. */
  #use(holding: Holding): void {
    const { moment } = holding;
    const position = moment === undefined ? undefined : storedPosition(moment);
    const delivered = holding.untold ? holding.tell() : undefined;
    if (holding.stream !== undefined || position !== undefined || delivered !== undefined) {
      holding.toldAtMs = this.#options.clock.monotonic();
      this.#say(holding, { id: holding.id, generation: holding.generation, position, delivered });
    }
  }

  #say(holding: Holding, advance: PlainAdvance): void {
    const { advances, report, onFenced } = this.#options;
    holding.telling = advances.say(advance).then(
      (outcome) => {
        if (outcome.kind === "advanced") {
          holding.acknowledged(outcome.position);
        } else if (this.#held.get(holding.id) === holding) {
          if (outcome.kind === "fenced") {
            onFenced();
          }
          // Who has it now, and why, is for the database to say.
          this.#lookIn(0);
        }
      },
      (error: unknown) => {
        holding.tellAgain();
        if (this.#held.get(holding.id) === holding && !this.#options.signal.aborted) {
          this.delivered(holding);
        }
        this.#fail(report, error);
      },
    );
  }

  #fail(report: HoldingsOptions["report"], error: unknown): void {
    if (!this.#failing && !this.#options.signal.aborted) {
      report("How far subscriptions were delivered could not be written down; it is tried again.", error);
    }
    this.#failing = true;
  }

  #lookIn(delayMs: number): void {
    const { clock, timers, signal } = this.#options;
    const atMs = clock.monotonic() + delayMs;
    if (signal.aborted || atMs >= this.#lookAtMs) {
      return;
    }
    this.#cancelLook?.();
    this.#lookAtMs = atMs;
    this.#cancelLook = timers.after(delayMs, () => {
      this.#lookAtMs = Number.POSITIVE_INFINITY;
      void this.#look();
    });
  }

  async #look(): Promise<void> {
    if (this.#looking) {
      this.#lookAgain = true;
      return;
    }
    const { store, groups, signal, report } = this.#options;
    const ofGroups = groups?.held() ?? [];
    const ids = [...this.#held.keys(), ...ofGroups];
    if (ids.length === 0 || signal.aborted) {
      return;
    }
    this.#looking = true;
    this.#looks += 1;
    const look = this.#looks;
    try {
      const states = new Map((await store.states(ids, signal)).map((state) => [state.id, state]));
      this.#failing = false;
      for (const id of ofGroups) {
        groups?.observe(id, states.get(id));
      }
      for (const holding of [...this.#held.values()]) {
        if (holding.bornAtLook < look) {
          this.#compare(holding, states.get(holding.id));
        }
      }
      this.#sayUsed();
    } catch (error) {
      this.#fail(report, error);
    } finally {
      this.#looking = false;
      this.#lookIn(this.#lookAgain ? 0 : LOOK_MS);
      this.#lookAgain = false;
    }
  }

  #compare(holding: Holding, state: SubscriptionState | undefined): void {
    if (state === undefined) {
      this.#drop(holding, "DELETED");
    } else if (state.generation > holding.generation) {
      this.#options.onFenced();
      this.#drop(holding, state.movedGeneration > holding.generation ? "MOVED" : "TAKEN_OVER");
    } else if (state.state === "PAUSED") {
      this.#drop(holding, "PAUSED");
    }
  }

  #sayUsed(): void {
    const nowMs = this.#options.clock.monotonic();
    for (const holding of this.#held.values()) {
      const { expireAfterMs = Number.POSITIVE_INFINITY, stream, toldAtMs } = holding;
      if (stream !== undefined && nowMs - toldAtMs >= Math.min(USE_MS, expireAfterMs / USES_BEFORE_EXPIRY)) {
        this.#use(holding);
      }
    }
    this.#letRest();
  }
}
