import type { StreamMail } from "../core/stream/stream-mail.ts";

/** Between the feeds of one process. */
export function createMemoryStreamMail(): StreamMail {
  const receivers = new Map<string, (letter: Uint8Array) => Promise<Uint8Array>>();
  return {
    receive(replica, answer) {
      receivers.set(replica, answer);
      return () => receivers.delete(replica);
    },
    async send(replica, letter, signal) {
      signal.throwIfAborted();
      return await receivers.get(replica)?.(letter);
    },
  };
}
