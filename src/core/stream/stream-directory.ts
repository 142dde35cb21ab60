import { FeedError } from "../errors.ts";

/** Bytes of chance, that nobody can guess. */
export type RandomBytes = (length: number) => Uint8Array;

const REPLICA_BYTES = 9;
const REPLICA_CHARACTERS = 12;
const SECRET_BYTES = 16;

/** The machine's. */
export const systemRandomBytes: RandomBytes = (length) => crypto.getRandomValues(new Uint8Array(length));

/** What is kept under a name. */
export interface NamedStream {
  readonly streamId: string;
  /** Who alone may change it. */
  readonly principal: string;
}

/**
 * The names of one feed's streams: the feed's own, by which other processes know where a stream is, and 128 bits that only
 * the stream's client is told. Whoever names a stream has seen its first frame.
 */
export class StreamDirectory<Stream extends NamedStream> {
  /** Of this feed, in this process. */
  readonly replica: string;
  readonly #randomBytes: RandomBytes;
  readonly #streams = new Map<string, Stream>();

  constructor(randomBytes: RandomBytes) {
    this.#randomBytes = randomBytes;
    this.replica = text(randomBytes(REPLICA_BYTES));
  }

  /** A name for another stream. */
  name(): string {
    return this.replica + text(this.#randomBytes(SECRET_BYTES));
  }

  add(stream: Stream): void {
    this.#streams.set(stream.streamId, stream);
  }

  delete({ streamId }: Stream): void {
    this.#streams.delete(streamId);
  }

  /** @throws FeedError STREAM_NOT_FOUND, also when it is somebody else's */
  find(streamId: string, principal: string): Stream {
    const stream = this.#streams.get(streamId);
    if (stream === undefined || stream.principal !== principal) {
      throw streamNotFound();
    }
    return stream;
  }
}

/** Whose stream it is, if it is a stream's name. */
export function replicaOf(streamId: string): string {
  return streamId.slice(0, REPLICA_CHARACTERS);
}

/** STREAM_NOT_FOUND. */
export function streamNotFound(): FeedError {
  return new FeedError(
    "STREAM_NOT_FOUND",
    "There is no such stream: it has ended, or its replica has.",
    "Pass `opened.stream_id` of a stream that is open, or open one with these selectors.",
  );
}

function text(bytes: Uint8Array): string {
  return bytes.toBase64({ alphabet: "base64url", omitPadding: true });
}
