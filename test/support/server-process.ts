import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** A server in a process of its own, to be killed and frozen. */
export interface ServerProcess extends AsyncDisposable {
  readonly port: number;
  readonly pid: number;
  /** SIGKILL; resolves when it is gone. */
  kill9(): Promise<void>;
  /** SIGSTOP and SIGCONT. */
  freeze(): void;
  thaw(): void;
  /** SIGTERM; resolves with the exit code. */
  terminate(): Promise<number | null>;
  /** What it wrote to standard error. */
  readonly log: () => string;
}

const main = fileURLToPath(new URL("./server-main.ts", import.meta.url));

/** Starts `millrace start` with this configuration (as `src/server/config.ts` takes it) and waits until it takes calls. */
export async function startServerProcess(
  config: Readonly<Record<string, unknown>>,
  nodeArguments: readonly string[] = [],
): Promise<ServerProcess> {
  const child = spawn(
    process.execPath,
    [...nodeArguments, main, JSON.stringify({ port: 0, logLevel: "warn", ...config })],
    {
      stdio: ["pipe", "pipe", "pipe"],
    },
  );
  const ended = once(child, "exit");
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    log += text;
  });
  const port = await Promise.race([portOf(child), ended.then(() => undefined)]);
  if (port === undefined) throw new Error(`The server did not start:\n${log}`);
  const stop = async (signal: NodeJS.Signals) => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill(signal);
      // A stopped process takes no other signal than SIGKILL.
      if (signal !== "SIGKILL") child.kill("SIGCONT");
    }
    await ended;
    return child.exitCode;
  };
  return {
    port,
    pid: child.pid ?? 0,
    log: () => log,
    kill9: async () => void (await stop("SIGKILL")),
    freeze: () => void child.kill("SIGSTOP"),
    thaw: () => void child.kill("SIGCONT"),
    terminate: () => stop("SIGTERM"),
    [Symbol.asyncDispose]: async () => void (await stop("SIGKILL")),
  };
}

async function portOf(child: ChildProcess): Promise<number | undefined> {
  if (child.stdout === null) return undefined;
  for await (const line of createInterface(child.stdout)) {
    const started: { readonly port: number } = JSON.parse(line);
    return started.port;
  }
  return undefined;
}
