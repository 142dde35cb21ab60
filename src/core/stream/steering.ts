import type { Version } from "../event.ts";
import type { Lane } from "../lane/lane.ts";
import type { Log } from "../log/log.ts";
import type { Page } from "../page.ts";
import type { Pace } from "../policy/pace.ts";
import { type Course, FREE, type Policy, type Thinned, type Verdict } from "../policy/policy.ts";
import { createCourse } from "../policy/policy-course.ts";
import { Intake, type Taken } from "./intake.ts";
import type { Progress } from "./scan.ts";

/** What a stream goes by while it has the same selectors. */
export interface SteeringOptions {
  readonly lane: Lane;
  readonly policy: Policy;
  readonly feed: { readonly epoch: string; readonly log: Log };
  /** `undefined` for no limit. */
  readonly pace: Pace | undefined;
  /** Whether nothing is taken across the end of a tick. */
  readonly byTicks: boolean;
}

/** What a stream takes next: its policy and its lane together. Another one for other selectors. */
export class Steering {
  readonly lane: Lane;
  readonly #options: SteeringOptions;
  readonly #course: Course;
  readonly #intake: Intake;

  /**
   * @param after - where the stream stands
   * @param thinned - the piece in whose middle that is, if it is
   */
  constructor(options: SteeringOptions, after: Version, thinned: Thinned | undefined) {
    this.lane = options.lane;
    this.#options = options;
    this.#course = createCourse({ ...options, after, thinned });
    this.#intake = new Intake(options);
  }

  /** The same with another lane, or from the beginning. */
  anew(after: Version, thinned: Thinned | undefined, lane = this.lane): Steering {
    return new Steering({ ...this.#options, lane }, after, thinned);
  }

  /** The thinned piece in whose middle that is. */
  pieceAt(scanned: Version): Thinned | undefined {
    const { piece } = this.#course;
    return piece !== undefined && scanned < piece.until ? piece : undefined;
  }

  /** @param stop - up to which a change of selectors lets it go: that is no lag that a policy could act on */
  next(progress: Progress, page: Page | undefined, stop: Version | undefined): Verdict {
    const rests = stop !== undefined && this.pieceAt(progress.scanned) === undefined;
    const verdict = rests ? FREE : this.#course.next(progress, (after) => this.#intake.pageAfter(after, page));
    return stop === undefined || verdict.kind !== "deliver"
      ? verdict
      : { ...verdict, until: Math.min(verdict.until, stop) };
  }

  take(
    progress: Progress,
    page: Page | undefined,
    verdict: Extract<Verdict, { kind: "deliver" }>,
    nowMs: number,
  ): Taken {
    const { scanned } = progress;
    return scanned < verdict.until
      ? this.#intake.take(progress, page, verdict, this.pieceAt(scanned), nowMs)
      : undefined;
  }

  /** A page that holds the version after this one: the log's, or this one of history. */
  pageAfter(after: Version, page: Page | undefined): Page | undefined {
    return this.#intake.pageAfter(after, page);
  }
}
