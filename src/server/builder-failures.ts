import { DEAD_LETTER_TOPIC } from "../core/builder/build-event.ts";
import type { BuilderFailure } from "../core/builder/built-store.ts";
import type { Clock } from "../core/ports.ts";
import type { Problem } from "../rpc/status.ts";

/** Where lines go. */
export interface BuilderLog {
  warn(facts: object, message: string): void;
}

/** What builders failed for, told without a flood. */
export interface BuilderFailures {
  /** Cheap: an event that fails comes as often as it is read. */
  readonly failed: (failure: BuilderFailure) => void;
  /** Made two events of one change. */
  readonly impure: (seen: Omit<BuilderFailure, "reason">) => void;
  problems(): readonly Problem[];
}

/** Between two lines of the log about one source, in milliseconds. */
const QUIET_MS = 10_000;
/** A builder that has not failed for so long is no problem any more, in milliseconds. */
const REMEMBERED_MS = 600_000;

interface Failing {
  count: number;
  last: BuilderFailure;
  lastMs: number;
  toldMs: number;
  untold: number;
}

/** Keeps the last failure of each source's builder. */
export function createBuilderFailures(log: BuilderLog, clock: Pick<Clock, "monotonic">): BuilderFailures {
  const sources = new Map<string, Failing>();
  const impure = new Map<string, Problem>();
  return {
    failed(failure) {
      const nowMs = clock.monotonic();
      const known = sources.get(failure.table) ?? {
        count: 0,
        last: failure,
        lastMs: nowMs,
        toldMs: Number.NEGATIVE_INFINITY,
        untold: 0,
      };
      sources.set(failure.table, known);
      known.count += 1;
      known.last = failure;
      known.lastMs = nowMs;
      known.untold += 1;
      if (nowMs - known.toldMs < QUIET_MS) return;
      const { table, version, reason } = failure;
      log.warn({ table, version, times: known.untold }, `the builder of ${table} failed: ${reason}`);
      known.toldMs = nowMs;
      known.untold = 0;
    },
    impure({ table, version }) {
      if (impure.has(table)) return;
      const problem = impurity(table, version);
      impure.set(table, problem);
      log.warn({ table, version, action: problem.action }, problem.message);
    },
    problems() {
      const nowMs = clock.monotonic();
      const failing = [...sources.values()]
        .filter(({ lastMs }) => nowMs - lastMs < REMEMBERED_MS)
        .map(({ count, last: { table, version, reason } }) => ({
          code: "BUILDER_FAILS",
          message: `The builder of ${table} has failed ${count === 1 ? "once" : `${count} times`}, at version ${version} last: ${reason}.`,
          action: `Correct it: what failed goes to topics under ${DEAD_LETTER_TOPIC}, and is built anew by the next builder.`,
        }));
      return [...impure.values(), ...failing];
    },
  };
}

function impurity(table: string, version: number): Problem {
  return {
    code: "BUILDER_IMPURE",
    message: `The builder of ${table} has made two different events of the change at version ${version}: clients see different histories.`,
    action: "Let it look at nothing but the change: at no clock, no chance, and nothing that it keeps.",
  };
}
