import { setTimeout as delay } from "node:timers/promises";
import type { Command } from "commander";
import { FeedError } from "../../core/errors.ts";
import { withLease } from "../../postgres/lease.ts";
import { look } from "../../postgres/look.ts";
import { queryError } from "../../postgres/query-error.ts";
import { type Hold, hold, release, setRetention } from "../../postgres/retention/settings.ts";
import { type HeldBack, type RetentionSettings, readSettings, readStorage } from "../../postgres/retention/storage.ts";
import { keepOutbox, type Prunable, readPrunable, type Upkeep } from "../../postgres/retention/upkeep.ts";
import { type DatabaseOptions, withDatabase, withDatabaseOptions, withDatabasePool } from "../database-address.ts";
import { usageFailure } from "../failure.ts";
import { columns, duration, jsonLine, size } from "../layout.ts";
import type { Terminal } from "../terminal.ts";
import { byteSize, orNone, timeSpan, wholeNumber } from "./option-values.ts";

interface RetainOptions extends DatabaseOptions {
  readonly age?: number | "none";
  readonly bytes?: number | "none";
  readonly holdCapAge?: number | "none";
  readonly holdCapBytes?: number | "none";
  readonly json?: boolean;
}

/** Adds `millrace retain`. */
export function addRetain(program: Command, terminal: Terminal): void {
  const command = program
    .command("retain")
    .description("show or set how long history is kept, for all servers of a database")
    .option(
      "--age <time>",
      "after which events may go: 12h, 7d; `none` keeps them for ever",
      orNone("none", timeSpan("--age")),
    )
    .option(
      "--bytes <size>",
      "of the outbox, above which the oldest go: 50GiB; `none` for no limit",
      orNone("none", byteSize("--bytes")),
    )
    .option(
      "--hold-cap-age <time>",
      "after which they go although they are held",
      orNone("none", timeSpan("--hold-cap-age")),
    )
    .option(
      "--hold-cap-bytes <size>",
      "above which they go although they are held",
      orNone("none", byteSize("--hold-cap-bytes")),
    );
  withDatabaseOptions(command)
    .option("--json", "print the limits as a JSON object")
    .addHelpText(
      "after",
      `
Events go once they are past one of the limits, by the partition: up to an eighth more than asked for is kept. What is not
given stays as it is. For the owner of Millrace's schema.

Examples:
  $ millrace retain
  $ millrace retain --age 7d --bytes 50GiB
  $ millrace retain --age none --hold-cap-age 60d`,
    )
    .action((options: RetainOptions) => retain(options, terminal));
}

async function retain(options: RetainOptions, terminal: Terminal): Promise<void> {
  const settings = await withDatabase(options, terminal, async (client) => {
    const rows = async <R extends object>(sql: string) => (await client.query<R>(sql)).rows;
    const before = await look(client, () => readSettings({ rows })).catch(explained("read what is kept"));
    const { age, bytes, holdCapAge, holdCapBytes } = options;
    if ([age, bytes, holdCapAge, holdCapBytes].every((value) => value === undefined)) return before;
    const after: RetentionSettings = {
      keepAgeMs: changed(before.keepAgeMs, age),
      keepBytes: changed(before.keepBytes, bytes),
      holdCapAgeMs: changed(before.holdCapAgeMs, holdCapAge),
      holdCapBytes: changed(before.holdCapBytes, holdCapBytes),
    };
    await setRetention(client, after);
    return after;
  });
  await terminal.print(options.json === true ? jsonLine(settingsJson(settings)) : settingsText(settings));
}

function changed(before: number | undefined, asked: number | "none" | undefined): number | undefined {
  if (asked === undefined) return before;
  return asked === "none" ? undefined : asked;
}

/** With null for no limit: what is left out of JSON looks forgotten. */
function settingsJson({ keepAgeMs, keepBytes, holdCapAgeMs, holdCapBytes }: RetentionSettings): unknown {
  return {
    keepAgeMs: keepAgeMs ?? null,
    keepBytes: keepBytes ?? null,
    holdCapAgeMs: holdCapAgeMs ?? null,
    holdCapBytes: holdCapBytes ?? null,
  };
}

/** `7 d or 50 GiB`. */
function limitText(ageMs: number | undefined, bytes: number | undefined): string {
  const limits = [ageMs === undefined ? [] : duration(ageMs), bytes === undefined ? [] : size(bytes)].flat();
  return limits.length === 0 ? "for ever" : limits.join(" or ");
}

function settingsText({ keepAgeMs, keepBytes, holdCapAgeMs, holdCapBytes }: RetentionSettings): string {
  return columns([
    ["kept", limitText(keepAgeMs, keepBytes)],
    ["held, at most", limitText(holdCapAgeMs, holdCapBytes)],
  ]);
}

interface HoldOptions extends DatabaseOptions {
  readonly after?: number;
  readonly for?: number;
  readonly release?: boolean;
  readonly json?: boolean;
}

const holdForMs = 86_400_000;

/** Adds `millrace hold`. */
export function addHold(program: Command, terminal: Terminal): void {
  const command = program
    .command("hold")
    .description("keep history from being forgotten for a while, or list who does")
    .argument("[name]", "of the hold; the same name again renews it. Without it, all are listed")
    .option(
      "--after <version>",
      "keep the events after this version (default: all that are kept now)",
      wholeNumber("--after", 0),
    )
    .option("--for <time>", "how long it lasts: 12h, 7d (default: 1d)", timeSpan("--for"))
    .option("--release", "end it");
  withDatabaseOptions(command)
    .option("--json", "print the hold, or all of them, as JSON")
    .addHelpText(
      "after",
      `
A hold ends by itself. It keeps history up to the cap that \`millrace retain\` shows; past that history goes nevertheless,
and \`millrace status\` says so.

Examples:
  $ millrace hold backfill --for 2d
  $ millrace hold reporting --after 48211 --for 12h
  $ millrace hold
  $ millrace hold backfill --release`,
    )
    .action((name: string | undefined, options: HoldOptions) => holdCommand(name, options, terminal));
}

async function holdCommand(name: string | undefined, options: HoldOptions, terminal: Terminal): Promise<void> {
  const json = options.json === true;
  if (name === undefined) {
    if (options.release === true || options.after !== undefined || options.for !== undefined) {
      throw usageFailure("a hold needs a name.", "For example: millrace hold backfill --for 2d.");
    }
    const { heldBack, subscriptions } = await withDatabasePool(options, terminal, (pool) =>
      withLease(pool, terminal.interrupted, (lease) => look(lease.client, () => readStorage(lease))),
    ).catch(explained("list the holds"));
    await terminal.print(
      json ? jsonLine(heldBack.map(holdJson)) : holdsText(heldBack, subscriptions.count - subscriptions.lostCount),
    );
    return;
  }
  if (options.release === true) {
    const released = await withDatabase(options, terminal, (client) => release(client, name));
    if (!released) throw new FeedError("INVALID_REQUEST", `There is no hold "${name}".`, "List them: `millrace hold`.");
    await terminal.print(json ? jsonLine({ name, released }) : `${name} holds nothing any more\n`);
    return;
  }
  const held = await withDatabase(options, terminal, (client) =>
    hold(client, { name, version: options.after, lastsMs: options.for ?? holdForMs }),
  );
  const until = new Date(held.expiresAtMs).toISOString();
  await terminal.print(
    json ? jsonLine(holdJson(held)) : `${name} holds what follows version ${held.version}, until ${until}\n`,
  );
}

function holdJson({ expiresAtMs, ...rest }: Hold | HeldBack): unknown {
  return { ...rest, expiresAt: expiresAtMs === undefined ? null : new Date(expiresAtMs).toISOString() };
}

function holdsText(held: readonly HeldBack[], subscriptions: number): string {
  const others = subscriptions - held.filter(({ kind }) => kind === "subscription").length;
  const more = others > 0 ? `and ${others} more subscription${others === 1 ? "" : "s"}\n` : "";
  if (held.length === 0) return `nothing holds history back\n`;
  const rows = held.map(({ kind, name, version, expiresAtMs, overridden }) => [
    kind,
    name,
    String(version),
    expiresAtMs === undefined ? "never" : new Date(expiresAtMs).toISOString(),
    overridden ? "past the cap: some of it is gone" : "kept",
  ]);
  return columns([["KIND", "NAME", "AFTER VERSION", "UNTIL", "STATE"], ...rows]) + more;
}

interface PruneOptions extends DatabaseOptions {
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

const pruneAttempts = 10;

/** Adds `millrace prune`. */
export function addPrune(program: Command, terminal: Terminal): void {
  const command = program
    .command("prune")
    .description("forget what is past the limits now, and make partitions for what comes next")
    .option("--dry-run", "only list what would go");
  withDatabaseOptions(command)
    .option("--json", "print the outcome as a JSON object")
    .addHelpText(
      "after",
      `
Servers do the same by themselves every ten seconds. It waits for writers for at most 0.2 s at a time, tries ten times, and
says who is in the way.

Examples:
  $ millrace prune --dry-run
  $ millrace prune --json | jq .dropped`,
    )
    .action((options: PruneOptions) => prune(options, terminal));
}

async function prune(options: PruneOptions, terminal: Terminal): Promise<void> {
  await withDatabasePool(options, terminal, async (pool) => {
    if (options.dryRun === true) {
      const found = await withLease(pool, terminal.interrupted, readPrunable);
      await terminal.print(
        options.json === true ? jsonLine({ dryRun: true, partitions: found.map(prunableJson) }) : prunableText(found),
      );
      return;
    }
    const done: Upkeep[] = [];
    for (let attempt = 1; ; attempt += 1) {
      const round = await keepOutbox(pool, terminal.interrupted);
      done.push(round);
      if (round.waitsFor === undefined) break;
      if (attempt === pruneAttempts) {
        throw new FeedError(
          "DATABASE_UNAVAILABLE",
          round.waitsFor,
          "Wait for that transaction or end it, then try again.",
        );
      }
      terminal.note(`millrace: ${round.waitsFor} Trying again.`);
      await delay(Math.min(500 * 2 ** attempt, 5000), undefined, { signal: terminal.interrupted });
    }
    const dropped = done.flatMap((round) => round.dropped);
    const made = done.reduce((sum, round) => sum + round.made, 0);
    const lost = done.flatMap((round) => round.lost);
    const expired = done.flatMap((round) => round.expired);
    const lines = [
      ...dropped.map((name) => `dropped ${name}\n`),
      made === 0 ? "" : `made ${made} partition${made === 1 ? "" : "s"} ahead\n`,
      ...lost.map((id) => `subscription ${id} was past the cap: events that it needed are gone\n`),
      ...expired.map((id) => `deleted subscription ${id}, which nobody used\n`),
    ].join("");
    await terminal.print(
      options.json === true ? jsonLine({ dryRun: false, dropped, made, lost, expired }) : lines || "nothing to do\n",
    );
  }).catch(explained("prune"));
}

function prunableJson({ settledAtMs, heldBy, ...rest }: Prunable): unknown {
  return { ...rest, heldBy: heldBy ?? null, settledAt: new Date(settledAtMs).toISOString() };
}

function prunableText(found: readonly Prunable[]): string {
  if (found.length === 0) return "nothing would go\n";
  const rows = found.map(({ name, bytes, lastVersion, settledAtMs, reason, heldBy, due }) => [
    name,
    size(bytes),
    reason === "forgotten" ? "nothing that is readable" : `versions up to ${lastVersion}`,
    new Date(settledAtMs).toISOString(),
    due ? `would go (${reason}${heldBy === undefined ? "" : `, past the cap of ${heldBy}`})` : `kept for ${heldBy}`,
  ]);
  return columns([["PARTITION", "SIZE", "HOLDS", "SETTLED", ""], ...rows]);
}

function explained(doing: string): (error: unknown) => never {
  return (error) => {
    throw queryError(error, doing);
  };
}
