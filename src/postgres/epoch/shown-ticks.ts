import { EpochOver } from "../../core/lineage.ts";
import { type Tick, tickEnd } from "../../core/page.ts";
import type { Lease } from "../lease.ts";
import { tickFate } from "../statements/tick.ts";

/**
 * The newest ticks that this process has shown to anybody. A database that does not have them any more is not the one that
 * they came from: a disk that was rolled back looks the same in every other way.
 *
 * Two of them, because readers of history may be ahead of the tail; and the tail's own, because a reader may already have
 * been to the other database.
 */
export class ShownTicks {
  #tails: Tick | undefined;
  #readers: Tick | undefined;

  /** Once the tail has passed it, what readers have seen of it counts for nothing. */
  byTail(tick: Tick | undefined): void {
    this.#tails = tick ?? this.#tails;
  }

  byReader(tick: Tick | undefined): void {
    if (tick !== undefined && tick.tick > (this.#readers?.tick ?? -1)) {
      this.#readers = tick;
    }
  }

  /** At most two, oldest first; none when nothing was shown. */
  get newest(): readonly Tick[] {
    const ahead = this.#readers !== undefined && this.#readers.tick > (this.#tails?.tick ?? -1);
    return [this.#tails, ahead ? this.#readers : undefined].filter((tick) => tick !== undefined);
  }
}

/**
 * Asks for each of these ticks whether it is still there. One that retention has dropped proves nothing.
 *
 * @throws EpochOver for one that is gone although older ones are there
 */
export async function assertContinues(lease: Lease, ticks: readonly Tick[]): Promise<void> {
  for (const tick of ticks) {
    const [fate] = await lease.rows<{ readonly held: boolean; readonly dropped: boolean }>(tickFate(tick));
    if (fate?.held === true || fate?.dropped === true) continue;
    throw new EpochOver(
      `The database does not hold tick ${tick.tick} any more, which settled the versions up to ${tickEnd(tick)}: its data are from an earlier time.`,
    );
  }
}
