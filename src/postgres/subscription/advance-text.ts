import { placeInVersion } from "../../core/subscription/position-place.ts";
import type { Advance, NewDeadLetter } from "../../core/subscription/subscription-store.ts";

/** Advances in the form that `millrace.advance_subscriptions` takes: each id at most once. */
export interface AdvanceText {
  readonly advances: string;
  /** Null for none. */
  readonly settled: string | null;
  readonly letters: string | null;
}

/** How reasons of dead letters are written. */
export type Reasons = "as they are" | "ascii";

const decoder = new TextDecoder();

/** Postgres stores no U+0000, and a string that JavaScript cut in the middle of a character has no UTF-8 form. */
export function storable(text: string): string {
  return text.replaceAll("\0", "\uFFFD").toWellFormed();
}

/** As few rounds as let each id come at most once in a round; in each, what is asked by its place in the list. */
export function inRounds(asked: readonly { readonly id: string }[]): readonly (readonly number[])[] {
  const rounds: number[][] = [];
  const seen = new Map<string, number>();
  for (const [index, { id }] of asked.entries()) {
    const round = seen.get(id) ?? 0;
    seen.set(id, round + 1);
    const indexes = rounds[round] ?? [];
    indexes.push(index);
    rounds[round] = indexes;
  }
  return rounds;
}

/** Writes one round. */
export function advanceText(advances: readonly Advance[], reasons: Reasons): AdvanceText {
  const settled = advances.flatMap(({ id, generation, settledDeadLetters = [] }) =>
    settledDeadLetters.map((version) => ({ i: id, g: generation, v: version })),
  );
  const letters = advances.flatMap(({ id, generation, deadLetters = [] }) => [
    // The last of several of one version is meant: a statement can insert or replace a row only once.
    ...new Map(
      deadLetters.map((letter) => [
        letter.version,
        letterOf(letter, { i: id, g: generation, r: reasonOf(letter, reasons) }),
      ]),
    ).values(),
  ]);
  return {
    advances: JSON.stringify(advances.map(advanceOf)),
    settled: settled.length === 0 ? null : JSON.stringify(settled),
    letters: letters.length === 0 ? null : JSON.stringify(letters),
  };
}

function advanceOf({ id, generation, position, delivered, progress }: Advance): unknown {
  return {
    i: id,
    g: generation,
    e: position?.epoch,
    v: position?.version,
    w: position && placeInVersion(position),
    c: position?.cursor,
    d: delivered?.map(({ version, attempts }) => [version, attempts]),
    p: progress === undefined ? undefined : storable(progress),
  };
}

/** A database may be in an encoding that lacks characters of what clients say. */
function reasonOf({ reason }: NewDeadLetter, reasons: Reasons): string {
  return reasons === "ascii" ? reason.replaceAll(/[^ -~]/gu, "?") : storable(reason);
}

function letterOf(letter: NewDeadLetter, rest: object): unknown {
  return {
    ...rest,
    v: letter.version,
    t: storable(letter.topic),
    k: letter.key === undefined ? undefined : storable(letter.key),
    o: letter.operation,
    b: letter.before && decoder.decode(letter.before),
    a: letter.after && decoder.decode(letter.after),
    h: letter.headers && decoder.decode(letter.headers),
    x: letter.transaction,
    m: letter.occurredAtMicros,
    n: letter.transition,
    y: letter.attempts,
  };
}
