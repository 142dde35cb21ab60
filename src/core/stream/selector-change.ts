import { FeedError } from "../errors.ts";
import type { Version } from "../event.ts";
import type { Lane } from "../lane/lane.ts";
import { tickEnd } from "../page.ts";
import type { SnapshotStarted } from "../snapshot/snapshot-run.ts";
import type { Position, Progress } from "./scan.ts";

/** Other selectors for a stream. */
export interface ChangeTerms {
  /** Of those that the stream was asked for, from 1. */
  readonly number: number;
  /** Of the new selectors. */
  readonly lane: Lane;
  /** Whether rows may be selected that were not. */
  readonly adds: boolean;
}

/** How the stream stands that is to change. */
export interface ChangeStanding {
  readonly progress: Progress;
  /** It stands at a boundary, with everything delivered. */
  readonly clean: boolean;
  /** What follows is in the log. */
  readonly inLog: boolean;
  /** The newest version in the log. */
  readonly head: Version;
}

/** What is to be done about a change: nothing yet, its snapshot be opened, or the selectors be changed. */
export type ChangeStep = "go_on" | "open" | "change";

/**
 * A change of selectors that is still ahead of its stream, as a machine without I/O.
 *
 * The new selectors take effect at the end of a tick. Where they add no rows, that is the next that the stream comes to.
 * Where they do, a snapshot says what there is to add and at which version, and the stream must come to exactly that version
 * with the old selectors: it can be no earlier than what the feed knew when the snapshot was asked for, so up to there the
 * stream goes on, then it waits for the snapshot to say, and then it goes on up to what that says. A stream that is far behind
 * asks for the snapshot when it has caught up, for that must be kept until the stream has come to it.
 */
export class SelectorChange {
  readonly terms: ChangeTerms;
  #stop: Version | undefined;
  #opening = false;
  #started: SnapshotStarted | undefined;

  constructor(terms: ChangeTerms) {
    this.terms = terms;
  }

  /** After this version nothing is delivered by the old selectors. */
  get stop(): Version | undefined {
    return this.#stop;
  }

  /** How the snapshot of what is added began. */
  get started(): SnapshotStarted | undefined {
    return this.#started;
  }

  /** The snapshot has begun; `undefined` when it could not, and is to be asked for again. */
  supply(started: SnapshotStarted | undefined): void {
    this.#opening = started !== undefined;
    this.#started = started;
    this.#stop = started?.version;
  }

  next({ progress, clean, inLog, head }: ChangeStanding): ChangeStep {
    if (!this.terms.adds) {
      this.#stop = progress.clean || progress.tick === undefined ? undefined : tickEnd(progress.tick);
      return clean ? "change" : "go_on";
    }
    if (this.#started !== undefined) {
      return this.#isAt(this.#started.version, progress) ? "change" : "go_on";
    }
    if (this.#opening || !inLog) {
      return "go_on";
    }
    this.#opening = true;
    this.#stop = head;
    return "open";
  }

  /** Where the new selectors begin. */
  begin(progress: Progress): Position {
    return this.#started?.state.position ?? progress.position;
  }

  #isAt(version: Version, { scanned }: Progress): boolean {
    if (scanned > version) {
      throw new FeedError(
        "INTERNAL",
        `A stream came to version ${scanned} with selectors that end at ${version}.`,
        "Report this as a fault of Millrace.",
      );
    }
    return scanned === version;
  }
}
