import type { ToolCall } from "./tool.ts";

const EVERY_MS = 5_000;

/** Tells a client that asked how long its call has waited, every five seconds. @returns what ends it */
export function reportWait({ progress, timers, clock }: ToolCall, waitMs: number): () => void {
  if (progress === undefined) return () => undefined;
  const since = clock.monotonic();
  let cancel: () => void = () => undefined;
  const next = (): void => {
    cancel = timers.after(EVERY_MS, () => {
      const seconds = Math.round((clock.monotonic() - since) / 1000);
      progress(seconds, Math.max(seconds, waitMs / 1000), "Nothing yet: waiting for events.");
      next();
    });
  };
  next();
  return () => cancel();
}
