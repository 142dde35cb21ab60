import { durationMs, timestampDate } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { FeedState, type GetStatusResponse, type Storage } from "../../../gen/millrace/v1/feed_service_pb.js";
import { connectFeed, serverUrl } from "../feed-client.ts";
import { columns, duration, jsonLine, size } from "../layout.ts";
import type { Terminal } from "../terminal.ts";

const answerWithinMs = 10_000;

/** Adds `millrace status`. */
export function addStatus(program: Command, terminal: Terminal): void {
  program
    .command("status")
    .description("show where a running server's feed stands and what is wrong with it")
    .option("--url <url>", "the server (default: $MILLRACE_URL, else http://127.0.0.1:7400)")
    .option("--json", "one JSON object")
    .addHelpText(
      "after",
      `
Examples:
  $ millrace status
  $ millrace status --url http://feed.internal:7400 --json | jq .headVersion`,
    )
    .action(async (options: { readonly url?: string; readonly json?: boolean }) => {
      const url = serverUrl(options.url, terminal);
      const { client, close } = connectFeed(url);
      try {
        const status = await client.getStatus({}, { timeoutMs: answerWithinMs });
        await terminal.print(options.json === true ? jsonLine(statusJson(url, status)) : statusText(url, status));
      } finally {
        close();
      }
    });
}

function statusJson(url: string, status: GetStatusResponse): unknown {
  return {
    url,
    state: FeedState[status.state],
    epoch: status.epoch,
    headVersion: status.headVersion,
    oldestVersion: status.oldestVersion,
    settledAgeMs: status.settledAge === undefined ? null : durationMs(status.settledAge),
    settledAt: status.settledAt === undefined ? null : timestampDate(status.settledAt).toISOString(),
    streams: status.streams,
    logBytes: status.logBytes,
    logEvents: status.logEvents,
    logOldestVersion: status.logOldestVersion,
    storage: status.storage === undefined ? null : storageJson(status.storage),
    problems: status.problems.map(({ code, message, action }) => ({ code, message, action })),
    serverVersion: status.serverVersion,
  };
}

function statusText(url: string, status: GetStatusResponse): string {
  const rows = [
    ["server", `${url} (Millrace ${status.serverVersion})`],
    ["state", FeedState[status.state] ?? "unknown"],
    ["epoch", status.epoch],
    ["versions", versions(status)],
    ["asked last", status.settledAge === undefined ? "never" : `${duration(durationMs(status.settledAge))} ago`],
    ["last commit", status.settledAt === undefined ? "none yet" : timestampDate(status.settledAt).toISOString()],
    ["streams", String(status.streams)],
    ["log", `${status.logEvents} events, ${size(Number(status.logBytes))}`],
    ...storageRows(status),
  ];
  const problems = status.problems.map(({ code, message, action }) => `\n${code}: ${message}\n  ${action}\n`);
  return columns(rows) + problems.join("");
}

function storageJson({ bytes, oldestSettledAt, keepAge, keepBytes, holds, subscriptions }: Storage): unknown {
  return {
    bytes,
    oldestSettledAt: oldestSettledAt === undefined ? null : timestampDate(oldestSettledAt).toISOString(),
    keepAgeMs: keepAge === undefined ? null : durationMs(keepAge),
    keepBytes: keepBytes === 0n ? null : keepBytes,
    holds: holds.map(({ kind, name, version, expiresAt, overridden }) => ({
      kind,
      name,
      version,
      expiresAt: expiresAt === undefined ? null : timestampDate(expiresAt).toISOString(),
      overridden,
    })),
    subscriptions,
  };
}

function storageRows({ storage, oldestVersion, headVersion }: GetStatusResponse): readonly (readonly string[])[] {
  if (storage === undefined) return [];
  const { bytes, oldestSettledAt, keepAge, keepBytes, holds, subscriptions } = storage;
  const limits = [
    ...(keepAge === undefined ? [] : [duration(durationMs(keepAge))]),
    ...(keepBytes === 0n ? [] : [size(Number(keepBytes))]),
  ];
  return [
    ["outbox", `${size(Number(bytes))}, kept ${limits.length === 0 ? "for ever" : limits.join(" or ")}`],
    // It is looked up every ten seconds or so: the first events of a feed are there before their time is known.
    ...(oldestSettledAt === undefined && oldestVersion <= headVersion
      ? []
      : [["oldest", oldestSettledAt === undefined ? "none kept" : timestampDate(oldestSettledAt).toISOString()]]),
    ...holds.map(({ kind, name, version, expiresAt, overridden }) => [
      "held back",
      `by ${kind} ${name}, after version ${version}${
        expiresAt === undefined ? "" : `, until ${timestampDate(expiresAt).toISOString()}`
      }${overridden ? "; past the cap: some of it is gone" : ""}`,
    ]),
    ...(subscriptions === 0n ? [] : [["subscriptions", counted(subscriptions, holds)]]),
  ];
}

/** Lists of thousands would hide what stands beside them. */
function counted(subscriptions: bigint, holds: Storage["holds"]): string {
  const listed = holds.filter(({ kind }) => kind === "subscription").length;
  return listed < subscriptions ? `${subscriptions}, of which those furthest behind are listed` : String(subscriptions);
}

function versions({ oldestVersion, headVersion }: GetStatusResponse): string {
  return oldestVersion > headVersion ? `none kept (head ${headVersion})` : `${oldestVersion} to ${headVersion}`;
}
