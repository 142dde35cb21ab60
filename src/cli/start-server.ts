import type { Demo } from "../demo/demo.ts";
import { startDemo } from "../demo/demo.ts";
import { type EmbeddedPostgres, startEmbedded } from "../embedded/embedded-postgres.ts";
import { type Config, resolveConfig } from "../server/config.ts";
import { findConfigFile } from "../server/config-file/find-config.ts";
import { type ConfigFile, readConfigFile } from "../server/config-file/read-config.ts";
import { type RunningServer, startServer } from "../server/server.ts";
import { serverVersion } from "../server/version.ts";
import { configFlags } from "./commands/start-options.ts";
import { type DatabaseOptions, dataDirectory, givenDatabase, withoutPassword } from "./database-address.ts";
import { defaultServerUrl } from "./feed-client.ts";
import { columns, jsonLine } from "./layout.ts";
import type { Terminal } from "./terminal.ts";

/** Of `millrace start`: its own, and those of the server by their names in its schema. */
export interface StartOptions extends DatabaseOptions, Readonly<Record<string, unknown>> {
  readonly config?: string;
  readonly demo?: boolean;
  readonly json?: boolean;
}

/** Runs until it is interrupted. Whatever was started is stopped on every path, the embedded Postgres last. */
export async function start(options: StartOptions, terminal: Terminal): Promise<void> {
  // Wrong options are told before anything is started.
  const configFile = await openConfigFile(options, terminal);
  const given = givenDatabase(options, terminal) ?? configFile?.options.databaseUrl;
  const config = resolve(options, terminal, given ?? "postgres://embedded", configFile);
  await using running = new AsyncDisposableStack();
  const embedded = given === undefined ? await openEmbedded(options, terminal) : undefined;
  if (embedded !== undefined) running.defer(() => embedded.stop());
  const databaseUrl = embedded?.url ?? config.databaseUrl;
  const server = await unlessInterrupted(terminal, () =>
    startServer(
      { ...config, databaseUrl },
      {
        signal: terminal.interrupted,
        configFile,
        // People get it in a sentence, a log its line: not both.
        ...(terminal.errorIsTty ? { onWait: tellOnce(terminal) } : {}),
      },
    ),
  );
  if (server === undefined) return;
  running.defer(() => server.stop());
  const demo = await openDemo(options, terminal, databaseUrl, embedded);
  if (demo !== undefined) running.defer(() => demo.stop());
  await terminal.print(
    options.json === true
      ? startedJson(server, databaseUrl, embedded, demo)
      : banner({ server, config, databaseUrl, embedded, demo, terminal, options }),
  );
  await aborted(terminal.interrupted);
  if (terminal.errorIsTty) terminal.note("millrace: stopping");
}

async function openConfigFile(options: StartOptions, terminal: Terminal): Promise<ConfigFile | undefined> {
  const path = await findConfigFile(terminal.directory, options.config ?? terminal.environment.MILLRACE_CONFIG);
  return path === undefined ? undefined : await readConfigFile(path);
}

function resolve(
  options: StartOptions,
  terminal: Terminal,
  databaseUrl: unknown,
  configFile: ConfigFile | undefined,
): Config {
  const quiet = terminal.errorIsTty && (terminal.environment.MILLRACE_LOG_LEVEL ?? "") === "";
  return resolveConfig({
    flags: { ...configFlags(options), databaseUrl },
    env: terminal.environment,
    file: { ...(quiet ? { logLevel: "warn" } : {}), ...configFile?.options },
  });
}

/** Says why Postgres is waited for; the same reason only once, however often it is tried. */
function tellOnce(terminal: Terminal): (failure: string, action: string) => void {
  let told: string | undefined;
  return (failure, action) => {
    if (failure === told) return;
    told = failure;
    terminal.note(`millrace: waiting for Postgres: ${failure}\n  ${action}`);
  };
}

function openEmbedded(options: StartOptions, terminal: Terminal): Promise<EmbeddedPostgres> {
  return startEmbedded({
    dataDir: dataDirectory(options.dataDir, terminal),
    log: (message) => terminal.note(`millrace: ${message}`),
  });
}

function openDemo(
  options: StartOptions,
  terminal: Terminal,
  databaseUrl: string,
  embedded: EmbeddedPostgres | undefined,
): Promise<Demo | undefined> {
  if (!(options.demo ?? embedded !== undefined)) return Promise.resolve(undefined);
  return startDemo({
    databaseUrl,
    schema: embedded === undefined ? "millrace_demo" : "public",
    onTrouble: (error) => terminal.note(`millrace: the demo waits: ${error.message}`),
  });
}

/** `undefined` when it was asked to stop before it was done: that is no failure. */
async function unlessInterrupted<T>(terminal: Terminal, work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (terminal.interrupted.aborted) return undefined;
    throw error;
  }
}

function startedJson(
  server: RunningServer,
  databaseUrl: string,
  embedded: EmbeddedPostgres | undefined,
  demo: Demo | undefined,
): string {
  return jsonLine({
    url: server.url,
    port: server.port,
    pid: process.pid,
    // The embedded one's password is in its data directory anyway; another's is not ours to show.
    databaseUrl: embedded === undefined ? withoutPassword(databaseUrl) : databaseUrl,
    embedded: embedded === undefined ? null : { pid: embedded.pid, port: embedded.port, adopted: embedded.adopted },
    demo: demo !== undefined,
    serverVersion,
  });
}

interface Started {
  readonly server: RunningServer;
  readonly config: Config;
  readonly databaseUrl: string;
  readonly embedded: EmbeddedPostgres | undefined;
  readonly demo: Demo | undefined;
  readonly terminal: Terminal;
  readonly options: StartOptions;
}

function banner(started: Started): string {
  const { server, config, databaseUrl, embedded, demo, terminal, options } = started;
  const where =
    embedded === undefined ? withoutPassword(databaseUrl) : `in ${dataDirectory(options.dataDir, terminal)}`;
  const rows = [
    ["  server", `${server.url}  (gRPC, gRPC-Web, Connect, SSE)`],
    ["  database", embedded === undefined ? where : `embedded Postgres ${where}`],
    [
      "  demo",
      demo === undefined ? "off" : "a shop that writes to customers and orders, about 8 transactions a second",
    ],
  ];
  const plaintext = config.tlsCert === undefined ? "--http2-prior-knowledge " : "";
  const url = server.url === defaultServerUrl ? "" : ` --url ${server.url}`;
  const follow = [
    `npx buf curl ${plaintext}--reflect ${server.url}/millrace.v1.FeedService/Subscribe -d '{"oldest":{}}'`,
    `npx millrace tail --from oldest${url}`,
    `curl -N '${server.url}/v1/events?from=oldest'`,
  ];
  const [what, lines] =
    embedded === undefined
      ? [
          "with this DATABASE_URL, make the changes of a table events, see every one so far, the same for people, and for curl",
          ["npx millrace watch TABLE", ...follow],
        ]
      : ["every event so far, the same for people, and for curl; and Postgres itself", [...follow, databaseUrl]];
  const text = `Millrace ${serverVersion} runs. Ctrl-C stops it.\n\n${columns(rows)}\nNext, in another terminal: `;
  return `${text}${what}:\n\n${lines.map((line) => `  ${line}\n`).join("")}\n`;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
