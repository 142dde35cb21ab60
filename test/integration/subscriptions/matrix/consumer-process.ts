import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Note } from "../../../support/checker/consumption.ts";

/** Moments of a consumer at which it can be had to wait. */
export type Step =
  | "opened"
  | "received"
  | "storing"
  | "processed"
  | "acknowledging"
  | "acknowledged"
  | "redelivered"
  | "burying";

export type Order = { readonly kind: "arm"; readonly step: Step } | { readonly kind: "go" };

export interface ConsumerOptions {
  /** Names this life of it. */
  readonly who: string;
  readonly subscription: string;
  /** Of servers, tried in turn from the one at `turn` on. */
  readonly ports: readonly number[];
  readonly turn: number;
  /** Of a group. */
  readonly member?: string;
  /** Of one that stores its cursor with its data. */
  readonly ledgerUrl?: string;
}

const main = fileURLToPath(new URL("./consumer-main.ts", import.meta.url));

/** A consumer in a process of its own, to be killed. */
export class ConsumerProcess implements AsyncDisposable {
  readonly who: string;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #read: Promise<unknown>;
  #reached = Promise.withResolvers<void>();
  #log = "";
  /** Events that it has processed. */
  processed = 0;
  /** What it said that is not part of the story. */
  failures: string[] = [];

  constructor(options: ConsumerOptions, tell: (note: Note) => void) {
    this.who = options.who;
    this.#child = spawn(process.execPath, [main, JSON.stringify(options)], { stdio: ["pipe", "pipe", "pipe"] });
    this.#child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.#log += text;
    });
    this.#child.stdin.on("error", () => undefined);
    const lines = createInterface(this.#child.stdout);
    this.#read = once(lines, "close");
    lines.on("line", (line) => this.#hear(line, tell));
  }

  #hear(line: string, tell: (note: Note) => void): void {
    let said: (Note | { readonly what: "at" } | { readonly what: "failed"; readonly why: string }) & { what: string };
    try {
      said = JSON.parse(line);
    } catch {
      // Cut by a kill in the middle of writing.
      return;
    }
    if (said.what === "at") this.#reached.resolve();
    else if (said.what === "failed") this.failures.push(said.why);
    else {
      if (said.what === "processed") this.processed += 1;
      tell(said);
    }
  }

  get log(): string {
    return this.#log;
  }

  /** Resolves when it has come to the step, where it waits. */
  arm(step: Step): Promise<void> {
    this.#reached = Promise.withResolvers<void>();
    this.#order({ kind: "arm", step });
    return this.#reached.promise;
  }

  goOn(): void {
    this.#order({ kind: "go" });
  }

  #order(order: Order): void {
    if (this.#child.stdin.writable) this.#child.stdin.write(`${JSON.stringify(order)}\n`);
  }

  /** SIGKILL; resolves when all that it had said is heard. */
  async kill9(tell: (note: Note) => void): Promise<void> {
    const at = Date.now();
    this.#child.kill("SIGKILL");
    await this.#read;
    tell({ at, who: this.who, what: "killed" });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#read;
  }
}
