// One server, as a child of a test: prints its port, and ends when its parent is gone.
import { resolveConfig } from "../../src/server/config.ts";
import { runServer } from "../../src/server/run.ts";

process.stdin.resume().on("end", () => process.exit(1));
const given: Readonly<Record<string, unknown>> = JSON.parse(process.argv[2] ?? "{}");
await runServer(resolveConfig({ flags: given }), {
  onStarted: ({ port }) => void process.stdout.write(`${port}\n`),
});
process.exit();
