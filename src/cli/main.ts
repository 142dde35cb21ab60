import { CommanderError } from "commander";
import { exitCode } from "./exit-code.ts";
import { failureFrom, failureJson, failureText } from "./failure.ts";
import { createProgram } from "./program.ts";
import { createProcessTerminal, interruptedCode, OutputClosed, type Terminal } from "./terminal.ts";

const terminal = createProcessTerminal();
await run(process.argv, terminal);

async function run(argv: readonly string[], terminal: Terminal): Promise<void> {
  const program = createProgram(terminal);
  try {
    await program.parseAsync([...argv]);
  } catch (error) {
    if (error instanceof OutputClosed) return;
    if (error instanceof CommanderError && error.exitCode === 0) return;
    if (error instanceof CommanderError && error.code === "commander.help") {
      const named = program.commands.find((command) => [command.name(), ...command.aliases()].includes(argv[2] ?? ""));
      terminal.note((named ?? program).helpInformation());
      process.exitCode = exitCode.usage;
      return;
    }
    const failure = failureFrom(error);
    const asJson = argv.includes("--json") || argv.includes("--ndjson");
    terminal.note(asJson ? failureJson(failure) : failureText(failure));
    process.exitCode = interruptedCode(terminal) ?? failure.exitCode;
  }
}
