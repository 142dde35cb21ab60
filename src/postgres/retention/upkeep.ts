import type pg from "pg";
import { sentence, sqlState, sqlStateOf } from "../database-error.ts";
import { duration } from "../finding.ts";
import { type Lease, withLease } from "../lease.ts";
import { look } from "../look.ts";
import { noteUpkeep, outboxLockHolders, prunable, type UpkeepCall, upkeepStep, upkeepTimeoutMs } from "./statements.ts";

/** What one round of upkeep has done. */
export interface Upkeep {
  /** Partitions made ahead. */
  readonly made: number;
  /** The default partition became an ordinary one. */
  readonly turned: boolean;
  /** Events go to the next partition from now on. */
  readonly rotated: boolean;
  /** Ticks that were forgotten, and their versions with them. */
  readonly forgotten: number;
  /** Names of partitions that were dropped. */
  readonly dropped: readonly string[];
  /** Subscriptions that were found to have lost history. Of all servers one finds each, once. */
  readonly lost: readonly string[];
  /** Subscriptions that nobody used, and that are deleted. */
  readonly expired: readonly string[];
  /** What could not be done, and who was in the way, as a sentence. */
  readonly waitsFor: string | undefined;
}

/** A partition that is past a limit. */
export interface Prunable {
  readonly name: string;
  readonly lowerSeq: number;
  readonly upperSeq: number;
  readonly bytes: number;
  /** The last version that is forgotten with it. */
  readonly lastVersion: number;
  /** When that settled, in milliseconds since the Unix epoch. */
  readonly settledAtMs: number;
  /** `forgotten`: nothing in it is readable any more. */
  readonly reason: "age" | "bytes" | "forgotten";
  /** What needs it, `undefined` for nothing. */
  readonly heldBy: string | undefined;
  /** It goes. Also when it is held, past the cap. */
  readonly due: boolean;
}

/** Ticks that are deleted at once: some 50 ms. */
const ticksAtOnce = 20_000;
/** Subscriptions that are deleted at once. */
const subscriptionsAtOnce = 100;

/** What would go, and what is kept only because it is held. Changes nothing. */
export async function readPrunable(lease: Lease): Promise<readonly Prunable[]> {
  const rows = await look(lease.client, () => lease.rows<Prunable & { readonly heldBy: string | null }>(prunable));
  return rows.map((row) => ({ ...row, heldBy: row.heldBy ?? undefined }));
}

/**
 * One round: makes partitions ahead, makes the default one ordinary if it was used, turns to the next one if the present one
 * spans too much, forgets what is due and drops what holds nothing else.
 *
 * Any number of processes may do so: each step is a transaction of its own that does nothing when it is another's turn, or
 * when there is nothing to do. A lock that cannot be had within 200 ms is given up, for writers queue behind whoever waits.
 *
 * @throws What the driver throws, but for locks that were not to be had.
 */
export async function keepOutbox(pool: pg.Pool, signal: AbortSignal): Promise<Upkeep> {
  return await withLease(pool, signal, async (lease) => {
    const round = new Round(lease);
    const turned = await round.turnDefault();
    const made = Number(
      (await round.step("millrace.extend_outbox(millrace.partition_width())", "make partitions")) ?? 0,
    );
    const rotated = (await round.step("millrace.rotate_outbox()", "turn to the next partition")) === true;
    const forgotten = await round.forget();
    const { lost, expired } = await round.keepSubscriptions();
    const dropped = await round.drop();
    await lease.rows(noteUpkeep, [round.waitsFor ?? null]);
    return { made, turned, rotated, forgotten, lost, expired, dropped, waitsFor: round.waitsFor };
  });
}

/** What `millrace.keep_subscriptions` has done; null for nothing. */
type Kept = Pick<Upkeep, "lost" | "expired">;

const queryCanceled = "57014";

/**
 * Why a step could not be made, when the others can: a lock that was not to be had; a partition that is not the owner's, or
 * that something depends on. `undefined` when it is worse.
 */
function obstacle(error: unknown): "lock" | string | undefined {
  const state = sqlStateOf(error) ?? "";
  if (state === sqlState.lockNotAvailable || state === sqlState.deadlockDetected) return "lock";
  if (state === queryCanceled) return "it took too long";
  return /^(?:42|2B)/.test(state) && error instanceof Error ? error.message : undefined;
}

class Round {
  readonly #lease: Lease;
  waitsFor: string | undefined;
  #lockRefused = false;

  constructor(lease: Lease) {
    this.#lease = lease;
  }

  /** What the function said; `undefined` when it could not be called now. */
  step(call: UpkeepCall, doing: string): Promise<unknown> {
    return this.#attempt(doing, async () => {
      this.#lease.allow(upkeepTimeoutMs(call));
      const results: unknown = await this.#lease.client.query(upkeepStep(call));
      const answer = (results as readonly pg.QueryResult<{ readonly outcome: unknown }>[]).at(-2);
      return answer?.rows[0]?.outcome;
    });
  }

  async #attempt<T>(doing: string, use: () => Promise<T>): Promise<T | undefined> {
    try {
      return await use();
    } catch (error) {
      const reason = obstacle(error);
      if (reason === undefined) throw error;
      await this.#lease.run("rollback");
      this.#lockRefused = reason === "lock";
      this.waitsFor = sentence(`could not ${doing}: ${reason === "lock" ? await this.#holders() : reason}`);
      return undefined;
    }
  }

  async turnDefault(): Promise<boolean> {
    for (;;) {
      const done = await this.step("millrace.turn_default()", "empty the default partition");
      if (done === "turned") return true;
      if (done !== "fenced" && done !== "validated") return false;
    }
  }

  async forget(): Promise<number> {
    let forgotten = 0;
    for (;;) {
      const count = Number((await this.step(`millrace.forget(${ticksAtOnce})`, "forget")) ?? 0);
      forgotten += count;
      if (count < ticksAtOnce) return forgotten;
    }
  }

  async keepSubscriptions(): Promise<Kept> {
    const all: Kept[] = [];
    for (;;) {
      const kept = await this.step(`millrace.keep_subscriptions(${subscriptionsAtOnce})`, "look after subscriptions");
      if (kept === null || kept === undefined) break;
      all.push(kept as Kept);
    }
    return { lost: all.flatMap(({ lost }) => lost), expired: all.flatMap(({ expired }) => expired) };
  }

  async drop(): Promise<readonly string[]> {
    const dropped: string[] = [];
    // Another that keeps the outbox for so long does the rest.
    const found = await this.#attempt("look what to drop", () => readPrunable(this.#lease));
    for (const { name, lowerSeq, reason } of found ?? []) {
      if (reason !== "forgotten") continue;
      const outcome = await this.step(`millrace.drop_partition(${lowerSeq})`, `drop partition ${name}`);
      // The next one would have others wait behind the same holder.
      if (outcome === undefined && this.#lockRefused) break;
      if (outcome === "dropped") dropped.push(name);
    }
    return dropped;
  }

  async #holders(): Promise<string> {
    const rows = await this.#lease.rows<{ readonly holder: string; readonly ageMs: number | null }>(outboxLockHolders);
    if (rows.length === 0) return "somebody who is gone by now was in the way";
    const told = rows.map(({ holder, ageMs }) => (ageMs === null ? holder : `${holder} (since ${duration(ageMs)})`));
    return `${told.join(", ")} ${rows.length === 1 ? "is" : "are"} in the way`;
  }
}
