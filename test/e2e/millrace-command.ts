import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { findRunning } from "../../src/embedded/embedded-postgres.ts";
import { stopPostmaster } from "../../src/embedded/postmaster.ts";

const binary = fileURLToPath(new URL("../../bin/millrace.js", import.meta.url));

/** What a command did. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Where and how a command runs. */
export interface Surroundings {
  readonly directory: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly nodeArguments?: readonly string[];
  readonly input?: string;
}

/** Runs the real command line to its end. */
export async function millrace(args: readonly string[], around: Surroundings): Promise<Ended> {
  const child = start(args, around);
  let stdout = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  const stderr = collect(child);
  child.stdin?.end(around.input ?? "");
  const [code] = await once(child, "close");
  return { code, stdout, stderr: stderr() };
}

/** A command that goes on until it is told to end. */
export interface Running {
  readonly pid: number;
  /** Lines of standard output so far. */
  readonly lines: readonly string[];
  readonly stderr: () => string;
  /** The first line for which this holds, once it is there. Rejects when the command ends before. */
  line(wanted: (line: string) => boolean): Promise<string>;
  /** Sends this to its standard input. */
  write(text: string): void;
  /** Ends its standard input; resolves with its exit code. */
  endInput(): Promise<number | null>;
  /** Stops reading what it prints, as `| head` does; resolves with its exit code. */
  closeOutput(): Promise<number | null>;
  /** Resolves with the exit code, or the signal that ended it. */
  end(signal: NodeJS.Signals): Promise<number | NodeJS.Signals | null>;
}

/** Starts the real command line and leaves it running. */
export function startMillrace(args: readonly string[], around: Surroundings): Running {
  const child = start(args, around);
  const stderr = collect(child);
  const closed = once(child, "close");
  const lines: string[] = [];
  const waiting = new Set<() => void>();
  if (child.stdout === null) throw new Error("no standard output");
  createInterface(child.stdout).on("line", (line) => {
    lines.push(line);
    for (const look of waiting) look();
  });
  return {
    pid: child.pid ?? 0,
    lines,
    stderr,
    line: (wanted) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const found = lines.find(wanted);
          if (found === undefined) return;
          waiting.delete(look);
          resolve(found);
        };
        waiting.add(look);
        look();
        void closed.then(() => reject(new Error(`it ended before: ${stderr()}`)));
      }),
    write: (text) => void child.stdin?.write(text),
    async endInput() {
      child.stdin?.end();
      await closed;
      return child.exitCode;
    },
    async closeOutput() {
      child.stdout?.destroy();
      await once(child, "exit");
      return child.exitCode;
    },
    async end(signal) {
      child.kill(signal);
      await closed;
      return child.exitCode ?? child.signalCode;
    },
  };
}

/** A new directory, with a space in its name, that a Postgres of another user may enter. */
export async function scratchDirectory(): Promise<string> {
  const parent = await mkdtemp(join(tmpdir(), "millrace-cli-"));
  await chmod(parent, 0o711);
  const directory = join(parent, "with some space");
  await mkdir(directory, { mode: 0o711 });
  return directory;
}

/** Stops what may still run there and deletes it. */
export async function cleanUp(directory: string): Promise<void> {
  for (const name of [".millrace", "other"]) {
    const postgres = await findRunning(join(directory, name));
    if (postgres !== undefined) await stopPostmaster(postgres.pid, 5_000);
  }
  await rm(join(directory, ".."), { recursive: true, force: true });
}

/** A line of JSON as an object. */
export function parsed(line: string): Readonly<Record<string, unknown>> {
  const value: unknown = JSON.parse(line);
  if (typeof value !== "object" || value === null) throw new Error(`no object: ${line}`);
  return { ...value };
}

function start(args: readonly string[], around: Surroundings): ChildProcess {
  // Nothing of the surroundings of the tests may decide what a command does.
  const { DATABASE_URL, MILLRACE_URL, PORT, ...env } = process.env;
  return spawn(process.execPath, [...(around.nodeArguments ?? []), binary, ...args], {
    cwd: around.directory,
    env: { ...env, ...around.env },
    stdio: ["pipe", "pipe", "pipe"],
  });
}

function collect(child: ChildProcess): () => string {
  let text = "";
  child.stderr?.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk;
  });
  return () => text;
}
