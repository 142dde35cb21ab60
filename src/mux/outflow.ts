import type { MuxedBody } from "./body.ts";
import { frameType, HEAD_BYTES, PAYLOAD_MAX, putHead, putStreamId } from "./frame.ts";
import type { ConnectionWindow } from "./window.ts";

/** How much may wait in memory, in bytes. */
export interface OutflowLimits {
  /** Of one stream that names no bound of its own; from then on it is not ready. Default 256 KiB. */
  readonly streamPendingMaxBytes: number;
  /**
   * Of all streams of a connection. Beyond it each goes on with `streamPendingMinBytes`: the bytes may be those of streams
   * whose readers have stopped, for which the others shall not have to wait. Default 16 MiB.
   */
  readonly connectionPendingMaxBytes: number;
  /** What a stream may always have waiting. Default 16 KiB. */
  readonly streamPendingMinBytes: number;
}

/**
 * What the handed-off streams of one connection have to send, and the writing of it: DATA frames, stream after stream, as
 * far as both windows and the buffer reach.
 *
 * Streams take turns, a frame each. One that has a quarter of the connection's window unacknowledged comes after all that
 * have less, and then takes only what leaves half of the window to the others, if there are others: a reader that
 * stops would otherwise stop the whole connection. Half must stay usable to it because peers acknowledge at half at the
 * latest; one that waits longer is helped by `relent`.
 */
export class Outflow {
  /** Bytes of all bodies that are not in any batch yet. */
  queued = 0;
  /** Bodies that take part. */
  bodies = 0;
  /** Batches that were begun, and that are with the operating system. */
  batchBegun = 0;
  batchDone = 0;
  /** Some stream had to stop for the others' sake. */
  restrained = false;
  readonly #limits: OutflowLimits;
  /** Bodies with something to send and room in their own windows, in the order of their turns. */
  #ready: MuxedBody[] = [];
  #spare: MuxedBody[] = [];
  /** Those of them that hold a quarter of the connection's window. */
  #heavy: MuxedBody[] = [];
  readonly #full: MuxedBody[] = [];
  /** Ended, and all is in a batch. */
  readonly #spent: MuxedBody[] = [];
  #out: Buffer = Buffer.alloc(0);
  #at = 0;
  /** What the connection's window allows yet. */
  #free = 0;

  constructor(limits: OutflowLimits) {
    this.#limits = limits;
  }

  /** Whether any stream could send, were there room in the connection's window. */
  get waiting(): boolean {
    return this.#ready.length > 0;
  }

  /** `bytes` were added to `body`. */
  add(body: MuxedBody, bytes: number): void {
    this.queued += bytes;
    this.list(body);
    if (!body.full && body.queued >= this.#bound(body)) {
      body.full = true;
      this.#full.push(body);
    }
  }

  /** Lets it take part in the next batch, if it has anything and its window is open. */
  list(body: MuxedBody): void {
    if (!body.listed && body.open && body.queued > 0 && body.window.real > 0) {
      body.listed = true;
      this.#ready.push(body);
    }
  }

  /** Drops what `body` has. */
  forget(body: MuxedBody): void {
    this.queued -= body.queued;
    body.empty();
    remove(this.#full, body);
    remove(this.#spent, body);
    if (body.listed) {
      body.listed = false;
      remove(this.#ready, body);
    }
  }

  /** Has an ended body see whether it can be finished now. */
  recheck(body: MuxedBody): void {
    if (body.ended && body.queued === 0) {
      this.#spent.push(body);
    }
  }

  /** What a buffer must hold for everything that could be sent. */
  get batchBytes(): number {
    return this.queued + HEAD_BYTES * (this.#ready.length + Math.ceil(this.queued / PAYLOAD_MAX));
  }

  /**
   * Writes the next batch into `out` and takes it off the windows.
   *
   * @param relent whether heavy streams may take what they should leave
   * @returns the batch's bytes
   */
  lay(out: Buffer, connection: ConnectionWindow, relent: boolean): number {
    this.batchBegun += 1;
    this.#out = out;
    this.#at = 0;
    const before = connection.ours;
    this.#free = before;
    this.#ready = this.#rounds(this.#ready, connection.size >>> 2);
    if (this.#heavy.length > 0) {
      this.#layHeavy(connection.size >>> 1, connection.real - before, relent);
    }
    connection.real -= before - this.#free;
    this.queued -= this.#taken;
    this.#taken = 0;
    return this.#at;
  }

  /** Tells owners what has changed since bodies were sent from. Whatever they do then is for the next batch. */
  announce(): void {
    for (const body of this.#spent.splice(0)) {
      body.finishWhenSent();
    }
    if (this.#full.length === 0) {
      return;
    }
    const enough = (body: MuxedBody): boolean => body.queued * 2 <= this.#bound(body);
    const ready = this.#full.filter(enough);
    if (ready.length > 0) {
      const still = this.#full.filter((body) => !enough(body));
      this.#full.splice(0, this.#full.length, ...still);
      for (const body of ready) {
        body.announceReady();
      }
    }
  }

  #taken = 0;

  #bound(body: MuxedBody): number {
    const { connectionPendingMaxBytes, streamPendingMinBytes } = this.#limits;
    return this.queued < connectionPendingMaxBytes ? body.maxBytes : Math.min(body.maxBytes, streamPendingMinBytes);
  }

  /** @param reserved bytes of the connection's window that belong to the library */
  #layHeavy(half: number, reserved: number, relent: boolean): void {
    const heavy = this.#heavy;
    this.#heavy = [];
    if (this.#ready.length > 0) {
      this.restrained = true;
      this.#ready.push(...heavy);
      return;
    }
    const left = heavy.length >= this.bodies || relent ? 0 : Math.max(0, half - reserved);
    const kept = Math.min(left, this.#free);
    this.#free -= kept;
    this.#ready = this.#rounds(heavy, Number.POSITIVE_INFINITY);
    this.restrained = this.#ready.length > 0 && kept > 0;
    this.#free += kept;
  }

  /** Lets the bodies of `list` send in turn. Returns those that have more to send, the next one first. */
  #rounds(list: MuxedBody[], quarter: number): MuxedBody[] {
    let turns = list;
    let next = this.#spare;
    for (;;) {
      const stopped = this.#round(turns, next, quarter);
      if (stopped < turns.length) {
        turns.copyWithin(0, stopped);
        turns.length -= stopped;
        for (const body of next) {
          turns.push(body);
        }
        next.length = 0;
        this.#spare = next;
        return turns;
      }
      turns.length = 0;
      const done = turns;
      turns = next;
      next = done;
      if (turns.length === 0) {
        this.#spare = next;
        return turns;
      }
    }
  }

  /** One turn each. Returns how many had theirs before the window or the buffer was full. */
  #round(turns: readonly MuxedBody[], next: MuxedBody[], quarter: number): number {
    let i = 0;
    while (i < turns.length) {
      const body = turns[i];
      if (body === undefined || this.#free === 0 || this.#out.length - this.#at <= HEAD_BYTES) {
        break;
      }
      const alike = this.#layAlike(turns, i, body, quarter);
      if (alike > 0) {
        i += alike;
        continue;
      }
      i += 1;
      if (body.outstanding >= quarter) {
        this.#heavy.push(body);
        continue;
      }
      this.#layFrame(body, quarter);
      if (body.queued > 0 && body.window.real > 0) {
        next.push(body);
      } else {
        this.#unlist(body);
      }
    }
    return i;
  }

  /**
   * The case that must be fast: the same events for many streams. Bodies from `start` on that have the same messages, a frame
   * full at most, get them by doubling what was copied before; only the streams' numbers differ. Returns how many.
   */
  #layAlike(turns: readonly MuxedBody[], start: number, model: MuxedBody, quarter: number): number {
    const length = model.queued;
    if (length > PAYLOAD_MAX || !model.uncut) {
      return 0;
    }
    const room = this.#out.length - this.#at;
    const most = Math.min(
      turns.length - start,
      Math.floor(this.#free / length),
      Math.floor(room / (HEAD_BYTES + length)),
    );
    let count = 0;
    while (count < most) {
      const body = turns[start + count];
      const fits =
        body !== undefined &&
        body.window.real >= length &&
        body.outstanding + length <= quarter &&
        (body === model || body.sameAs(model));
      if (!fits) {
        break;
      }
      count += 1;
    }
    if (count > 0) {
      this.#copyAlike(turns, start, count, model);
      this.#free -= count * length;
      this.#taken += count * length;
    }
    return count;
  }

  #copyAlike(turns: readonly MuxedBody[], start: number, count: number, model: MuxedBody): void {
    const out = this.#out;
    const from = this.#at;
    const length = model.queued;
    const record = HEAD_BYTES + length;
    const total = count * record;
    putHead(out, from, length, frameType.data, 0, 0);
    model.copyTo(out, from + HEAD_BYTES);
    for (let done = record; done < total; done *= 2) {
      out.copyWithin(from + done, from, from + Math.min(done, total - done));
    }
    for (let i = 0; i < count; i += 1) {
      const body = turns[start + i];
      if (body !== undefined) {
        putStreamId(out, from + i * record, body.window.id);
        body.empty();
        body.window.real -= length;
        body.outstanding += length;
        body.batch = this.batchBegun;
        body.batchBytes = length;
        this.#unlist(body);
      }
    }
    this.#at = from + total;
  }

  /** One frame of one body: as much as there is, and as all windows and the buffer allow. */
  #layFrame(body: MuxedBody, quarter: number): void {
    const room = this.#out.length - this.#at - HEAD_BYTES;
    const length = Math.min(body.queued, body.window.real, quarter - body.outstanding, this.#free, room, PAYLOAD_MAX);
    if (length <= 0) {
      return;
    }
    putHead(this.#out, this.#at, length, frameType.data, 0, body.window.id);
    body.moveTo(this.#out, this.#at + HEAD_BYTES, length);
    this.#at += HEAD_BYTES + length;
    this.#free -= length;
    this.#taken += length;
    body.window.real -= length;
    body.outstanding += length;
    if (body.batch !== this.batchBegun) {
      body.batch = this.batchBegun;
      body.batchBytes = 0;
    }
    body.batchBytes += length;
  }

  #unlist(body: MuxedBody): void {
    body.listed = false;
    this.recheck(body);
  }
}

function remove(list: MuxedBody[], body: MuxedBody): void {
  const at = list.indexOf(body);
  if (at >= 0) {
    list.splice(at, 1);
  }
}
