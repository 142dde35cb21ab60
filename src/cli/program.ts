import { readFileSync } from "node:fs";
import { Command } from "commander";
import { addStatus } from "./commands/status.ts";
import { addTail } from "./commands/tail.ts";
import { exitCodeHelp } from "./exit-code.ts";
import type { Terminal } from "./terminal.ts";

/** The whole command line. Throws what goes wrong instead of ending the process. */
export function createProgram(terminal: Terminal): Command {
  const program = new Command("millrace")
    .description("Committed Postgres changes as ordered, resumable gRPC, gRPC-Web and Connect streams.")
    .version(packageVersion())
    .exitOverride()
    // What is wrong is told once, by whoever catches it.
    .configureOutput({ writeErr: () => undefined })
    .showSuggestionAfterError(true)
    .addHelpText("after", exitCodeHelp);
  addTail(program, terminal);
  addStatus(program, terminal);
  return program;
}

function packageVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  return typeof manifest === "object" && manifest !== null && "version" in manifest ? String(manifest.version) : "";
}
