/** Chance that can be had again: the same seed gives the same choices (not the same races). */
export interface Random {
  /** Uniform in [0, 1). */
  next(): number;
  /** Uniform among 0 … below - 1. */
  below(below: number): number;
  /** True with this probability. */
  chance(probability: number): boolean;
  /** A generator of its own, for one writer. */
  fork(stream: number): Random;
}

/** `MILLRACE_SEED` or a fresh seed; print it with whatever fails. */
export function seedOfRun(): number {
  const given = Number(process.env.MILLRACE_SEED ?? Number.NaN);
  return Number.isInteger(given) ? given : Math.floor(Math.random() * 2 ** 31);
}

/** Mulberry32: 32 bits of state are plenty for choosing keys. */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    next,
    below: (below) => Math.floor(next() * below),
    chance: (probability) => next() < probability,
    fork: (stream) => createRandom(seed * 31 + stream * 7919 + 1),
  };
}
