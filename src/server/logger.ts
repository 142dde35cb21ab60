import { type Logger, pino } from "pino";
import type { Config } from "./config.ts";

/** One JSON object per line on standard error: standard output belongs to the command line. Never a payload. */
export function createLogger(level: Config["logLevel"]): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    pino.destination({ dest: 2, sync: true }),
  );
}
