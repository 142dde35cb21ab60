import { FeedError, type FeedErrorCode } from "../errors.ts";
import type { StreamUpdate } from "../feed.ts";
import { type NamedStream, replicaOf, type StreamDirectory, streamNotFound } from "./stream-directory.ts";
import type { StreamMail } from "./stream-mail.ts";

/** What updates go through. */
export interface StreamUpdatesOptions<Stream extends NamedStream> {
  readonly directory: StreamDirectory<Stream>;
  /** `undefined` when there are no other replicas. */
  readonly mail: StreamMail | undefined;
  /**
   * Changes a stream's selectors.
   *
   * @throws FeedError
   */
  readonly change: (stream: Stream, update: StreamUpdate) => number;
}

type Answer =
  | { readonly number: number }
  | { readonly error: Pick<FeedError, "code" | "message" | "action" | "detail"> };

/** Brings a change of selectors to its stream, whichever replica that is on. */
export class StreamUpdates<Stream extends NamedStream> {
  readonly #options: StreamUpdatesOptions<Stream>;
  #stopReceiving: (() => void) | undefined;

  constructor(options: StreamUpdatesOptions<Stream>) {
    this.#options = options;
  }

  start(): void {
    const { mail, directory } = this.#options;
    this.#stopReceiving = mail?.receive(directory.replica, async (letter) => encode(this.#answer(letter)));
  }

  stop(): void {
    this.#stopReceiving?.();
    this.#stopReceiving = undefined;
  }

  /** Resolves with the number of the change once the stream has accepted it. */
  async update(update: StreamUpdate, signal: AbortSignal): Promise<number> {
    const { directory, mail } = this.#options;
    const replica = replicaOf(update.streamId);
    if (replica === directory.replica) {
      return this.#change(update);
    }
    const bytes = await mail?.send(replica, encode(update), signal);
    const answer = bytes && decode<Answer>(bytes);
    if (answer === undefined) {
      throw streamNotFound();
    }
    if ("number" in answer) {
      return answer.number;
    }
    const { code, message, action, detail } = answer.error;
    throw new FeedError(code, message, action, detail);
  }

  #change(update: StreamUpdate): number {
    const { directory, change } = this.#options;
    return change(directory.find(update.streamId, update.principal ?? ""), update);
  }

  #answer(letter: Uint8Array): Answer {
    try {
      return { number: this.#change(decode<StreamUpdate>(letter)) };
    } catch (error) {
      if (!(error instanceof FeedError)) {
        return { error: { ...unforeseen(error) } };
      }
      const { code, message, action, detail } = error;
      return { error: { code, message, action, detail } };
    }
  }
}

function unforeseen(cause: unknown): { code: FeedErrorCode; message: string; action: string; detail: object } {
  const what = cause instanceof Error ? cause.message : String(cause);
  return {
    code: "INTERNAL",
    message: `The stream's replica could not change it: ${what}.`,
    action: "Report this as a fault of Millrace.",
    detail: {},
  };
}

/** Replicas of different versions may meet: what they do not know of each other is left out, or undefined. */
function encode(value: StreamUpdate | Answer): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

function decode<T>(bytes: Uint8Array): T {
  return JSON.parse(new TextDecoder().decode(bytes)) as T;
}
