/** Those of the candidates that the text may be a slip of, nearest first, at most three. */
export function nearNames(text: string, candidates: readonly string[]): readonly string[] {
  const wanted = text.toLowerCase();
  return candidates
    .map((name) => ({ name, distance: distanceTo(wanted, name.toLowerCase()) }))
    .filter(({ distance }) => distance <= Math.max(1, Math.floor(wanted.length / 3)))
    .sort((one, other) => one.distance - other.distance || one.name.localeCompare(other.name))
    .slice(0, 3)
    .map(({ name }) => name);
}

/** `orders` is as near to `public.orders` as to `orders`. */
function distanceTo(wanted: string, name: string): number {
  const bare = name.slice(name.indexOf(".") + 1);
  return wanted.includes(".") ? editDistance(wanted, name) : editDistance(wanted, bare);
}

/** Letters to add, drop, change, or swap with their neighbour. */
function editDistance(one: string, other: string): number {
  let before: readonly number[] = [];
  let last = Array.from({ length: other.length + 1 }, (_, at) => at);
  for (let row = 1; row <= one.length; row += 1) {
    const next = [row];
    for (let at = 1; at <= other.length; at += 1) {
      const same = one[row - 1] === other[at - 1];
      const swapped = row > 1 && at > 1 && one[row - 1] === other[at - 2] && one[row - 2] === other[at - 1];
      next[at] = Math.min(
        (next[at - 1] ?? 0) + 1,
        (last[at] ?? 0) + 1,
        (last[at - 1] ?? 0) + (same ? 0 : 1),
        swapped ? (before[at - 2] ?? 0) + 1 : Number.POSITIVE_INFINITY,
      );
    }
    before = last;
    last = next;
  }
  return last[other.length] ?? 0;
}
