import type { Command } from "commander";
import { migrate, pendingMigrations } from "../../postgres/migrate.ts";
import { type DatabaseOptions, databaseUrl, withDatabaseOptions } from "../database-address.ts";
import { jsonLine } from "../layout.ts";
import type { Terminal } from "../terminal.ts";

interface MigrateOptions extends DatabaseOptions {
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

/** Adds `millrace migrate`. */
export function addMigrate(program: Command, terminal: Terminal): void {
  const command = program
    .command("migrate")
    .description("bring the schema millrace of a database up to date, in one transaction")
    .option("--dry-run", "only list what would be applied");
  withDatabaseOptions(command)
    .option("--json", "print the outcome as a JSON object")
    .addHelpText(
      "after",
      `
Safe from several processes at once. Refuses a schema that a newer Millrace made.

Examples:
  $ millrace migrate --dry-run
  $ millrace migrate --database-url postgres://admin@db.internal/shop`,
    )
    .action((options: MigrateOptions) => run(options, terminal));
}

async function run(options: MigrateOptions, terminal: Terminal): Promise<void> {
  const url = await databaseUrl(options, terminal);
  const dryRun = options.dryRun === true;
  if (dryRun) {
    const pending = (await pendingMigrations(url)).map(({ number, name }) => ({ number, name }));
    const lines = pending.map(({ name }) => `would apply ${name}\n`).join("");
    await terminal.print(options.json === true ? jsonLine({ dryRun, pending }) : lines || "up to date\n");
    return;
  }
  if (terminal.errorIsTty) terminal.note("millrace: migrating");
  const { applied, version } = await migrate(url, {
    onWait: (sentence) => terminal.note(`millrace: ${sentence}; trying again`),
    signal: terminal.interrupted,
  });
  const lines = applied.map(({ name }) => `applied ${name}\n`).join("");
  const text = lines === "" ? `up to date: schema ${version}\n` : `${lines}now schema ${version}\n`;
  await terminal.print(options.json === true ? jsonLine({ dryRun, applied, version }) : text);
}
