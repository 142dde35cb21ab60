/**
 * Brings requests to the replica that holds a stream. `src/postgres` and `src/memory` implement it; one contract suite holds
 * both to the same meaning. Letters and answers are opaque to it.
 */
export interface StreamMail {
  /**
   * Letters to this replica are answered by `answer`, which does not reject, from now on until the result is called. Nothing
   * is done for it while nobody writes.
   */
  receive(replica: string, answer: (letter: Uint8Array) => Promise<Uint8Array>): () => void;

  /**
   * Resolves with the replica's answer, or `undefined` when no such replica took the letter in time: then it never will.
   * Rejects with DATABASE_UNAVAILABLE when it is not known whether it did, and with the signal's reason.
   */
  send(replica: string, letter: Uint8Array, signal: AbortSignal): Promise<Uint8Array | undefined>;
}
