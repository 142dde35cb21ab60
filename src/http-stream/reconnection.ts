import type { ClosingReason } from "../core/frame.ts";

/** Milliseconds that browsers wait before they come again, unless told otherwise; and as much again by chance. */
const RETRY_MS = 1_000;
/** As good as never: whoever was taken over would take the subscription back, and be taken over again. */
const NEVER_MS = 86_400_000;

/** What a stream begins with: browsers that were cut together shall not come back together. */
export function retryAfterCut(chance: number): number {
  return Math.round(RETRY_MS * (1 + chance));
}

/** After `closing`. */
export function retryAfterClosing(
  { reason, retryAfterMs }: { readonly reason: ClosingReason; readonly retryAfterMs: number },
  chance: number,
): number {
  return reason === "TAKEN_OVER" ? NEVER_MS : Math.round(retryAfterMs + (RETRY_MS / 4) * chance);
}
