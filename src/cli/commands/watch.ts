import type { Command } from "commander";
import { type DatabaseOptions, withDatabase, withDatabaseOptions } from "../database-address.ts";
import { jsonLine } from "../layout.ts";
import { withLockPatience } from "../lock-patience.ts";
import { tableOid } from "../table-name.ts";
import type { Terminal } from "../terminal.ts";
import { commaList } from "./option-values.ts";

interface WatchOptions extends DatabaseOptions {
  readonly topic?: string;
  readonly key?: readonly string[];
  readonly include?: readonly string[];
  readonly exclude?: readonly string[];
  readonly before: boolean;
  readonly truncate: boolean;
  readonly json?: boolean;
}

interface Source {
  readonly name: string;
  readonly topic: string;
  readonly key_columns: readonly string[];
}

/** Adds `millrace watch`. */
export function addWatch(program: Command, terminal: Terminal): void {
  const command = program
    .command("watch")
    .description("make every committed change of a table an event, from now on")
    .argument("<table>", "as SQL names it: orders, shop.orders")
    .option("--topic <name>", "a name, or a template over columns: orders.{region} (default: the table's name)")
    .option("--key <columns>", "comma-separated (default: the primary key)", commaList)
    .option("--include <columns>", "the only columns in events, beside those of key and topic", commaList)
    .option("--exclude <columns>", "columns that stay out of events", commaList)
    .option("--no-before", "leave the old row out of UPDATE and DELETE")
    .option("--no-truncate", "do not tell of TRUNCATE");
  withDatabaseOptions(command)
    .option("--json", "print the source as a JSON object")
    .addHelpText(
      "after",
      `
For the table's owner. Again with other options to change them. Locks the table against writers for a moment: waits at
most a second for it, tries again for some two minutes, and says who is in the way.

Examples:
  $ millrace watch orders
  $ millrace watch shop.orders --topic 'orders.{region}' --key region,id --exclude card_number`,
    )
    .action((table: string, options: WatchOptions) => watch(table, options, terminal));
}

async function watch(table: string, options: WatchOptions, terminal: Terminal): Promise<void> {
  const source = await withDatabase(options, terminal, async (client) => {
    client.on("notice", (notice) => {
      if (notice.severity === "WARNING") terminal.note(`millrace: warning: ${notice.message}. ${notice.hint ?? ""}`);
    });
    const oid = await tableOid(client, table);
    const { rows } = await withLockPatience(terminal, () =>
      client.query<Source>(
        `select name, topic, key_columns
         from millrace.watch($1::oid::regclass, $2, $3::text[], $4::text[], $5::text[], $6, $7)`,
        [
          oid,
          options.topic ?? null,
          options.key ?? null,
          options.include ?? null,
          options.exclude ?? null,
          options.before,
          options.truncate,
        ],
      ),
    );
    return rows[0];
  });
  if (source === undefined) return;
  const { name, topic, key_columns: keyColumns } = source;
  const text = `watching ${name} as ${topic}, by ${keyColumns.join(", ")}\n`;
  await terminal.print(options.json === true ? jsonLine({ name, topic, keyColumns }) : text);
}

/** Adds `millrace unwatch`. */
export function addUnwatch(program: Command, terminal: Terminal): void {
  const command = program
    .command("unwatch")
    .description("end the capture of a table; events that are written stay")
    .argument("<table>", "as SQL names it");
  withDatabaseOptions(command)
    .option("--json", "print the outcome as a JSON object")
    .addHelpText("after", "\nExamples:\n  $ millrace unwatch shop.orders")
    .action(async (table: string, options: DatabaseOptions & { readonly json?: boolean }) => {
      const unwatched = await withDatabase(options, terminal, async (client) => {
        const oid = await tableOid(client, table);
        const { rows } = await withLockPatience(terminal, () =>
          client.query<{ unwatched: boolean }>("select millrace.unwatch($1::oid::regclass) as unwatched", [oid]),
        );
        return rows[0]?.unwatched === true;
      });
      const text = unwatched ? `${table} is not watched any more\n` : `${table} was not watched\n`;
      await terminal.print(options.json === true ? jsonLine({ table, unwatched }) : text);
    });
}
