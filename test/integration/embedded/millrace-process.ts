import type { ChildProcess } from "node:child_process";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type Identity, spawnAs } from "../../../src/embedded/identity.ts";

/** What `run-until-eof.ts` said. */
export interface Outcome {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  readonly adopted: boolean;
  readonly found?: { readonly url: string };
  readonly error?: string;
}

/** A program in a process of its own, from this folder. */
export interface Program {
  readonly pid: number;
  /** What it said first. Rejects with its complaints when it ends without a word. */
  readonly firstLine: Promise<string>;
  /** Ends its input and waits until it is gone. */
  end(): Promise<void>;
  /** SIGKILL: it cleans up nothing. */
  kill9(): Promise<void>;
}

/** One that runs the embedded Postgres until its input ends. */
export interface MillraceProcess extends Program {
  readonly outcome: Promise<Outcome>;
}

const millraceProgram = join(import.meta.dirname, "run-until-eof.ts");

/** Starts one with the environment given over this process's. */
export function startMillrace(args: readonly string[], env: Readonly<Record<string, string>> = {}): MillraceProcess {
  return withOutcome(startProgram(millraceProgram, args, env));
}

/** Starts one as another user. */
export function startMillraceAs(identity: Identity, args: readonly string[]): MillraceProcess {
  return withOutcome(controlled(spawnAs(identity, process.execPath, [millraceProgram, ...args], { stdio: "pipe" })));
}

/** Runs a TypeScript file with this Node. */
export function startProgram(
  file: string,
  args: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Program {
  return controlled(spawn(process.execPath, [file, ...args], { env: { ...process.env, ...env }, stdio: "pipe" }));
}

function withOutcome(program: Program): MillraceProcess {
  const outcome = program.firstLine.then((line): Outcome => JSON.parse(line));
  outcome.catch(() => {});
  return { ...program, outcome };
}

function controlled(child: ChildProcess): Program {
  const { pid, stdin, stdout, stderr } = child;
  if (pid === undefined || !stdin || !stdout || !stderr) throw new Error(`${process.execPath} did not start`);
  const complaints: string[] = [];
  stderr.on("data", (chunk) => complaints.push(String(chunk)));
  const closed = once(child, "close");
  const firstLine = Promise.race([
    once(createInterface({ input: stdout }), "line").then(([line]) => String(line)),
    closed.then(() => Promise.reject(new Error(`It ended without a word. ${complaints.join("")}`))),
  ]);
  // Whoever kills it on purpose does not ask what it said.
  firstLine.catch(() => {});
  return {
    pid,
    firstLine,
    end: async () => {
      stdin.end();
      await closed;
    },
    kill9: async () => {
      child.kill("SIGKILL");
      await closed;
    },
  };
}
