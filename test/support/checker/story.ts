import type { Complaint, SeenEvent, SeenFrame } from "./seen.ts";
import { describeEvent } from "./seen.ts";
import type { Matching, Selection } from "./selection.ts";
import { keptBy } from "./thinning.ts";
import type { Truth } from "./truth.ts";

/** What a stream was asked for. */
export interface Terms {
  readonly selection: Selection;
  readonly policy: { readonly kind: string; readonly maxLagEvents: number; readonly sampleEvery: number };
  readonly everyTick: boolean;
  readonly maxBatchEvents: number;
  readonly maxBatchBytes: number;
  /** What an event counts for within `maxBatchBytes`. */
  readonly sizeOf: (event: SeenEvent) => number;
}

/** What was known around a frame as it came. */
export interface Around {
  /** The version that its cursor stands for. */
  readonly cursorVersion: number;
  /** What the replica's newest version may have been then. */
  readonly heads: readonly number[];
  /** Milliseconds since the Unix epoch. */
  readonly nowMs: number;
}

/** A piece that was thinned: what is kept of it comes next, and nothing else of it. */
interface Piece {
  readonly until: number;
  readonly kept: ReadonlySet<number>;
}

/** All that a client holds after a frame. Immutable: whoever goes back to an earlier frame goes back to its standing. */
export interface Standing {
  /** Everything that matches up to here came, or was told of. */
  readonly reached: number;
  /** The last version that came, or after which the story began. */
  readonly last: number;
  /** The last place that was a boundary. */
  readonly boundary: number;
  /** Since then: events that came, and how many gaps told of; NaN when one did not count. */
  readonly came: number;
  readonly dropped: number;
  readonly gapped: boolean;
  readonly piece: Piece | undefined;
  readonly state: string | undefined;
}

/** Where a story begins: after this version. */
export function standingAt(version: number): Standing {
  return {
    reached: version,
    last: version,
    boundary: version,
    came: 0,
    dropped: 0,
    gapped: false,
    piece: undefined,
    state: undefined,
  };
}

type Frame<K extends SeenFrame["kind"]> = Extract<SeenFrame, { kind: K }>;
type Guarantee = Complaint["guarantee"];

/**
 * Hears the frames of one stream outside of snapshots, in turn, and holds each against everything that was ever settled: by the
 * plain meaning of G3, G5, G8 and G10. It knows versions, ticks and keys, and nothing of how a stream works.
 */
export class StoryJudge {
  readonly complaints: Complaint[] = [];
  readonly #truth: Truth;
  readonly #terms: Terms;
  readonly #client: string;
  readonly #matching: Matching;

  constructor(truth: Truth, terms: Terms, client: string) {
    this.#truth = truth;
    this.#terms = terms;
    this.#client = client;
    this.#matching = truth.matching(terms.selection);
  }

  hear(standing: Standing, frame: SeenFrame, around: Around): Standing {
    switch (frame.kind) {
      case "opened":
        return this.#opened(standing, frame);
      case "events":
        return this.#events(standing, frame, around);
      case "gap":
        return this.#gap(standing, frame, around);
      case "checkpoint":
        return this.#checkpoint(standing, frame, around);
      case "closing":
        return this.#advance(standing, around.cursorVersion, "closing");
      default:
        return standing;
    }
  }

  /** Whether nothing that matches is owed up to a version. */
  owes({ reached, piece }: Standing, version: number): SeenEvent | undefined {
    const next = this.#due(reached, piece);
    return next !== undefined && next.version <= version ? next : undefined;
  }

  #opened(standing: Standing, { version }: Frame<"opened">): Standing {
    if (version < standing.last) {
      this.#say("G8", `it goes on after v${version}, although v${standing.last} has come`);
    }
    // What an earlier call said of the feed, this one has yet to say.
    const advanced = { ...this.#advance(standing, version, "a start"), state: undefined };
    const clean = this.#truth.isBoundary(version) && advanced.piece === undefined;
    return clean ? this.#count(advanced, version) : advanced;
  }

  #events(standing: Standing, { events, complete }: Frame<"events">, around: Around): Standing {
    const { maxBatchEvents, maxBatchBytes, sizeOf, everyTick } = this.#terms;
    const bytes = events.reduce((sum, event) => sum + sizeOf(event), 0);
    if (events.length === 0 || events.length > maxBatchEvents || (events.length > 1 && bytes > maxBatchBytes)) {
      this.#say("G9", `a batch has ${events.length} events of ${bytes} bytes`);
    }
    let { reached, last } = standing;
    for (const event of events) {
      if (event.version <= last) {
        this.#say("G3", `${describeEvent(event)} came after v${last}`);
      }
      const due = this.#due(reached, standing.piece);
      if (!isSame(event, due)) {
        this.#say(
          "G8",
          `${describeEvent(event)} came where ${due === undefined ? "nothing" : describeEvent(due)} is due`,
        );
      }
      last = event.version;
      reached = Math.max(reached, event.version);
    }
    const { cursorVersion } = around;
    const came = { ...standing, reached, last, came: standing.came + events.length };
    const now = this.#advance(came, cursorVersion, "a batch");
    const whole = this.#truth.isBoundary(cursorVersion) && now.piece === undefined;
    if (complete !== whole) {
      this.#say("G5", `a batch with the cursor of v${cursorVersion} says that it is ${complete ? "" : "not "}complete`);
    }
    const inner = this.#truth.boundaryAfter((events[0]?.version ?? 1) - 1);
    if (everyTick && inner !== undefined && inner < last) {
      this.#say("G5", `a batch goes on from the tick that ends with v${inner} to v${last}`);
    }
    return now;
  }

  #gap(standing: Standing, gap: Frame<"gap">, around: Around): Standing {
    const { policy, selection } = this.#terms;
    const { firstVersion, lastVersion, reason, dropped } = gap;
    const head = Math.max(...around.heads);
    if (firstVersion <= standing.reached || lastVersion < firstVersion || lastVersion > head) {
      this.#say("G10", `a gap from v${firstVersion} to v${lastVersion} comes after v${standing.reached} of ${head}`);
    }
    if (reason !== policy.kind) {
      this.#say("G10", `a gap by ${reason} in a stream with ${policy.kind}`);
    }
    // DROP_NEWEST says what it refused when it has delivered what it kept, however near the head that is then.
    if (reason !== "DROP_NEWEST" && head - (firstVersion - 1) <= policy.maxLagEvents) {
      this.#say("G10", `a gap from v${firstVersion} to v${lastVersion} although there is nothing after v${head}`);
    }
    const before = this.#advance(standing, firstVersion - 1, "a gap");
    const matching = this.#matching.between(firstVersion - 1, lastVersion);
    const kept = keptBy(policy.kind, policy.sampleEvery, matching);
    const left = matching.length - kept.size;
    const mayBeUncounted = !selection.everything && kept.size === 0;
    if (dropped === undefined ? !mayBeUncounted : dropped !== left) {
      this.#say("G10", `the gap from v${firstVersion} to v${lastVersion} says ${dropped}, and leaves out ${left}`);
    }
    const told = { ...before, dropped: before.dropped + (dropped ?? Number.NaN), gapped: true };
    if (reason === "LATEST" || reason === "SAMPLE") {
      return { ...told, piece: { until: lastVersion, kept } };
    }
    if (around.cursorVersion !== lastVersion || !this.#truth.isBoundary(lastVersion)) {
      this.#say("G5", `the gap up to v${lastVersion} has the cursor of v${around.cursorVersion}, or ends amid a tick`);
    }
    return { ...told, reached: Math.max(told.reached, lastVersion) };
  }

  #checkpoint(standing: Standing, frame: Frame<"checkpoint">, around: Around): Standing {
    const { version, state, lagVersions, lagMs } = frame;
    if (!this.#truth.isBoundary(version) || around.cursorVersion !== version) {
      this.#say("G5", `the checkpoint at v${version} is amid a tick, or its cursor is of v${around.cursorVersion}`);
    }
    if (version < standing.last || version < standing.boundary) {
      this.#say("G5", `the checkpoint at v${version} comes after v${standing.last} or v${standing.boundary}`);
    }
    const now = this.#advance(standing, version, "a checkpoint");
    if (now.piece !== undefined) {
      this.#say("G5", `the checkpoint at v${version} is amid what was thinned up to v${now.piece.until}`);
    }
    const next = this.#truth.boundaryAfter(now.boundary);
    if (this.#terms.everyTick && !now.gapped && next !== undefined && next < version) {
      this.#say("G10", `there was no checkpoint at v${next} before the one at v${version}`);
    }
    if ((state === "STALE") !== (lagVersions === undefined)) {
      this.#say("G10", `a checkpoint says ${state} and a lag of ${lagVersions}`);
    }
    if (lagVersions !== undefined && !around.heads.some((head) => lagVersions === Math.max(0, head - version))) {
      this.#say("G10", `the checkpoint at v${version} says a lag of ${lagVersions} with ${around.heads} settled`);
    }
    const first = this.#truth.tickOf(version + 1);
    if (lagMs !== undefined && lagVersions !== undefined) {
      const age = lagVersions === 0 || first === undefined ? 0 : around.nowMs - first.timeMicros / 1000;
      if (Math.abs(age - lagMs) > 1) {
        this.#say("G10", `the checkpoint at v${version} says that it lags ${lagMs} ms, and it lags ${age} ms`);
      }
    }
    return { ...this.#count(now, version), state };
  }

  /** Between two boundaries, what came and what is said to be left out is all that there was. */
  #count(standing: Standing, version: number): Standing {
    const { boundary, came, dropped } = standing;
    const all = this.#matching.count(boundary, version);
    if (!Number.isNaN(dropped) && came + dropped !== all) {
      this.#say("G10", `from v${boundary} to v${version} came ${came} and ${dropped} were left out, of ${all}`);
    }
    return { ...standing, boundary: version, came: 0, dropped: 0, gapped: false };
  }

  /** What a cursor or a checkpoint says: everything up to there was delivered. */
  #advance(standing: Standing, version: number, what: string): Standing {
    const { reached, last } = standing;
    if (version < last) {
      this.#say("G8", `${what} speaks of v${version}, although v${last} has come`);
    }
    const missing = this.owes(standing, version);
    if (missing !== undefined) {
      this.#say("G8", `${what} speaks of v${version}, and ${describeEvent(missing)} has not come`);
    }
    const to = Math.max(reached, version);
    const piece = standing.piece !== undefined && to < standing.piece.until ? standing.piece : undefined;
    return { ...standing, reached: to, piece };
  }

  #due(after: number, piece: Piece | undefined): SeenEvent | undefined {
    let due = this.#matching.after(after);
    while (piece !== undefined && due !== undefined && due.version <= piece.until && !piece.kept.has(due.version)) {
      due = this.#matching.after(due.version);
    }
    return due;
  }

  #say(guarantee: Guarantee, text: string): void {
    this.complaints.push({ guarantee, client: this.#client, text });
  }
}

function isSame(a: SeenEvent, b: SeenEvent | undefined): boolean {
  return (
    a === b ||
    (b !== undefined &&
      a.version === b.version &&
      a.topic === b.topic &&
      a.key === b.key &&
      a.operation === b.operation &&
      a.before === b.before &&
      a.after === b.after &&
      a.transition === b.transition &&
      a.transaction === b.transaction &&
      a.occurredAtMicros === b.occurredAtMicros)
  );
}
