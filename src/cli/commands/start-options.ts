import { type Command, Option } from "commander";
import { type Config, configSchema, environmentNames, flagName } from "../../server/config.ts";

/** Adds a flag for every option of the server, with what its schema says of it. */
export function addConfigFlags(command: Command): Command {
  for (const [name, schema] of Object.entries(configSchema.shape)) {
    const fallback = schema.safeParse(undefined).data;
    const flag = flagName(name);
    const description = [schema.description ?? "", `(${notes(name, fallback)})`].join(" ");
    if (typeof fallback !== "boolean") {
      command.addOption(new Option(`${flag} <value>`, description));
    } else {
      // Both forms, so that a flag can also take back what the environment says.
      const on = new Option(flag, description);
      const off = new Option(flag.replace("--", "--no-"), fallback ? `do not ${lowerFirst(description)}` : "");
      command.addOption(fallback ? on.hideHelp() : on).addOption(fallback ? off : off.hideHelp());
    }
  }
  return command;
}

/** Those of the options that are the server's. */
export function configFlags(options: Readonly<Record<string, unknown>>): Partial<Record<keyof Config, unknown>> {
  return Object.fromEntries(Object.entries(options).filter(([name]) => name in configSchema.shape));
}

function lowerFirst(text: string): string {
  return `${text.charAt(0).toLowerCase()}${text.slice(1)}`;
}

function notes(name: string, fallback: unknown): string {
  const variable = Object.entries(environmentNames).find(([option]) => option === name)?.[1];
  const shown = Array.isArray(fallback) ? fallback.join(",") : String(fallback ?? "");
  return [`env ${variable}`, ...(shown === "" || typeof fallback === "boolean" ? [] : [`default ${shown}`])].join(", ");
}
