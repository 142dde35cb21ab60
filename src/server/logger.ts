import { type Logger, pino } from "pino";
import type { Config } from "./config.ts";

/** One JSON object per line on standard error: standard output belongs to the command line. Never a payload. */
export function createLogger(level: Config["logLevel"]): Logger {
  return pino(
    {
      level,
      base: null,
      // The plain one runs the messages of an error and its causes together.
      serializers: { err: pino.stdSerializers.errWithCause },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    pino.destination({ dest: 2, sync: true }),
  );
}
