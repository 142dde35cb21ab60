/** Whatever looks after its streams once per turn of the event loop. */
export interface Turning {
  turn(): void;
}

let due: Turning[] = [];

/**
 * Calls `turn` once this turn's input has been handled: one immediate for all connections of the process. Later than a
 * microtask, so that events which arrived together leave together.
 */
export function inThisTurn(turning: Turning): void {
  if (due.push(turning) === 1) {
    setImmediate(run);
  }
}

function run(): void {
  const now = due;
  due = [];
  for (const turning of now) {
    turning.turn();
  }
}
