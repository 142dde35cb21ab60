/** One thing that was looked at: what is so, and what to do about it. */
export interface Finding {
  /** Stable name, for programs: `TRIGGER_OFF`. */
  readonly code: string;
  /** `error`: something is lost, refused or stands still. `warning`: it will be, or is slower than it need be. */
  readonly severity: "ok" | "warning" | "error";
  /** What is so, as a sentence. */
  readonly message: string;
  /** What to do, as a sentence; empty when it is ok. */
  readonly action: string;
}

/** Nothing to do. */
export function ok(code: string, message: string): Finding {
  return { code, severity: "ok", message, action: "" };
}

/** Worth doing something about. */
export function warning(code: string, message: string, action: string): Finding {
  return { code, severity: "warning", message, action };
}

/** To be mended. */
export function error(code: string, message: string, action: string): Finding {
  return { code, severity: "error", message, action };
}

/** Milliseconds as people say them: `340 ms`, `12 s`, `3 min`, `2 h`, `4 days`. */
export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}
