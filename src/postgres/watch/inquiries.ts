import type pg from "pg";
import type { StuckPart, Verdict } from "../../core/watchdog/watched-part.ts";
import { createPool } from "../database.ts";
import { withLease } from "../lease.ts";
import { endSession, endSilentWaiter, noteRestart, sessionState, settledHead, silentWaiter } from "./statements.ts";

interface SessionState {
  readonly state: string | null;
  readonly waitType: string | null;
  readonly waitEvent: string | null;
  readonly forMs: number | null;
}

/** A waiter that has said nothing for long. */
export interface SilentWaiter {
  readonly pid: number;
  readonly application: string;
  readonly forMs: number;
  readonly ended: boolean;
}

const answerMs = 5_000;
const idleMs = 30_000;

/**
 * Asks the database about this server's other sessions, on a connection that nothing else uses. Everything
 * here is bounded in time, and a failure is an answer: nobody knows.
 */
export class Inquiries {
  readonly #pool: pg.Pool;
  readonly #patienceMs: number;

  constructor(url: string, applicationName: string, patienceMs: number) {
    this.#pool = createPool({ url, max: 1, idleMs, applicationName });
    this.#patienceMs = patienceMs;
  }

  /**
   * Whether somebody who waits for this session's answer can still get one. A session that executes may take its time; one
   * that has nothing to do, although a statement was sent to it, or that cannot get rid of its answer, has lost its network.
   */
  async stateOf(pid: number, applicationName: string): Promise<Verdict> {
    const [row] = await this.#rows<SessionState & pg.QueryResultRow>(sessionState, [pid, applicationName]);
    return row === undefined ? { kind: "unknown" } : verdictOf(row, pid, this.#patienceMs);
  }

  async end(pid: number, applicationName: string): Promise<void> {
    await this.#rows(endSession, [pid, applicationName]).catch(() => undefined);
  }

  async head(): Promise<number> {
    const [row] = await this.#rows<{ readonly head: number }>(settledHead, []);
    return row?.head ?? 0;
  }

  async note(server: string, part: string, { code, message }: StuckPart): Promise<void> {
    await this.#rows(noteRestart, [server, part, code, message]).catch(() => undefined);
  }

  async answers(): Promise<boolean> {
    return await this.#rows("select 1", []).then(
      () => true,
      () => false,
    );
  }

  /** Finds such a waiter and ends it. */
  async silentWaiter(silentMs: number): Promise<SilentWaiter | undefined> {
    const [found] = await this.#rows<{ pid: number; application: string; silentMs: number }>(silentWaiter, [silentMs]);
    if (found === undefined) return undefined;
    const ended = await this.#rows<{ ended: boolean }>(endSilentWaiter, [silentMs, found.pid]).then(
      ([row]) => row?.ended === true,
      () => false,
    );
    return { pid: found.pid, application: found.application, forMs: found.silentMs, ended };
  }

  async stop(): Promise<void> {
    if (!this.#pool.ended) await this.#pool.end();
  }

  #rows<R extends pg.QueryResultRow>(sql: string, values: readonly unknown[]): Promise<readonly R[]> {
    return withLease(this.#pool, AbortSignal.timeout(answerMs), (lease) => lease.rows<R>(sql, values));
  }
}

function verdictOf(session: SessionState, pid: number, patienceMs: number): Verdict {
  const { state, waitType, waitEvent, forMs } = session;
  if (state === "active") {
    return waitType === "Client"
      ? {
          kind: "lost",
          evidence: `seen from another connection, session ${pid} cannot get rid of its answer (${waitEvent ?? "waits for the client"})`,
        }
      : { kind: "working" };
  }
  const idle = state?.startsWith("idle") === true && forMs !== null && forMs >= patienceMs / 2;
  return idle
    ? { kind: "lost", evidence: `seen from another connection, session ${pid} has nothing to do (${state})` }
    : { kind: "unknown" };
}
