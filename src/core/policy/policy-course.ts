import type { Version } from "../event.ts";
import type { Lane } from "../lane/lane.ts";
import type { Log } from "../log/log.ts";
import { type Course, FREE, type Policy, type Thinned } from "./policy.ts";
import { DropNewest, DropOldest } from "./policy-drop.ts";
import { Thin, ThinnedBefore } from "./policy-thin.ts";

/** What a stream that keeps everything is told. Of BLOCK and DISCONNECT; it remembers nothing, so one is enough. */
const KEEP: Course = { piece: undefined, next: () => FREE };

/** What a stream is steered by, from its start on. */
export interface CourseOptions {
  readonly policy: Policy;
  readonly feed: { readonly log: Log };
  readonly lane: Lane;
  /** Where the stream begins, and the piece in whose middle that is, if it is. */
  readonly after: Version;
  readonly thinned: Thinned | undefined;
}

/** The policy of one stream, at work. */
export function createCourse(options: CourseOptions): Course {
  const { thinned, after, lane } = options;
  const course = courseOf(options);
  return thinned === undefined ? course : new ThinnedBefore(after, thinned, lane.scan.view, course);
}

function courseOf({ policy, feed, lane }: CourseOptions): Course {
  const { kind, maxLagEvents, sampleEvery } = policy;
  const { matcher } = lane;
  const { view } = lane.scan;
  switch (kind) {
    case "BLOCK":
    case "DISCONNECT":
      return KEEP;
    case "DROP_OLDEST":
      return new DropOldest({ feed, matcher, maxLagEvents });
    case "DROP_NEWEST":
      return new DropNewest({ feed, matcher, maxLagEvents });
    case "LATEST":
      return new Thin({ feed, view, every: 0, maxLagEvents });
    case "SAMPLE":
      return new Thin({ feed, view, every: sampleEvery, maxLagEvents });
  }
}
