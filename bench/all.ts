// Every benchmark, one after another, each in a process of its own. `--seconds` is each one's.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const names = ["tpcb", "latency", "writers", "history", "snapshot", "idle-tick", "retention", "capture"];
const failed = names.filter((name) => {
  const script = fileURLToPath(new URL(`./${name}.ts`, import.meta.url));
  return spawnSync(process.execPath, [script, ...process.argv.slice(2)], { stdio: "inherit" }).status !== 0;
});
if (failed.length > 0) {
  process.stderr.write(`failed: ${failed.join(", ")}\n`);
  process.exitCode = 1;
}
