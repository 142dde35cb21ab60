import type { Command } from "commander";
import { type DatabaseOptions, withDatabase, withDatabaseOptions } from "../database-address.ts";
import { usageFailure } from "../failure.ts";
import { jsonLine } from "../layout.ts";
import type { Terminal } from "../terminal.ts";
import { namedValue } from "./option-values.ts";

interface EmitOptions extends DatabaseOptions {
  readonly key?: string;
  readonly header?: Readonly<Record<string, string>>;
  readonly json?: boolean;
}

/** Adds `millrace emit`. */
export function addEmit(program: Command, terminal: Terminal): void {
  const command = program
    .command("emit")
    .description("append an event of your own, in a transaction of its own")
    .argument("<topic>", "dotted name that no watched table uses")
    .argument("[payload]", "JSON text, stored as written; - reads it from standard input")
    .option("--key <key>", "the event's key")
    .option("--header <name=value>", "a header; may be repeated", namedValue);
  withDatabaseOptions(command)
    .option("--json", "print the transaction as a JSON object")
    .addHelpText(
      "after",
      `
Prints the transaction as epoch:xid, which Subscribe takes as after_transaction.

Examples:
  $ millrace emit billing.invoiced '{"invoice": 42, "amount": 19.90}' --key 42
  $ jq -c . report.json | millrace emit reports.ready - --header source=nightly`,
    )
    .action(async (topic: string, given: string | undefined, options: EmitOptions) => {
      const payload = checked(given === "-" ? await terminal.readInput() : given);
      const headers = options.header === undefined ? null : JSON.stringify(options.header);
      const transaction = await withDatabase(options, terminal, async (client) => {
        const { rows } = await client.query<{ transaction: string }>(
          "select millrace.emit($1, $2, $3::json, $4::json) as transaction",
          [topic, options.key ?? null, payload ?? null, headers],
        );
        return rows[0]?.transaction ?? "";
      });
      await terminal.print(options.json === true ? jsonLine({ transaction, topic }) : `${transaction}\n`);
    });
}

/** Postgres says of bad JSON that it is bad; this says where. */
function checked(payload: string | undefined): string | undefined {
  if (payload === undefined) return undefined;
  try {
    JSON.parse(payload);
    return payload;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw usageFailure(`the payload is not JSON: ${reason}.`, `A plain text needs quotes of its own: '"text"'.`);
  }
}
