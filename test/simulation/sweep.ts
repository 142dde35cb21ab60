import type { Client } from "./client.ts";
import type { Replica } from "./replica.ts";
import type { World } from "./world.ts";

/** Whoever reads the log and takes everything has it so soon; chance makes timers late, and machines slow. */
const LIVE_MS = 300;
/** Whoever reads history has something of it so soon, once the database is well: it waits for others' pages, and backs off. */
const BEHIND_MS = 30_000;
/** Of policies that look through thousands of versions, page by page, before they say anything of them. */
const LOOKING_MS = 300_000;
/** A database that is well answers within this, also after the longest pause between two tries. */
const SOUND_MS = 4_000;
/** What a checkpoint that is due may take. */
const SPEAKING_MS = 1_500;

/** Looks for what did not happen: streams that sleep over what is theirs, or that are silent, and bounds that do not hold. */
export function sweep(world: World): void {
  for (const replica of world.replicas) {
    lookAtReplica(world, replica);
  }
  for (const client of world.clients) {
    const { replica } = client;
    if (client.opened && replica?.state === "up" && replica.truth === world.database.truth) {
      lookAtClient(world, client, replica);
    }
  }
}

function lookAtReplica(world: World, replica: Replica): void {
  const { database, tally, time } = world;
  if (replica.state !== "up" || replica.truth !== database.truth) {
    return;
  }
  const { state, logBytes } = replica.feed.status();
  const { staleAfterMs, limits } = replica.options;
  replica.looked(state === "STALE");
  const { lateMs, lookMs } = world.options.time;
  // A tail that sleeps does not ask, and one that is late notices late.
  const noticed = staleAfterMs * 1.25 + replica.wakeUp.idleMs + world.options.latencyMs + 4 * lateMs + 1_000 * lookMs;
  if (Math.min(database.awayForMs, replica.upForMs) > noticed && state !== "STALE") {
    tally.object("G10", "replica", `says ${state} although the database is away for ${database.awayForMs} ms`);
  }
  if (database.soundForMs > SOUND_MS + world.options.latencyMs && replica.upForMs > SOUND_MS && state === "STALE") {
    tally.object("G10", "replica", `says ${state} although the database is well for ${database.soundForMs} ms`);
  }
  const { laneBytes, history } = replica.feed.stats();
  const { maxLanesBytes = 0, historyCacheBytes = 0, logMaxBytes = 0 } = limits;
  // The newest segment of the log, and what one lane is using, stay.
  const newest = 400 * 400;
  if (
    laneBytes > maxLanesBytes + newest ||
    history.cachedBytes > historyCacheBytes ||
    logBytes > logMaxBytes + newest
  ) {
    tally.object("G9", "replica", `holds ${laneBytes} of lanes, ${history.cachedBytes} of pages, ${logBytes} of log`);
  }
  tally.mix([time.nowMs, logBytes, laneBytes, history.reads]);
}

function lookAtClient(world: World, client: Client, replica: Replica): void {
  const { tally, database } = world;
  const { standing, hungryForMs, inSnapshot, options } = client;
  if (standing === undefined || inSnapshot) {
    return;
  }
  const { logOldest, state } = replica.feed.status();
  const { maxBatchDelayMs = 0, maxEventsPerSecond, checkpointIntervalMs, policy } = options.request;
  const { time } = world.options;
  const slackMs = 4 * time.lateMs + 4_000 * time.lookMs + maxBatchDelayMs;
  const paceMs = maxEventsPerSecond === undefined ? 0 : 2_000;
  const liveMs = LIVE_MS + slackMs + paceMs;
  const live = hungryForMs > liveMs ? client.owed(replica.headBefore(liveMs)) : undefined;
  const inLog = (version: number) => standing.reached + 1 >= logOldest && version >= logOldest;
  if (live !== undefined && inLog(live)) {
    tally.object(
      "G9",
      options.name,
      `sleeps at v${standing.reached} for ${hungryForMs} ms, and v${live} is in the log`,
    );
  }
  const thins = policy?.kind === "LATEST" || policy?.kind === "SAMPLE";
  const behindMs = (thins ? LOOKING_MS : BEHIND_MS) + slackMs + paceMs;
  if (hungryForMs > behindMs && database.soundForMs > behindMs) {
    const owed = client.owed(replica.headBefore(behindMs));
    if (owed !== undefined) {
      tally.object("G9", options.name, `reads nothing at v${standing.reached} for ${hungryForMs} ms; v${owed} is due`);
    }
  }
  const tick = replica.truth.tickOf(standing.last);
  // Amid a tick it cannot speak; the rest of one that has left the log takes as long as reading does.
  const ended = tick === undefined || (tick.lastVersion <= replica.headBefore(SPEAKING_MS) && inLog(standing.last + 1));
  const whole = replica.truth.isBoundary(standing.last) || ended;
  const clean = standing.piece === undefined && whole && client.owed(tick?.lastVersion ?? 0) === undefined;
  const told = standing.state ?? "LIVE";
  const wrongMs = replica.staleForMs > 0 ? replica.staleForMs : replica.soundForMs;
  if (clean && hungryForMs > liveMs && wrongMs > liveMs && (told === "STALE") !== replica.staleForMs > 0) {
    tally.object("G10", options.name, `was told ${told}, and the feed is ${state} for ${wrongMs} ms`);
  }
  const silentMs = checkpointIntervalMs * 1.1 + SPEAKING_MS + slackMs;
  if (clean && hungryForMs > silentMs) {
    tally.object("G10", options.name, `says nothing for ${hungryForMs} ms at v${standing.reached}, ${state}`);
  }
}
