import { styleText } from "node:util";
import type { Command } from "commander";
import { doctor } from "../../postgres/doctor.ts";
import type { Finding } from "../../postgres/finding.ts";
import { why } from "../../postgres/why.ts";
import { type DatabaseOptions, withDatabaseOptions, withDatabasePool } from "../database-address.ts";
import { exitCode } from "../exit-code.ts";
import { jsonLine } from "../layout.ts";
import type { Terminal } from "../terminal.ts";

interface DiagnosisOptions extends DatabaseOptions {
  readonly json?: boolean;
}

/** Adds `millrace why`. */
export function addWhy(program: Command, terminal: Terminal): void {
  const command = program
    .command("why")
    .description("say what holds the feed up: open transactions, locks, the last tick, triggers that are off");
  withDatabaseOptions(command)
    .option("--json", "print everything that was seen as a JSON object")
    .addHelpText(
      "after",
      `
Statements of other sessions are shown only to members of the role that owns the schema. Exit code 1 when something stands
still or is lost, as opposed to slow or about to.

Examples:
  $ millrace why
  $ millrace why --json | jq .transactions`,
    )
    .action(async (options: DiagnosisOptions) => {
      const seen = await withDatabasePool(options, terminal, (pool) => why(pool, { signal: terminal.interrupted }));
      await terminal.print(options.json === true ? jsonLine(seen) : findingsText(seen.findings, terminal));
      if (seen.findings.some(isError)) process.exitCode = exitCode.failure;
    });
}

/** Adds `millrace doctor`. */
export function addDoctor(program: Command, terminal: Terminal): void {
  const command = program
    .command("doctor")
    .description("examine a database: server, session, schema, grants, triggers, each finding with what to do");
  withDatabaseOptions(command)
    .option("--json", "print the findings as a JSON object")
    .addHelpText(
      "after",
      `
Looks as the role that it logs in as, so give it the server's. Changes nothing. Exit code 1 when it finds an error.

Examples:
  $ millrace doctor
  $ millrace doctor --database-url postgres://feed@db.internal/shop --json`,
    )
    .action(async (options: DiagnosisOptions) => {
      const findings = await withDatabasePool(options, terminal, (pool) =>
        doctor(pool, { signal: terminal.interrupted }),
      );
      await terminal.print(options.json === true ? jsonLine({ findings }) : findingsText(findings, terminal));
      if (findings.some(isError)) process.exitCode = exitCode.failure;
    });
}

const marks = {
  ok: { text: "ok     ", style: "green" },
  warning: { text: "warning", style: "yellow" },
  error: { text: "error  ", style: "red" },
} as const;

function findingsText(findings: readonly Finding[], { colour }: Terminal): string {
  return findings
    .map(({ code, severity, message, action }) => {
      const { text, style } = marks[severity];
      const mark = colour ? styleText(style, text, { validateStream: false }) : text;
      const advice = action === "" ? "" : `         ${action}\n`;
      return `${mark}  ${code}: ${message}\n${advice}`;
    })
    .join("");
}

function isError({ severity }: Finding): boolean {
  return severity === "error";
}
