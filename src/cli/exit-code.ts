/** How a command ends, as scripts see it. The table in `docs/operations.md` says the same. */
export const exitCode = {
  ok: 0,
  /** Refused or failed; the sentence says why. `doctor` and `why`: they found an error. */
  failure: 1,
  /** The command line or a value in it is wrong: the same call fails again. */
  usage: 2,
  /** Postgres cannot be reached, or does not get to it: a lock in the way, an embedded one that another Millrace runs. */
  databaseUnreachable: 3,
  /** The Millrace server cannot be reached. */
  serverUnreachable: 4,
  /** The position to read from is malformed, of another history, or no longer kept. */
  positionLost: 5,
  /** `start`: the address to listen on is taken or not to be had. */
  addressInUse: 6,
  /** Ended by Ctrl-C. */
  interrupted: 130,
  /** Ended by SIGTERM. */
  terminated: 143,
} as const;

/** One of them. */
export type ExitCode = (typeof exitCode)[keyof typeof exitCode];

/** The table at the end of `millrace --help`. */
export const exitCodeHelp = `
Exit codes:
  0 ok   1 failed or refused   2 wrong usage   3 no database   4 no server
  5 the position to read from is not available   6 address in use   130 Ctrl-C   143 SIGTERM`;
