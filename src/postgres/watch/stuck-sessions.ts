import { duration, error, type Finding, ok, warning } from "../finding.ts";
import type { Lease } from "../lease.ts";
import { type PartName, parts } from "./session-watch.ts";
import { keepsRestarts, lastRestarts, millraceSessions } from "./statements.ts";

/** A session of a server's that stands still, as others see it. */
export interface StuckSession {
  readonly pid: number;
  /** `tail`, `waiter`, `history`, … */
  readonly part: string;
  /** Tells the sessions of one server from another's. */
  readonly server: string;
  /** Where that server is; `null` for a socket of this machine. */
  readonly client: string | null;
  readonly state: string;
  readonly silentMs: number;
  readonly holdsWaitersLock: boolean;
}

/** What a server found stuck of itself and restarted, within the last hour. */
export interface Restart {
  readonly server: string;
  readonly part: string;
  readonly code: string;
  /** Of the last time. */
  readonly message: string;
  readonly times: number;
  readonly agoMs: number;
}

interface Session extends Omit<StuckSession, "state" | "silentMs"> {
  readonly state: string | null;
  readonly waitType: string | null;
  /** `null` when this role may not see it. */
  readonly silentMs: number | null;
  /** Of its part and server, the one that was opened last: the others are left over. */
  readonly newest: boolean;
}

/** An idle tail asks ten times a second. */
export const usualSilentMs = 15_000;
/** What a session may take longer that is at work, or that has little to say. */
const factor = 3;
/** Within an hour, that is: chance does not do so. */
const manyTimes = 10;

/** Sessions of servers that have been silent for longer than they should, as far as this role may see them. */
export async function readStuckSessions(
  { rows }: Pick<Lease, "rows">,
  silentMs: number,
): Promise<readonly StuckSession[]> {
  const sessions = await rows<Session & { [column: string]: unknown }>(millraceSessions);
  return sessions.flatMap(({ waitType, newest, ...session }) => {
    const { state, silentMs: forMs } = session;
    if (state === null || forMs === null) return [];
    const limitMs = limitOf({ ...session, waitType, newest }, silentMs);
    return limitMs !== undefined && forMs > limitMs ? [{ ...session, state, silentMs: forMs }] : [];
  });
}

/** How long such a session may be as it is; `undefined` for as long as it likes. */
function limitOf({ part, state, waitType, newest, holdsWaitersLock }: Session, silentMs: number): number | undefined {
  if (part === "waiter") return holdsWaitersLock || newest ? factor * silentMs : undefined;
  if (state === "active") {
    // It wants to answer, and nobody reads.
    if (waitType === "Client") return silentMs;
    // Who waits for a lock is told of with whoever has it.
    return part === "tail" && waitType !== "Lock" ? factor * silentMs : undefined;
  }
  if (state?.startsWith("idle in transaction") === true) return silentMs;
  return part === "tail" && newest ? silentMs : undefined;
}

/** What to make of it. */
export function stuckFinding({ pid, part, server, client, state, silentMs, holdsWaitersLock }: StuckSession): Finding {
  const { code, noun } = parts[part as PartName] ?? { code: "SESSION_STUCK", noun: `A session for ${part}` };
  const doing = state === "active" ? "has been at one statement" : "has said nothing";
  const message =
    `${noun} of server ${server}${client === null ? "" : ` at ${client}`} stands still: its session, pid ${pid}, ${doing} ` +
    `for ${duration(silentMs)} (${state})${holdsWaitersLock ? ", and has writers notify it" : ""}.`;
  const action =
    "That server restarts it by itself; if it does not, its process is frozen or too busy, or the network swallows: see " +
    `its log, or run select pg_terminate_backend(${pid}).`;
  return part === "tail" ? error(code, message, action) : warning(code, message, action);
}

/** For so long it is news, in milliseconds. */
const newsMs = 60_000;

/** The last one of each server and part; none where the schema is older than that. */
export async function readRestarts({ rows }: Pick<Lease, "rows">): Promise<readonly Restart[]> {
  const [kept] = await rows<{ readonly kept: boolean }>(keepsRestarts);
  if (kept?.kept !== true) return [];
  return await rows<Restart & { [column: string]: unknown }>(lastRestarts);
}

/** What to make of it: what is over is worth knowing, and nothing is to be done about it. */
export function restartFinding({ server, code, message, times, agoMs }: Restart): Finding {
  const often = times === 1 ? "once" : `${times} times`;
  const text = `Server ${server}, ${duration(agoMs)} ago (${often} within the hour): ${message}`;
  return agoMs < newsMs || times >= manyTimes
    ? warning(code, text, "If it goes on, look at the network between that server and Postgres, and at its log.")
    : ok(code, text);
}
