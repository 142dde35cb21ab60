import type { ConnectError } from "@connectrpc/connect";

/** How a stream ended, and what it carried: interceptors see the call end as it is handed off. */
export interface StreamEnd {
  /** `closed` after the frame `closing`; `gone` when the client went first. */
  readonly outcome: "closed" | "failed" | "gone";
  /** What the client was told when it failed. */
  readonly error: ConnectError | undefined;
  /** Messages, `opened` among them. */
  readonly messages: number;
  /** Of these messages with their prefixes, compressed where they were. */
  readonly bytes: number;
}

/** Told once per stream that was handed off. Must not throw. */
export type OnStreamEnd = (end: StreamEnd) => void;
