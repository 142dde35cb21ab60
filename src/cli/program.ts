import { Command } from "commander";
import { serverVersion } from "../server/version.ts";
import { addDoctor, addWhy } from "./commands/diagnosis.ts";
import { addEmit } from "./commands/emit.ts";
import { addMcp } from "./commands/mcp.ts";
import { addMigrate } from "./commands/migrate.ts";
import { addHold, addPrune, addRetain } from "./commands/retention.ts";
import { addStart } from "./commands/start.ts";
import { addStatus } from "./commands/status.ts";
import { addSubscription } from "./commands/subscription.ts";
import { addTail } from "./commands/tail.ts";
import { addSources, addUnwatch, addWatch } from "./commands/watch.ts";
import { exitCodeHelp } from "./exit-code.ts";
import type { Terminal } from "./terminal.ts";

/** The whole command line. Throws what goes wrong instead of ending the process. */
export function createProgram(terminal: Terminal): Command {
  const program = new Command("millrace")
    .description("Committed Postgres changes as ordered, resumable gRPC, gRPC-Web and Connect streams.")
    .version(serverVersion)
    .exitOverride()
    // What is wrong is told once, by whoever catches it.
    .configureOutput({ writeErr: () => undefined })
    .showSuggestionAfterError(true)
    .addHelpText("after", exitCodeHelp);
  addStart(program, terminal);
  addWatch(program, terminal);
  addUnwatch(program, terminal);
  addSources(program, terminal);
  addEmit(program, terminal);
  addTail(program, terminal);
  addSubscription(program, terminal);
  addStatus(program, terminal);
  addWhy(program, terminal);
  addDoctor(program, terminal);
  addRetain(program, terminal);
  addHold(program, terminal);
  addPrune(program, terminal);
  addMcp(program, terminal);
  addMigrate(program, terminal);
  return program;
}
