import { type Command, Option } from "commander";
import { FeedError } from "../../core/errors.ts";
import {
  type LockOptions,
  listSources,
  type PollRequest,
  pollTable,
  type Source,
  unwatchTable,
  type WatchRequest,
  watchTable,
} from "../../postgres/sources.ts";
import { type DatabaseOptions, withDatabase, withDatabaseOptions } from "../database-address.ts";
import { usageFailure } from "../failure.ts";
import { columns, jsonLine } from "../layout.ts";
import { assertTable } from "../table-name.ts";
import type { Terminal } from "../terminal.ts";
import { commaList, timeSpan } from "./option-values.ts";

interface WatchOptions extends DatabaseOptions {
  readonly topic?: string;
  readonly key?: readonly string[];
  readonly include?: readonly string[];
  readonly exclude?: readonly string[];
  readonly before?: boolean;
  readonly truncate?: boolean;
  readonly order?: "default" | "strict";
  readonly reset?: boolean;
  readonly poll?: string;
  readonly every?: number;
  readonly overlap?: number;
  readonly deleted?: string;
  readonly json?: boolean;
}

/** Adds `millrace watch`. */
export function addWatch(program: Command, terminal: Terminal): void {
  const command = program
    .command("watch")
    .description("make every committed change of a table an event, from now on")
    .argument("<table>", "as SQL names it: orders, shop.orders")
    .option("--topic <name>", "a name, or a template over columns: orders.{region} (default: the table's name)")
    .option("--key <columns>", "comma-separated (default: the primary key, or the replica identity's index)", commaList)
    .option("--include <columns>", "the only columns in events, beside those of key and topic", commaList)
    .option("--exclude <columns>", "columns that stay out of events", commaList)
    .option("--before", "carry the old row in UPDATE and DELETE (default)")
    .option("--no-before", "leave it out")
    .option("--truncate", "tell of TRUNCATE (default)")
    .option("--no-truncate", "do not")
    .addOption(
      new Option("--order <order>", "strict: in the order of the changes, whatever other triggers do").choices([
        "default",
        "strict",
      ]),
    )
    .option("--reset", "forget what was set before: what is not given becomes the default")
    .option("--poll <column>", "without triggers: look from time to time for rows in which this column has risen")
    .option("--every <time>", "with --poll: time between looks (default: 1s)", timeSpan("--every"))
    .option(
      "--overlap <time>",
      "with --poll: longest time between a transaction's now() and its first write (default: 1min)",
      timeSpan("--overlap"),
    )
    .option("--deleted <column>", "with --poll: true, or not null, in rows that are deleted");
  withDatabaseOptions(command)
    .option("--json", "print the source as a JSON object")
    .addHelpText(
      "after",
      `
For the table's owner. Again with other options to change them: what is not given stays as it was. Locks the table against
writers for a moment: waits at most a second for it, tries again for some two minutes, and says who is in the way.

--order strict is for tables whose own triggers change rows of the same table: without it the older change of a row may be
told last. It has a price: events are written at commit and take memory until then, and TRUNCATE and ALTER TABLE of the
table fail in a transaction that has changed it.

--poll is for tables that may have no triggers. It needs SELECT and no ownership, for this role and for the server's. Deleted
rows go unseen unless a column says so, several changes between two looks are one event, and no event has the old row. What
is not given becomes the default.

Examples:
  $ millrace watch orders
  $ millrace watch invoices --poll updated_at --deleted deleted_at
  $ millrace watch shop.orders --topic 'shop.{region}' --key region,id --exclude card_number`,
    )
    .action((table: string, options: WatchOptions) => watch(table, options, terminal));
}

async function watch(table: string, options: WatchOptions, terminal: Terminal): Promise<void> {
  const source = await withDatabase(options, terminal, async (client) => {
    await assertTable(client, table);
    const begun =
      options.poll === undefined
        ? watchTable(client, { table, ...requested(withoutPolling(options)) }, lockOptions(terminal))
        : pollTable(client, { table, ...polled(options, options.poll) }, lockOptions(terminal));
    return begun.catch(asOption);
  });
  const text = `watching ${source.table ?? table} as ${source.topic}, by ${source.keyColumns.join(", ")}\n`;
  await terminal.print(options.json === true ? jsonLine(source) : text);
}

function withoutPolling(options: WatchOptions): WatchOptions {
  const { every, overlap, deleted } = options;
  const stray = Object.entries({ every, overlap, deleted }).find(([, value]) => value !== undefined);
  if (stray === undefined) return options;
  throw usageFailure(
    `--${stray[0]} is for polling.`,
    "Name the column that rises with every change: --poll updated_at.",
  );
}

function polled(options: WatchOptions, column: string): Omit<PollRequest, "table"> {
  const { topic, key, include, exclude, every, overlap, deleted, before, truncate, order, reset } = options;
  const stray = Object.entries({ before, truncate, order, reset }).find(([, value]) => value !== undefined);
  if (stray !== undefined) {
    throw usageFailure(`--${stray[0]} is for triggers, which --poll does without.`, "Leave one of the two out.");
  }
  return {
    column,
    ...(topic === undefined ? {} : { topic }),
    ...(key === undefined ? {} : { keyColumns: key }),
    ...(include === undefined ? {} : { include }),
    ...(exclude === undefined ? {} : { exclude }),
    ...(every === undefined ? {} : { everyMs: every }),
    ...(overlap === undefined ? {} : { overlapMs: overlap }),
    ...(deleted === undefined ? {} : { deletedColumn: deleted }),
  };
}

/** The database's hint is SQL; here there are options. */
function asOption(error: unknown): never {
  if (!(error instanceof FeedError)) throw error;
  const action = withOptions(error.action);
  throw action === error.action
    ? error
    : new FeedError(error.code, error.message, action, { ...error.detail, cause: error });
}

function withOptions(hint: string): string {
  if (hint.includes("key_columns =>")) {
    const candidates = [...hint.matchAll(/key_columns => '\{(.*?)\}'/g)].map(([, names]) => `--key ${names}`);
    return hint.startsWith("Unique")
      ? `Unique and never null are: ${candidates.join(" or ")}.`
      : "Name columns that tell its rows apart: --key a,b.";
  }
  return hint
    .replace("millrace.watch(..., topic => '...')", "--topic NAME")
    .replace("millrace.watch(..., exclude => ...)", "--exclude")
    .replace("watch(..., capture => 'strict')", "--order strict");
}

function requested(options: WatchOptions): Omit<WatchRequest, "table"> {
  return {
    ...(options.topic === undefined ? {} : { topic: options.topic }),
    ...(options.key === undefined ? {} : { keyColumns: options.key }),
    ...(options.include === undefined ? {} : { include: options.include }),
    ...(options.exclude === undefined ? {} : { exclude: options.exclude }),
    ...(options.before === undefined ? {} : { beforeValues: options.before }),
    ...(options.truncate === undefined ? {} : { captureTruncate: options.truncate }),
    ...(options.order === undefined ? {} : { capture: options.order === "strict" ? "strict" : "trigger" }),
    ...(options.reset === undefined ? {} : { reset: options.reset }),
  };
}

function lockOptions(terminal: Terminal): LockOptions {
  return {
    lockAttempts: 30,
    onWait: (sentence) => terminal.note(`millrace: ${sentence} Trying again.`),
    onWarning: (sentence, action) => {
      terminal.note(`millrace: warning: ${sentence}${action === "" ? "" : `\n  ${withOptions(action)}`}`);
    },
    signal: terminal.interrupted,
  };
}

/** Adds `millrace unwatch`. */
export function addUnwatch(program: Command, terminal: Terminal): void {
  const command = program
    .command("unwatch")
    .description("end the capture of a table; events that are written stay")
    .argument("<table>", "as SQL names it; one that is gone by the name it was watched as");
  withDatabaseOptions(command)
    .option("--json", "print the outcome as a JSON object")
    .addHelpText("after", "\nExamples:\n  $ millrace unwatch shop.orders")
    .action(async (table: string, options: DatabaseOptions & { readonly json?: boolean }) => {
      await withDatabase(options, terminal, (client) => unwatchTable(client, table, lockOptions(terminal)));
      const text = `${table} is not watched any more\n`;
      await terminal.print(options.json === true ? jsonLine({ table, watched: false }) : text);
    });
}

/** Adds `millrace sources`. */
export function addSources(program: Command, terminal: Terminal): void {
  const command = program
    .command("sources")
    .description("list the watched tables and what is wrong with their capture");
  withDatabaseOptions(command)
    .option("--json", "print them as a JSON array")
    .addHelpText(
      "after",
      "\nExamples:\n  $ millrace sources\n  $ millrace sources --json | jq '.[] | select(.problems != [])'",
    )
    .action(async (options: DatabaseOptions & { readonly json?: boolean }) => {
      const sources = await withDatabase(options, terminal, (client) => listSources(client));
      await terminal.print(options.json === true ? jsonLine(sources) : sourcesText(sources));
    });
}

function sourcesText(sources: readonly Source[]): string {
  if (sources.length === 0) return "no table is watched: `millrace watch TABLE`\n";
  const rows = sources.map(({ table, watchedAs, topic, keyColumns, polling, state, problems }) => [
    table ?? watchedAs,
    topic,
    keyColumns.join(", "),
    [
      state,
      ...(polling === undefined ? [] : [`polled by ${polling.column}`]),
      ...new Set(problems.map(({ kind }) => kind)),
    ].join(" "),
  ]);
  const problems = sources.flatMap((source) => source.problems);
  const details = problems.map(({ kind, message, action }) => `\n${kind}: ${message}\n  ${action}\n`);
  return columns([["TABLE", "TOPIC", "KEY", "CAPTURE"], ...rows]) + details.join("");
}
