import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** What a program did. */
export interface Finished {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/**
 * Runs a program to its end; or, once `enough` holds of what it has printed, sends it SIGINT, as a person does who has seen
 * what they wanted.
 */
export function run(
  command: string,
  args: readonly string[],
  enough: (stdout: Buffer) => boolean = () => false,
): Promise<Finished> {
  return new Promise((resolve, reject) => {
    // In a group of its own: npm's wrapper of a program does not pass signals on to it.
    const child = spawn(command, args, { cwd: root, stdio: ["ignore", "pipe", "pipe"], detached: true });
    const out: Buffer[] = [];
    let stderr = "";
    let interrupted = false;
    child.stdout.on("data", (chunk: Buffer) => {
      out.push(chunk);
      if (!interrupted && child.pid !== undefined && enough(Buffer.concat(out))) {
        interrupted = true;
        process.kill(-child.pid, "SIGINT");
      }
    });
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
      stderr += chunk;
    });
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout: Buffer.concat(out), stderr }));
  });
}

/** The pinned `buf`. */
export const buf = fileURLToPath(new URL("../../node_modules/.bin/buf", import.meta.url));

/** Every whole JSON value of a text in which they follow one another. */
export function jsonValues(text: string): readonly unknown[] {
  const values: unknown[] = [];
  let start = 0;
  for (let end = text.indexOf("}"); end >= 0; end = text.indexOf("}", end + 1)) {
    try {
      values.push(JSON.parse(text.slice(start, end + 1)));
      start = end + 1;
    } catch {
      // Not whole yet.
    }
  }
  return values;
}
