import { FeedError } from "../errors.ts";
import type { Matcher } from "../selector/selector.ts";
import {
  SnapshotRun,
  type SnapshotRunOptions,
  type SnapshotStarted,
  type SnapshotStep,
} from "../snapshot/snapshot-run.ts";
import type { Addition } from "./selector-addition.ts";

/** What a stream delivers rows from. */
export type RowSource = Pick<SnapshotRun, "next" | "close">;

/** What is copied, and where to. */
export interface SelectorChangeRunOptions extends Pick<SnapshotRunOptions, "store" | "log" | "signal"> {
  readonly matcher: Matcher;
  readonly addition: Addition;
}

/**
 * The rows that a change of selectors adds.
 *
 * To go on with them later would take both selections, and who resumes has only the new one: so wherever they are cut, by the
 * client or by the bounds of one copy, all rows of the new selectors come, and what was delivered is void. From then on that
 * is a snapshot like any other.
 */
export class SelectorChangeRun implements RowSource {
  readonly #options: SelectorChangeRunOptions;
  #run: SnapshotRun;
  #started = false;
  #anew = false;
  #closed = false;

  constructor(options: SelectorChangeRunOptions) {
    const { store, log, signal, addition } = options;
    this.#options = options;
    this.#run = new SnapshotRun({ store, log, signal, matcher: addition, from: undefined });
  }

  /** Once, before all else: the version that the rows are as of. */
  async start(): Promise<SnapshotStarted> {
    const step = await this.#run.next();
    if (step?.kind !== "started") {
      throw new FeedError("INTERNAL", "A snapshot began with its rows.", "Report this as a fault of Millrace.");
    }
    this.#started = true;
    // Whoever holds rows keeps them: these come beside them.
    return { ...step, resumed: true, state: { ...step.state, place: "anew" } };
  }

  async next(): Promise<SnapshotStep | undefined> {
    const step = await this.#run.next();
    if (this.#anew || !this.#started || step === undefined) {
      return step;
    }
    if (step.kind === "rows") {
      return { ...step, state: { ...step.state, place: "anew" } };
    }
    return await this.#beginAnew();
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#run.close();
  }

  async #beginAnew(): Promise<SnapshotStep | undefined> {
    const { store, log, signal, matcher } = this.#options;
    await this.#run.close();
    this.#anew = true;
    this.#run = new SnapshotRun({ store, log, signal, matcher, from: "anew" });
    if (this.#closed) {
      await this.#run.close();
    }
    return await this.#run.next();
  }
}
