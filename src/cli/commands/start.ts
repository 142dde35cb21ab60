import { type Command, Option } from "commander";
import type { StartOptions } from "../start-server.ts";
import type { Terminal } from "../terminal.ts";
import { addConfigFlags } from "./start-options.ts";

/** Adds `millrace start`. */
export function addStart(program: Command, terminal: Terminal): void {
  const command = program
    .command("start")
    .description("run the server, on DATABASE_URL or else on an embedded Postgres with a live demo")
    .option(
      "--config <file>",
      "configuration (env MILLRACE_CONFIG, default millrace.config.ts, .js or .json where it lies here)",
    )
    .option("--data-dir <directory>", "of the embedded Postgres (env MILLRACE_DATA_DIR, default .millrace)")
    .option("--demo", "run the demo shop (default only on the embedded Postgres)")
    .option("--no-demo", "do not run it")
    .option("--json", "print where it runs as one JSON object")
    .addOption(new Option("--database <url>").hideHelp());
  addConfigFlags(command)
    .addHelpText(
      "after",
      `
The demo's tables are in the schema public of the embedded Postgres, and in millrace_demo of any other.
On a terminal, only warnings are logged unless --log-level says otherwise.

Examples:
  $ millrace start
  $ millrace start --port 7500 --no-demo --data-dir /var/lib/millrace
  $ millrace start --config deploy/millrace.config.ts
  $ DATABASE_URL=postgres://app@db.internal/shop millrace start
  $ millrace start --host 0.0.0.0 --insecure --tls-cert server.pem --tls-key server.key`,
    )
    .action(async (options: StartOptions) => {
      // The server is half of all there is to load: the other commands do without it.
      const { start } = await import("../start-server.ts");
      await start(options, terminal);
    });
}
