import type { Version } from "../event.ts";
import type { GroupWindow } from "./group-window.ts";

/** Versions from `first` to `last`, both inclusive, of which those that are the group's are in the same state. */
export interface ProgressRange {
  readonly first: Version;
  readonly last: Version;
  /** 0: they are settled. */
  readonly deliveries: number;
  /** As `GroupItem.spared`. */
  readonly spared: number;
}

/**
 * What is kept of a group beside its position, as text: what is settled behind it, and how often the rest was delivered.
 *
 *   1 : epoch : base64url of varints, for each range: how far behind the end of the one before it begins (the first: behind
 *   the position) · its length less one · deliveries · when not 0, those that were spared
 */
export function encodeProgress(epoch: string, after: Version, ranges: readonly ProgressRange[]): string {
  const bytes: number[] = [];
  let end = after;
  for (const { first, last, deliveries, spared } of ranges) {
    writeVarint(bytes, first - end - 1);
    writeVarint(bytes, last - first);
    writeVarint(bytes, deliveries);
    if (deliveries > 0) {
      writeVarint(bytes, spared);
    }
    end = last;
  }
  const text = Uint8Array.from(bytes).toBase64({ alphabet: "base64url", omitPadding: true });
  return `1:${epoch}:${after}:${text}`;
}

/**
 * By version. Nothing of what another epoch came to: its versions may mean other events, and delivering once more is always
 * right. The same goes for what cannot be read.
 */
export function decodeProgress(text: string | undefined, epoch: string): readonly ProgressRange[] {
  const [format, ofEpoch, after, body] = text?.split(":") ?? [];
  if (format !== "1" || ofEpoch !== epoch || after === undefined || body === undefined) {
    return [];
  }
  let bytes: Uint8Array;
  try {
    bytes = Uint8Array.fromBase64(body, { alphabet: "base64url" });
  } catch {
    return [];
  }
  const ranges: ProgressRange[] = [];
  let at = 0;
  const next = (): number => {
    let value = 0;
    for (let scale = 1; at < bytes.length; scale *= 128) {
      const byte = bytes[at++] ?? 0;
      value += (byte & 127) * scale;
      if (byte < 128) {
        break;
      }
    }
    return value;
  };
  for (let end = Number(after); at < bytes.length; ) {
    const first = end + 1 + next();
    const last = first + next();
    const deliveries = next();
    ranges.push({ first, last, deliveries, spared: deliveries > 0 ? next() : 0 });
    end = last;
  }
  return ranges;
}

/** What the window holds, and of what was kept before that which the stream has not come to yet. By version. */
export function progressOf(window: GroupWindow, kept: readonly ProgressRange[]): readonly ProgressRange[] {
  const ranges: ProgressRange[] = [];
  let open: { first: Version; last: Version; deliveries: number; spared: number } | undefined;
  for (const item of window.touched()) {
    const { version } = item;
    const isSettled = item.state === "settled";
    const deliveries = isSettled ? 0 : item.deliveries;
    const spared = isSettled ? 0 : item.spared;
    const untold = !isSettled && deliveries === 0;
    if (open !== undefined && !untold && open.deliveries === deliveries && open.spared === spared) {
      open.last = version;
      continue;
    }
    open = untold ? undefined : { first: version, last: version, deliveries, spared };
    if (open !== undefined) {
      ranges.push(open);
    }
  }
  for (const range of kept) {
    if (range.last > window.passed) {
      ranges.push({ ...range, first: Math.max(range.first, window.passed + 1) });
    }
  }
  return ranges;
}

/** Looks versions up that are asked for in rising order. */
export class KeptProgress {
  #ranges: readonly ProgressRange[];
  #at = 0;

  constructor(ranges: readonly ProgressRange[]) {
    this.#ranges = ranges;
  }

  /** Of those that are not passed yet. */
  get ranges(): readonly ProgressRange[] {
    return this.#ranges;
  }

  find(version: Version): ProgressRange | undefined {
    for (let range = this.#ranges[this.#at]; range !== undefined; range = this.#ranges[this.#at]) {
      if (version <= range.last) {
        return version >= range.first ? range : undefined;
      }
      this.#at += 1;
    }
    this.#ranges = [];
    this.#at = 0;
    return undefined;
  }
}

/** Arithmetic and not shifts: versions go beyond 32 bits. */
function writeVarint(bytes: number[], value: number): void {
  let rest = value;
  while (rest >= 128) {
    bytes.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  bytes.push(rest);
}
