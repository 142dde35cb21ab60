import { availableParallelism } from "node:os";
import { z } from "zod";
import { FeedError } from "../core/errors.ts";
import { isLoopback } from "./loopback.ts";

const MIB = 1_048_576;
const factors: Readonly<Record<string, number>> = { "": 1, k: 1024, m: MIB, g: 1024 * MIB };

const count = (min: number, max: number) => {
  const error = `must be a whole number between ${min} and ${max}`;
  return z.coerce.number({ error }).int({ error }).min(min, { error }).max(max, { error });
};
const flag = z.union([z.boolean(), z.stringbool()], { error: "must be true or false" });
const postgresUrl = z
  .string()
  .refine((text) => URL.canParse(text) && /^postgres(ql)?:$/.test(new URL(text).protocol), "must be postgres://…");
/** `67108864`, `64MiB`, `64m`. */
const bytes = (min: number, max = Number.MAX_SAFE_INTEGER) =>
  z
    .union([z.number(), z.string()])
    .transform((value, context) => {
      const match = /^(\d+)\s*([kmg]?)(?:i?b)?$/i.exec(String(value).trim());
      if (match === null) {
        context.addIssue("must be a number of bytes, such as 67108864 or 64MiB");
        return z.NEVER;
      }
      return Number(match[1]) * (factors[(match[2] ?? "").toLowerCase()] ?? 1);
    })
    .pipe(
      z
        .number()
        .min(min, { error: `must be at least ${min} bytes` })
        .max(max, { error: `must be at most ${max} bytes` }),
    );
const list = z.union([
  z.array(z.string()),
  z.string().transform((text) =>
    text
      .split(",")
      .map((part) => part.trim())
      .filter((part) => part !== ""),
  ),
]);
const origin = z
  .string()
  .refine(
    (text) => text === "*" || (URL.canParse(text) && new URL(text).origin === text),
    "must be origins such as https://app.example.com, or *",
  );

const levels = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;

/** Every option of the server, wherever it is given. A description says meaning, unit and why the default is what it is. */
export const configSchema = z
  .strictObject({
    databaseUrl: postgresUrl.describe("Postgres to follow"),
    directUrl: z
      .union([z.literal("none"), postgresUrl])
      .optional()
      .describe(
        "Connection for LISTEN past a transaction-mode pooler. Default: DATABASE_URL. `none`: there is no such way, poll instead",
      ),
    host: z.string().min(1).default("127.0.0.1").describe("Address to listen on; any but loopback needs --insecure"),
    port: count(0, 65_535).default(7400).describe("Port to listen on; 0 takes any free one"),
    insecure: flag
      .default(false)
      .describe("Listen on other addresses than loopback, open to everybody who reaches them"),
    advertiseUrl: z
      .string()
      .refine(
        (text) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol),
        "must be the URL of this server, such as http://10.0.0.7:7400",
      )
      .optional()
      .describe(
        "URL at which other replicas reach this one, to pass on members of groups that it holds. Default: the address it listens on, or the machine's name",
      ),
    tlsCert: z.string().min(1).optional().describe("File with the certificate and its chain, PEM"),
    tlsKey: z.string().min(1).optional().describe("File with the certificate's private key, PEM"),
    corsOrigins: list
      .pipe(z.array(origin))
      .default([])
      .describe("Web origins that may call, besides those of this machine; comma-separated, * for all"),
    maxStreams: count(1, 1_000_000).default(10_000).describe("Open streams; more are refused with LIMIT_EXCEEDED"),
    maxStreamsPerPeer: count(0, 1_000_000)
      .default(0)
      .describe(
        "Open streams of one address; 0 for no limit but --max-streams, as behind a proxy all have one address",
      ),
    maxSubscriptions: count(1, 10_000_000)
      .default(100_000)
      .describe("Durable subscriptions in the database, about; more are refused with LIMIT_EXCEEDED"),
    maxSelectors: count(1, 64).default(64).describe("Selectors of one stream"),
    maxFilterBytes: bytes(1, 65_536).default(4096).describe("Largest filter, in bytes of its text"),
    maxFilterCost: count(1, 1_000_000).default(1000).describe("Dearest filter, in nodes that one evaluation may visit"),
    maxLanes: count(1, 1_000_000)
      .default(10_000)
      .describe("Different ways of delivery at once; streams with the same selectors, form and batches share one"),
    laneBytes: bytes(65_536)
      .default(256 * MIB)
      .describe("Memory for frames that streams of the same way of delivery share"),
    streamBytes: bytes(4096)
      .default(MIB)
      .describe("Bytes of one stream on their way to its client: beyond it the stream is slow"),
    connectionBytes: bytes(65_536)
      .default(16 * MIB)
      .describe("The same of all streams of one connection: beyond it each goes on with little"),
    maxStreamAgeMs: count(0, 2_147_483_647)
      .default(3_600_000)
      .describe(
        "A stream ends after this, less up to a tenth, for its client to come again, in milliseconds; 0 for never. Default: 1 h, where the strictest proxies cut",
      ),
    logBytes: bytes(MIB)
      .default(256 * MIB)
      .describe("Memory for recent events; streams that fall further behind read the table"),
    warmBytes: bytes(0)
      .default(64 * MIB)
      .describe("How much of it is read from the table at start: streams that resume then need not read it"),
    historyCacheBytes: bytes(0)
      .default(64 * MIB)
      .describe("Memory for pages of the table that several streams read"),
    checkpointIntervalMs: count(100, 300_000)
      .default(15_000)
      .describe("Longest silence of a stream that asks for none, in milliseconds"),
    maxRequestBytes: bytes(4096)
      .default(16 * MIB)
      .describe("Largest request"),
    compress: flag.default(false).describe("Compress messages for clients that take gzip: for slow links only"),
    delivery: z
      .enum(["mux", "hand-off", "stock"], { error: "must be mux, hand-off or stock" })
      .default("mux")
      .describe(
        "How frames reach clients: written beside the HTTP/2 session, by Node's responses, or through all of Connect. Clients see no difference but speed",
      ),
    historyConnections: count(1, 100)
      .default(Math.max(2, Math.min(8, availableParallelism())))
      .describe("Connections for streams that read the table"),
    serviceConnections: count(1, 100).default(4).describe("Connections for Publish and for waits on transactions"),
    stuckAfterMs: count(100, 3_600_000)
      .default(10_000)
      .describe(
        "A connection without a sign of life for this long, beyond what its statement may take, is made anew, in milliseconds. Default: longer than any pause of a busy machine or network",
      ),
    newEpoch: z
      .enum(["auto", "refuse"], { error: "must be auto or refuse" })
      .default("auto")
      .describe("When the database was restored, failed over or copied: begin a new epoch, or refuse to start"),
    sourcesApi: z
      .enum(["auto", "on", "off"], { error: "must be auto, on or off" })
      .default("auto")
      .describe("Whether callers may list and change the watched tables; auto: when it listens on loopback only"),
    migrate: flag.default(true).describe("Bring the schema up to date at start"),
    drainMs: count(0, 600_000).default(10_000).describe("Time for streams to end after SIGTERM, in milliseconds"),
    logLevel: z
      .enum(levels, { error: `must be one of ${levels.join(", ")}` })
      .default("info")
      .describe("Least severity to log"),
  })
  .check((context) => {
    const { host, insecure, tlsCert, tlsKey } = context.value;
    const problem = (path: keyof Config, message: string) =>
      context.issues.push({ code: "custom", path: [path], message, input: context.value[path] });
    if (!insecure && !isLoopback(host)) {
      problem(
        "host",
        "is not loopback, and everybody who reaches it could read the feed: add --insecure if that is meant",
      );
    }
    if (tlsCert !== undefined && tlsKey === undefined) {
      problem("tlsKey", "is missing beside --tls-cert");
    }
    if (tlsKey !== undefined && tlsCert === undefined) {
      problem("tlsCert", "is missing beside --tls-key");
    }
  });

/** All options, resolved. */
export type Config = z.output<typeof configSchema>;
/** Options as flags, files and tests give them: what is left out takes its default. */
export type ConfigInput = z.input<typeof configSchema>;

/** The environment variable of each option. Flags are the option's name in kebab case. */
export const environmentNames: Readonly<Record<keyof Config, string>> = {
  databaseUrl: "DATABASE_URL",
  directUrl: "MILLRACE_DIRECT_URL",
  host: "MILLRACE_HOST",
  port: "PORT",
  insecure: "MILLRACE_INSECURE",
  advertiseUrl: "MILLRACE_ADVERTISE_URL",
  tlsCert: "MILLRACE_TLS_CERT",
  tlsKey: "MILLRACE_TLS_KEY",
  corsOrigins: "MILLRACE_CORS_ORIGINS",
  maxStreams: "MILLRACE_MAX_STREAMS",
  maxStreamsPerPeer: "MILLRACE_MAX_STREAMS_PER_PEER",
  maxSubscriptions: "MILLRACE_MAX_SUBSCRIPTIONS",
  maxSelectors: "MILLRACE_MAX_SELECTORS",
  maxFilterBytes: "MILLRACE_MAX_FILTER_BYTES",
  maxFilterCost: "MILLRACE_MAX_FILTER_COST",
  maxLanes: "MILLRACE_MAX_LANES",
  laneBytes: "MILLRACE_LANE_BYTES",
  streamBytes: "MILLRACE_STREAM_BYTES",
  connectionBytes: "MILLRACE_CONNECTION_BYTES",
  maxStreamAgeMs: "MILLRACE_MAX_STREAM_AGE_MS",
  logBytes: "MILLRACE_LOG_BYTES",
  warmBytes: "MILLRACE_WARM_BYTES",
  historyCacheBytes: "MILLRACE_HISTORY_CACHE_BYTES",
  checkpointIntervalMs: "MILLRACE_CHECKPOINT_INTERVAL_MS",
  maxRequestBytes: "MILLRACE_MAX_REQUEST_BYTES",
  compress: "MILLRACE_COMPRESS",
  delivery: "MILLRACE_DELIVERY",
  historyConnections: "MILLRACE_HISTORY_CONNECTIONS",
  serviceConnections: "MILLRACE_SERVICE_CONNECTIONS",
  stuckAfterMs: "MILLRACE_STUCK_AFTER_MS",
  newEpoch: "MILLRACE_NEW_EPOCH",
  sourcesApi: "MILLRACE_SOURCES_API",
  migrate: "MILLRACE_MIGRATE",
  drainMs: "MILLRACE_DRAIN_MS",
  logLevel: "MILLRACE_LOG_LEVEL",
};

/** Where options come from. Earlier ones win. */
export interface ConfigSources {
  readonly flags?: Readonly<Record<string, unknown>>;
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Of a configuration file. */
  readonly file?: Readonly<Record<string, unknown>>;
}

/**
 * Flags over environment over file over defaults. An empty variable counts as unset.
 *
 * @throws FeedError INVALID_REQUEST with a sentence that names every wrong option
 */
export function resolveConfig(sources: ConfigSources): Config {
  const input: Record<string, unknown> = { ...defined(sources.file), ...fromEnvironment(sources.env ?? {}) };
  const result = configSchema.safeParse({ ...input, ...defined(sources.flags) });
  if (result.success) {
    return result.data;
  }
  const problems = result.error.issues.flatMap(issueTexts);
  throw new FeedError(
    "INVALID_REQUEST",
    problems.map(({ field, message }) => `${field} ${message}`).join("; "),
    "Correct the option and start again; --help lists them all.",
    { violations: problems },
  );
}

/** `--max-streams` of `maxStreams`. */
export function flagName(option: string): string {
  return `--${option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

function defined(values: Readonly<Record<string, unknown>> | undefined): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values ?? {}).filter(([, value]) => value !== undefined));
}

function fromEnvironment(env: Readonly<Record<string, string | undefined>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(environmentNames).flatMap(([option, name]) => {
      const value = env[name];
      return value === undefined || value === "" ? [] : [[option, value]];
    }),
  );
}

function issueTexts(issue: z.core.$ZodIssue): { readonly field: string; readonly message: string }[] {
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({ field: flagName(key), message: "is no option" }));
  }
  const option = String(issue.path[0] ?? "");
  const name = Object.entries(environmentNames).find(([key]) => key === option)?.[1];
  return [
    { field: name === undefined ? flagName(option) : `${flagName(option)} (${name})`, message: wording(issue, option) },
  ];
}

function wording(issue: z.core.$ZodIssue, option: string): string {
  if (issue.code === "invalid_type" && option === "databaseUrl") {
    return "is missing: it names the Postgres to follow, postgres://user:password@host:5432/database";
  }
  // Ours read on from the option's name; the library's own stand for themselves.
  const ours = issue.code === "custom" || issue.message.startsWith("must ");
  return ours ? issue.message : `is wrong: ${issue.message.charAt(0).toLowerCase()}${issue.message.slice(1)}`;
}
