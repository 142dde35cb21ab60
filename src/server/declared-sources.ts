import { setTimeout as pause } from "node:timers/promises";
import type { Logger } from "pino";
import { FeedError } from "../core/errors.ts";
import type { Service } from "../core/ports.ts";
import { type SourceDeclaration, stepTowards } from "../core/source/declaration.ts";
import type { Sources } from "../core/source/sources.ts";
import type { Problem } from "../rpc/status.ts";

/** Brings about what a configuration declares, and keeps at it. */
export interface DeclaredSources extends Service {
  /** Declared, and not so. */
  problems(): readonly Problem[];
  /** From now on these are declared. */
  declare(declarations: readonly SourceDeclaration[]): void;
}

/** What it works with. */
export interface DeclaredSourcesOptions {
  readonly declarations: readonly SourceDeclaration[];
  readonly sources: Sources;
  readonly log: Pick<Logger, "info" | "warn">;
  /** How long `start` waits for the first round, in milliseconds: locks may be in the way. Default 10,000. */
  readonly firstMs?: number | undefined;
  /** Milliseconds until what failed is tried again. Default 10,000. */
  readonly againMs?: number | undefined;
}

const FIRST_MS = 10_000;
const AGAIN_MS = 10_000;

/**
 * Watches the tables that are declared and are not watched like that, and ends it for those declared as `false`. What fails
 * is a problem and is tried again: somebody may be about to make the table, or to give the rights. What is not declared any
 * more stays as it is: events that nobody captured are gone for good, and another replica may still declare it.
 */
export function createDeclaredSources(options: DeclaredSourcesOptions): DeclaredSources {
  const { sources, log, firstMs = FIRST_MS, againMs = AGAIN_MS } = options;
  const stopping = new AbortController();
  let declarations = options.declarations;
  let problems: readonly Problem[] = [];
  let changed = Promise.withResolvers<void>();
  let running: Promise<void> = Promise.resolve();

  const round = async (): Promise<void> => {
    const found: Problem[] = [];
    for (const declaration of declarations) {
      if (stopping.signal.aborted) return;
      const problem = await bring(declaration, sources, log, stopping.signal);
      if (problem !== undefined) found.push(problem);
    }
    tell(problems, found, log);
    problems = found;
  };
  const run = async (first: () => void): Promise<void> => {
    while (!stopping.signal.aborted) {
      changed = Promise.withResolvers();
      await round();
      first();
      const waits = problems.length > 0 ? [pause(againMs, undefined, { signal: stopping.signal })] : [];
      await Promise.race([...waits, changed.promise]).catch(() => undefined);
    }
  };
  return {
    problems: () => problems,
    declare(next) {
      const left = declarations.filter(({ table }) => !next.some((one) => one.table === table));
      for (const { table, settings } of left) {
        if (settings === undefined) continue;
        log.info(
          { table },
          `${table} is not declared any more, and still watched: \`millrace unwatch ${table}\` ends that`,
        );
      }
      declarations = next;
      changed.resolve();
    },
    async start(signal) {
      const first = Promise.withResolvers<void>();
      running = run(first.resolve);
      const patience = new AbortController();
      const ending = AbortSignal.any([signal, patience.signal]);
      await Promise.race([first.promise, pause(firstMs, undefined, { signal: ending })]).finally(() =>
        patience.abort(),
      );
    },
    async stop() {
      stopping.abort();
      changed.resolve();
      await running;
    },
  };
}

async function bring(
  declaration: SourceDeclaration,
  sources: Sources,
  log: Pick<Logger, "info" | "warn">,
  signal: AbortSignal,
): Promise<Problem | undefined> {
  const { table } = declaration;
  try {
    const step = stepTowards(declaration, await sources.list(signal));
    if (step === undefined) return undefined;
    if (step.kind === "unwatch") {
      await sources.unwatch(table, signal);
      log.info({ table }, "not watched any more, as declared");
      return undefined;
    }
    const { source, warnings } = await sources.watch(step.request, signal);
    log.info({ table, topic: source.topic }, "watched as declared");
    for (const { message, action } of warnings) log.warn({ table, action }, message);
    return undefined;
  } catch (error) {
    if (signal.aborted) return undefined;
    return asProblem(declaration, error);
  }
}

function asProblem({ table, settings }: SourceDeclaration, error: unknown): Problem {
  const known = error instanceof FeedError;
  const wanted = settings === undefined ? "is declared as not watched, and still is" : "is not watched as declared";
  return {
    code: "SOURCE_NOT_AS_DECLARED",
    message: `${table} ${wanted}: ${known ? error.message : String(error)}`,
    action: `${known ? error.action : "Look at the server's log."} It is tried again every ${AGAIN_MS / 1_000} s.`,
  };
}

function tell(before: readonly Problem[], now: readonly Problem[], log: Pick<Logger, "info" | "warn">): void {
  const known = new Set(before.map(({ message }) => message));
  for (const { code, message, action } of now) {
    if (!known.has(message)) log.warn({ code, action }, message);
  }
  const still = new Set(now.map(({ message }) => message));
  for (const { code, message } of before) {
    if (!still.has(message)) log.info({ code }, `solved: ${message}`);
  }
}
