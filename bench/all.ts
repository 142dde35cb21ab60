// Every benchmark, one after another, each in a process of its own; then what is to be reached, in one table. `--seconds` is
// each one's; names choose some of them.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { summarize } from "./report.ts";

const known = [
  "fan-out",
  "sse",
  "many-streams",
  "idle-stream",
  "latency",
  "writers",
  "tpcb",
  "history",
  "snapshot",
  "in-process",
  "filters",
  "isolation",
  "resume-storm",
  "idle-tick",
  "start",
  "poll",
  "subscriptions",
  "streams",
  "retention",
  "capture",
];
const { values, positionals } = parseArgs({ allowPositionals: true, options: { seconds: { type: "string" } } });
const scriptOf = (name: string) => fileURLToPath(new URL(`./${name}.ts`, import.meta.url));
const names = positionals.length === 0 ? known : positionals;
const unknown = names.filter((name) => !existsSync(scriptOf(name)));
const seconds = values.seconds === undefined ? [] : ["--seconds", values.seconds];
const failed = names.filter(
  (name) =>
    !unknown.includes(name) &&
    spawnSync(process.execPath, [scriptOf(name), ...seconds], { stdio: "inherit" }).status !== 0,
);
summarize(names.filter((name) => !unknown.includes(name) && !failed.includes(name)));
if (unknown.length + failed.length > 0) {
  process.stderr.write(`failed: ${[...unknown, ...failed].join(", ")}\n`);
  process.exitCode = 1;
}
