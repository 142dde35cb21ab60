import { z } from "zod";

const id = z.union([z.string(), z.number()]);
const cancellation = z.object({
  method: z.literal("notifications/cancelled"),
  params: z.object({ requestId: id }),
});
const request = z.object({ method: z.string(), id });

/**
 * Which calls are under way, so that a client can give one up.
 *
 * In the revisions of 2025 a client that gives a call up says so in a request of its own, and leaves the first one open. It names
 * the call by a number that every client begins at zero with, so a name of the client's must come with it: that is all that the
 * session of this server is for. Whoever has none, or reaches another replica, waits in vain until the call's own time is over.
 */
export class WaitingCalls {
  readonly #calls = new Map<string, AbortController>();

  /** Remembers a call of this message, or ends those that it gives up. @returns what forgets it */
  note(session: string | undefined, message: unknown, call: AbortController): () => void {
    if (session === undefined) return () => undefined;
    const given = cancellation.safeParse(message);
    if (given.success) {
      this.#calls.get(nameOf(session, given.data.params.requestId))?.abort();
      return () => undefined;
    }
    const asked = request.safeParse(message);
    if (!asked.success) return () => undefined;
    const name = nameOf(session, asked.data.id);
    this.#calls.set(name, call);
    return () => {
      if (this.#calls.get(name) === call) this.#calls.delete(name);
    };
  }
}

/** Whether a message begins a session: of the revisions that have them. */
export function beginsSession(message: unknown): boolean {
  const { data } = request.safeParse(message);
  return data?.method === "initialize";
}

function nameOf(session: string, requestId: string | number): string {
  return JSON.stringify([session, requestId]);
}
