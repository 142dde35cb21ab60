import { findRunning, startEmbedded } from "../../../src/embedded/embedded-postgres.ts";

/**
 * A program that stands in for a server: starts the embedded Postgres in the directory of its first argument, says in a
 * line of JSON what came of it, and stops it when its input ends.
 */
const [dataDir = "", port] = process.argv.slice(2);
try {
  const postgres = await startEmbedded({ dataDir, ...(port === undefined ? {} : { port: Number(port) }) });
  const { stop, ...outcome } = postgres;
  console.log(JSON.stringify({ ...outcome, found: await findRunning(dataDir) }));
  for await (const _ of process.stdin);
  await stop();
} catch (error) {
  console.log(JSON.stringify({ error: error instanceof Error ? error.message : String(error) }));
  process.exitCode = 1;
}
