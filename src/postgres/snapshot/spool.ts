import { randomUUID } from "node:crypto";
import { type FileHandle, open, unlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FeedError } from "../../core/errors.ts";

/** Bounds of one spool. */
export interface SpoolLimits {
  /** Bytes held in memory before the file is used. Default 8 MiB. */
  readonly memoryBytes?: number | undefined;
  /** Bytes on disk that nobody has read yet, before LIMIT_EXCEEDED. Default 4 GiB. */
  readonly totalBytes?: number | undefined;
  /** Where the file goes. Default the system's temporary directory. */
  readonly directory?: string | undefined;
}

/** Bytes in order from one writer, who never waits for the reader, to one reader. */
export interface Spool {
  /** Resolves once the bytes are kept: in memory at once, or on disk. Rejects with LIMIT_EXCEEDED. */
  write(chunk: Uint8Array): Promise<void>;
  /** Nothing follows. */
  end(): void;
  /** The reader gets this instead of what it has not read yet. The first failure stays. */
  fail(error: unknown): void;
  /** What was written, in order. For one reader, once. */
  read(): AsyncIterable<Uint8Array>;
  /** Gives memory and disk back. Idempotent. A reader that is still there fails. */
  close(): Promise<void>;
  /** Bytes held on disk, for tests and metrics. */
  readonly diskBytes: number;
}

const readBytes = 256 * 1024;

/**
 * Memory first, then a file.
 *
 * Whatever is in memory is older than whatever is on disk: while the disk holds anything unread, everything new goes
 * there too, and only a reader that has caught up brings the writer back to memory. The file has no name from the moment
 * it is open, so that it goes with the process, however that ends.
 */
export function createSpool(limits: SpoolLimits = {}): Spool {
  return new MemoryThenFile({
    memoryBytes: limits.memoryBytes ?? 8 * 1024 * 1024,
    totalBytes: limits.totalBytes ?? 4 * 1024 ** 3,
    directory: limits.directory ?? tmpdir(),
  });
}

interface ResolvedLimits {
  readonly memoryBytes: number;
  readonly totalBytes: number;
  readonly directory: string;
}

class MemoryThenFile implements Spool {
  readonly #limits: ResolvedLimits;
  #memory: Uint8Array[] = [];
  #memoryHead = 0;
  #memoryBytes = 0;
  #file: FileHandle | undefined;
  #written = 0;
  #read = 0;
  /** What the disk is doing at this moment; the handle is not closed under it. */
  #writing: Promise<unknown> | undefined;
  #reading: Promise<unknown> | undefined;
  #ended = false;
  #failure: { readonly error: unknown } | undefined;
  #changed: () => void = () => {};

  constructor(limits: ResolvedLimits) {
    this.#limits = limits;
  }

  get diskBytes(): number {
    return this.#written;
  }

  async write(chunk: Uint8Array): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure.error;
    if (this.#written === 0 && this.#memoryBytes + chunk.length <= this.#limits.memoryBytes) {
      this.#memory.push(chunk);
      this.#memoryBytes += chunk.length;
    } else {
      this.#assertRoom(chunk.length);
      this.#writing = this.#append(chunk);
      try {
        await this.#writing;
      } finally {
        this.#writing = undefined;
      }
    }
    this.#changed();
  }

  end(): void {
    this.#ended = true;
    this.#changed();
  }

  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#changed();
  }

  async *read(): AsyncGenerator<Uint8Array, void, undefined> {
    for (;;) {
      // Asked for before looking, so that a change while looking is not missed.
      const change = this.#change();
      if (this.#failure !== undefined) throw this.#failure.error;
      const chunk = this.#takeFromMemory() ?? (await this.#takeFromFile());
      if (chunk !== undefined) yield chunk;
      else if (this.#ended) return;
      else await change;
    }
  }

  async close(): Promise<void> {
    this.fail(new FeedError("INTERNAL", "The spool is closed.", "Do not read a snapshot after closing it."));
    this.#memory = [];
    this.#memoryBytes = 0;
    await Promise.allSettled([this.#writing, this.#reading]);
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#changed = resolve;
    });
  }

  #assertRoom(bytes: number): void {
    if (this.#written + bytes <= this.#limits.totalBytes) return;
    throw new FeedError(
      "LIMIT_EXCEEDED",
      `The snapshot is larger than ${this.#limits.totalBytes} bytes, which is what one may take on disk.`,
      "Select fewer topics, read faster, or raise the limit on a snapshot's spool.",
    );
  }

  async #append(chunk: Uint8Array): Promise<void> {
    this.#file ??= await openNameless(this.#limits.directory);
    for (let done = 0; done < chunk.length; ) {
      done += (await this.#file.write(chunk, done, chunk.length - done, this.#written + done)).bytesWritten;
    }
    this.#written += chunk.length;
  }

  #takeFromMemory(): Uint8Array | undefined {
    const chunk = this.#memory[this.#memoryHead];
    if (chunk === undefined) return undefined;
    this.#memoryHead += 1;
    this.#memoryBytes -= chunk.length;
    if (this.#memoryHead === this.#memory.length || this.#memoryHead >= 1024) {
      this.#memory = this.#memory.slice(this.#memoryHead);
      this.#memoryHead = 0;
    }
    return chunk;
  }

  async #takeFromFile(): Promise<Uint8Array | undefined> {
    const length = Math.min(readBytes, this.#written - this.#read);
    if (length === 0 || this.#file === undefined) return undefined;
    // A buffer of its own for every read: the images of its rows live on in events.
    const reading = this.#file.read(Buffer.allocUnsafeSlow(length), 0, length, this.#read);
    this.#reading = reading;
    const { bytesRead, buffer } = await reading;
    this.#reading = undefined;
    this.#read += bytesRead;
    // Caught up: the next chunk goes to memory, and the file begins anew.
    if (this.#read === this.#written && this.#writing === undefined) {
      this.#written = 0;
      this.#read = 0;
    }
    return buffer.subarray(0, bytesRead);
  }
}

async function openNameless(directory: string): Promise<FileHandle> {
  const path = join(directory, `millrace-snapshot-${randomUUID()}`);
  const file = await open(path, "wx+", 0o600);
  await unlink(path);
  return file;
}
