import { spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import type { Readable, Writable } from "node:stream";

const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless_shell"];

/** `MILLRACE_CHROMIUM`, else the first browser of its family that is installed here; `undefined` when there is none. */
export function findChromium(): string | undefined {
  const named = process.env.MILLRACE_CHROMIUM;
  if (named !== undefined && named !== "") return named;
  const directories = (process.env.PATH ?? "").split(delimiter);
  return directories.flatMap((directory) => names.map((name) => join(directory, name))).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** A page in a browser without a window. */
export interface BrowserPage extends AsyncDisposable {
  open(url: string): Promise<void>;
  /** The value of an expression in the page, once it is settled. */
  evaluate<T>(expression: string): Promise<T>;
}

/** Starts a browser of its own, and drives it by the DevTools protocol over a pipe. */
export async function openBrowserPage(executable: string): Promise<BrowserPage> {
  const profile = await mkdtemp(join(tmpdir(), "millrace-chromium-"));
  const child = spawn(
    executable,
    [
      ...["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"],
      ...["--disable-extensions", "--disable-background-networking", "--remote-debugging-pipe"],
      `--user-data-dir=${profile}`,
    ],
    { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] },
  );
  const ended = once(child, "exit");
  const [, , , input, output] = child.stdio;
  const protocol = new Protocol(input as Writable, output as Readable);
  void ended.then(() => protocol.close());
  const { targetId } = await protocol.send<{ targetId: string }>("Target.createTarget", { url: "about:blank" });
  const attached = await protocol.send<{ sessionId: string }>("Target.attachToTarget", { targetId, flatten: true });
  const { sessionId } = attached;
  return {
    async open(url) {
      await protocol.send("Page.navigate", { url }, sessionId);
    },
    async evaluate<T>(expression: string): Promise<T> {
      const asked = { expression, awaitPromise: true, returnByValue: true };
      const answer = await protocol.send<Evaluated<T>>("Runtime.evaluate", asked, sessionId);
      if (answer.exceptionDetails !== undefined) throw new Error(JSON.stringify(answer.exceptionDetails));
      return answer.result.value;
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await ended;
      await rm(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
    },
  };
}

interface Evaluated<T> {
  readonly result: { readonly value: T };
  readonly exceptionDetails?: unknown;
}

/** Messages of JSON, with a zero byte behind each. */
class Protocol {
  readonly #input: Writable;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  #last = 0;
  #rest = "";

  constructor(input: Writable, output: Readable) {
    this.#input = input;
    input.on("error", () => this.close());
    output.setEncoding("utf8").on("data", (text: string) => this.#hear(text));
  }

  send<T>(method: string, params: object, sessionId?: string): Promise<T> {
    this.#last += 1;
    const answer = Promise.withResolvers<unknown>();
    this.#waiting.set(this.#last, answer);
    this.#input.write(`${JSON.stringify({ id: this.#last, method, params, sessionId })}\0`);
    return answer.promise as Promise<T>;
  }

  close(): void {
    for (const { reject } of this.#waiting.values()) reject(new Error("The browser has ended."));
    this.#waiting.clear();
  }

  #hear(text: string): void {
    const messages = (this.#rest + text).split("\0");
    this.#rest = messages.pop() ?? "";
    for (const message of messages) {
      const { id, result, error } = JSON.parse(message);
      const answer = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) answer?.resolve(result);
      else answer?.reject(new Error(JSON.stringify(error)));
    }
  }
}
