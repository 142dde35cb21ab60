/**
 * The body of one response, after its head is on its way: bytes in, and the end. Synchronous, and nothing throws: a peer that
 * is gone is told by `BodySinkOwner.onClosed`, and what is written afterwards is dropped.
 */
export interface BodySink {
  /** Whether it takes more now. Once it says no, it calls `onReady` as soon as it does again. */
  readonly ready: boolean;
  /** Bytes that were written here and are not with the operating system yet. */
  readonly pending: number;
  /** Whole messages in their envelopes. Other streams share these bytes: nobody changes them afterwards. */
  write(bytes: Uint8Array): void;
  /**
   * Everything that was written goes out first; then `last`, then the HTTP trailers where the protocol has them, then the
   * end. Nothing may be written afterwards.
   */
  end(last: Uint8Array | undefined, trailers: readonly (readonly [name: string, value: string])[] | undefined): void;
  /** Cuts the body at once: the peer sees a broken stream, never a whole one. */
  abort(): void;
}

/** Who writes to a `BodySink`. */
export interface BodySinkOwner {
  /** `ready` is true again, after it was false. */
  onReady(): void;
  /** The body is over, by its end or because the peer is gone. Once. */
  onClosed(): void;
}
