#!/usr/bin/env node
// Runs the command line on a Node that can run TypeScript as it is: this one when it is new enough, else the one that npm
// installed beside us. Plain JavaScript without new syntax, because an old Node has to get through it.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const oldest = 24;
const main = fileURLToPath(new URL("../src/cli/main.ts", import.meta.url));

if (Number.parseInt(process.versions.node, 10) >= oldest) {
  await import("../src/cli/main.ts");
} else {
  const node = pinnedNode();
  if (node === undefined) {
    process.stderr.write(
      `millrace: this is Node ${process.versions.node}, and Millrace needs ${oldest} or later.\n` +
        "  Run `npm ci` in its folder, which installs one beside it, or use a newer Node.\n",
    );
    process.exit(1);
  }
  const child = spawn(node, [main, ...process.argv.slice(2)], { stdio: "inherit" });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    // A terminal sends Ctrl-C to the child as well: it takes two in quick succession for one.
    process.on(signal, () => child.kill(signal));
  }
  child.once("error", (error) => {
    process.stderr.write(`millrace: could not run ${node}: ${error.message}\n`);
    process.exit(1);
  });
  child.once("exit", (code, signal) => process.exit(signal === null ? (code ?? 1) : 128 + constants.signals[signal]));
}

function pinnedNode() {
  try {
    const manifest = createRequire(import.meta.url).resolve("node/package.json");
    const path = join(dirname(manifest), "bin", process.platform === "win32" ? "node.exe" : "node");
    return existsSync(path) ? path : undefined;
  } catch {
    return undefined;
  }
}
