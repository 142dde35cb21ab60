import { type ExitCode, exitCode } from "./exit-code.ts";

/** What a command may do to the world outside: its two outputs, its environment, and whether it was asked to stop. */
export interface Terminal {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Absolute: `.millrace` is looked for here. */
  readonly directory: string;
  readonly outputIsTty: boolean;
  readonly errorIsTty: boolean;
  /** Columns of the output; infinite when it is no terminal. */
  readonly width: number;
  /** Whether colours are welcome on the output: a terminal, and NO_COLOR is not set. */
  readonly colour: boolean;
  /** Aborted by Ctrl-C and SIGTERM, with the signal's name as its reason. */
  readonly interrupted: AbortSignal;
  /** Everything that can be read on standard input. */
  readonly readInput: () => Promise<string>;
  /** Resolves once the reader of the output has room for more. Rejects with `OutputClosed` when there is no reader. */
  readonly print: (text: string) => Promise<void>;
  /** A line for people, on stderr. */
  readonly note: (line: string) => void;
}

/** How a command ends that was asked to stop; `undefined` when it was not. */
export function interruptedCode({ interrupted }: Terminal): ExitCode | undefined {
  if (!interrupted.aborted) return undefined;
  return interrupted.reason === "SIGTERM" ? exitCode.terminated : exitCode.interrupted;
}

/** Whoever read our output has gone (`millrace tail | head`): nothing is left to do, and nothing is wrong. */
export class OutputClosed extends Error {
  constructor() {
    super("nobody reads the output any more");
    this.name = "OutputClosed";
  }
}

/** The terminal of this process. Call once: it listens to the process's signals. */
export function createProcessTerminal(): Terminal {
  const { stdout, stderr, stdin, env } = process;
  const closed = new AbortController();
  stdout.on("error", () => closed.abort(new OutputClosed()));
  // Nobody is left to be told that nobody listens.
  stderr.on("error", () => undefined);
  return {
    environment: env,
    directory: process.cwd(),
    outputIsTty: stdout.isTTY === true,
    errorIsTty: stderr.isTTY === true,
    width: stdout.columns ?? Number.POSITIVE_INFINITY,
    colour: stdout.isTTY === true && (env.NO_COLOR ?? "") === "" && env.TERM !== "dumb",
    interrupted: interruption(),
    readInput: async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of stdin) chunks.push(Buffer.from(chunk));
      return Buffer.concat(chunks).toString("utf8");
    },
    print: (text) => write(text, closed.signal),
    note: (line) => {
      stderr.write(`${line}\n`);
    },
  };
}

function write(text: string, closed: AbortSignal): Promise<void> {
  closed.throwIfAborted();
  if (process.stdout.write(text)) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const settle = () => {
      process.stdout.off("drain", settle);
      closed.removeEventListener("abort", settle);
      if (closed.aborted) reject(closed.reason);
      else resolve();
    };
    process.stdout.once("drain", settle);
    closed.addEventListener("abort", settle, { once: true });
  });
}

/** A signal that comes twice within this time was sent once: to the whole process group, and passed on by npm. */
const sameSignalMs = 500;

/** The first signal asks; a second one does not. */
function interruption(): AbortSignal {
  const controller = new AbortController();
  let since = 0;
  for (const [signal, code] of [
    ["SIGINT", exitCode.interrupted],
    ["SIGTERM", exitCode.terminated],
  ] as const) {
    process.on(signal, () => {
      if (controller.signal.aborted && performance.now() - since > sameSignalMs) process.exit(code);
      if (controller.signal.aborted) return;
      since = performance.now();
      controller.abort(signal);
    });
  }
  return controller.signal;
}
