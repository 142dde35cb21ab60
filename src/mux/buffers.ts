/** Larger batches fall out of the processor's cache between being written and being sent. */
export const BATCH_BYTES = 262_144;
const SMALLEST = 4_096;
/** Spare buffers of each size; more are left to the garbage collector. */
const SPARES = 32;

/**
 * Buffers of 4, 16, 64 and 256 KiB for all connections of the process. Large ones are dear to make, and nearly all are
 * free again in the same turn, so a few serve everybody.
 */
const spares: readonly Buffer[][] = [[], [], [], []];

/** A buffer of at least so many bytes, or of `BATCH_BYTES`. */
export function takeBuffer(bytes: number): Buffer {
  let size = SMALLEST;
  let rank = 0;
  while (size < bytes && size < BATCH_BYTES) {
    size *= 4;
    rank += 1;
  }
  return spares[rank]?.pop() ?? Buffer.allocUnsafeSlow(size);
}

/** Only once nobody reads it any more: a socket does until it has called back. */
export function giveBack(buffer: Buffer): void {
  const spare = spares[(31 - Math.clz32(buffer.length / SMALLEST)) >>> 1];
  if (spare !== undefined && spare.length < SPARES) {
    spare.push(buffer);
  }
}
