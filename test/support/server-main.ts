// `millrace start`, as a child of a test: prints where it runs, and ends when its parent is gone.
import { flagName } from "../../src/server/config.ts";

process.stdin.resume().on("end", () => process.exit(1));
const given: Readonly<Record<string, unknown>> = JSON.parse(process.argv[2] ?? "{}");
const flags = Object.entries(given).flatMap(([option, value]) => {
  if (typeof value !== "boolean") return [flagName(option), String(value)];
  return [value ? flagName(option) : flagName(option).replace("--", "--no-")];
});
process.argv = [process.execPath, "millrace", "start", "--json", ...flags];
await import("../../src/cli/main.ts");
process.exit();
