import { create } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { type Command, Option } from "commander";
import { ErrorDetailSchema } from "../../../gen/millrace/v1/error_pb.js";
import { type Event, Operation, PayloadForm } from "../../../gen/millrace/v1/event_pb.js";
import {
  type EventBatch,
  type Gap,
  GapReason,
  type SnapshotStarted,
  type SubscribeResponse,
} from "../../../gen/millrace/v1/feed_service_pb.js";
import { SelectorSchema } from "../../../gen/millrace/v1/selector_pb.js";
import { parseTopicPattern } from "../../core/selector/topic.ts";
import { exitCode } from "../exit-code.ts";
import { failureFrom, usageFailure } from "../failure.ts";
import { serverUrl } from "../feed-client.ts";
import { type DeliveryOptions, deliveryFromOptions, parsePolicy, policyNames } from "../tail/delivery-options.ts";
import { EventCursors } from "../tail/event-cursors.ts";
import { eventLine, frameLine } from "../tail/event-line.ts";
import { prettyEvent } from "../tail/event-pretty.ts";
import { follow } from "../tail/follow.ts";
import { parseStartPosition } from "../tail/start-position.ts";
import { interruptedCode, OutputClosed, type Terminal } from "../terminal.ts";
import { collect, commaList, wholeNumber } from "./option-values.ts";

interface TailOptions extends DeliveryOptions {
  readonly url?: string;
  readonly from: string;
  readonly key?: readonly string[];
  readonly operation?: readonly string[];
  readonly filter?: string;
  readonly fields?: readonly string[];
  readonly ndjson?: boolean;
  readonly pretty?: boolean;
  readonly limit?: number;
  readonly payload: boolean;
  readonly checkpoints?: boolean;
}

const operations = ["INSERT", "UPDATE", "DELETE", "TRUNCATE", "MESSAGE"] as const;

/** Adds `millrace tail`. */
export function addTail(program: Command, terminal: Terminal): void {
  program
    .command("tail")
    .description("print events as they are committed, and go on through restarts and network failures")
    .argument("[patterns...]", "topics: orders, orders.*, orders.> (default: all)")
    .option("--from <position>", "oldest, now, snapshot, a cursor, version:N (after it), or time:ISO-8601", "now")
    .option("--key <key>", "only this key; may be repeated", collect)
    .option("--operation <name>", `only these: ${operations.join(", ")}; may be repeated`, collect)
    .option("--filter <cel>", "only what this CEL predicate is true of (docs/filters.md)")
    .option("--fields <columns>", "only these columns, separated by commas", commaList)
    .addOption(new Option("--ndjson", "one JSON object a line (default for pipes)").conflicts("pretty"))
    .addOption(new Option("--json", "the same as --ndjson").implies({ ndjson: true }).conflicts("pretty"))
    .option("--pretty", "for people (default for terminals)")
    .option("--limit <count>", "stop after this many events", wholeNumber("--limit", 1))
    .option("--no-payload", "leave the rows out")
    .option("--policy <policy>", `if this falls behind: ${policyNames}`, parsePolicy)
    .option("--max-lag <events>", "so far behind before the policy acts (default: 10000)", wholeNumber("--max-lag", 1))
    .option("--rate <events>", "at most so many events a second", wholeNumber("--rate", 1))
    .option("--checkpoints", "with --ndjson: also print opened and checkpoint frames")
    .option("--url <url>", "the server (default: $MILLRACE_URL, else http://127.0.0.1:7400)")
    .addHelpText(
      "after",
      `
On Ctrl-C, and after --limit, the last line on stderr says where to go on.
--ndjson and --json print the same, in the form of /v1/events?format=ndjson: each line has the cursor that
resumes exactly after it (rows of a snapshot, the last of each batch), and "complete" says that everything
up to there is whole transactions.

Examples:
  $ millrace tail --from oldest
  $ millrace tail 'orders.*' --operation DELETE --pretty
  $ millrace tail orders.eu --from snapshot --ndjson | jq .after
  $ millrace tail 'orders.*' --filter 'row.total > 100' --fields id,status,total
  $ millrace tail --from version:41 --limit 10`,
    )
    .action((patterns: readonly string[], options: TailOptions) => tail(patterns, options, terminal));
}

async function tail(patterns: readonly string[], options: TailOptions, terminal: Terminal): Promise<void> {
  const delivery = deliveryFromOptions(options);
  const printer = new Printer(options, terminal);
  const frames = follow({
    url: serverUrl(options.url, terminal),
    start: parseStartPosition(options.from),
    request: {
      selectors: [
        create(SelectorSchema, {
          topics: patterns.map(checkedPattern),
          keys: [...(options.key ?? [])],
          operations: (options.operation ?? []).map(operation),
          filter: options.filter ?? "",
          fields: [...(options.fields ?? [])],
        }),
      ],
      payloadForm: options.payload ? PayloadForm.JSON : PayloadForm.NONE,
      ...(delivery === undefined ? {} : { delivery }),
    },
    signal: terminal.interrupted,
    note: (sentence) => terminal.note(`millrace: ${sentence}`),
  });
  let read = true;
  try {
    for await (const frame of frames) {
      await printer.print(frame);
      if (printer.done) break;
    }
  } catch (error) {
    read = !(error instanceof OutputClosed);
    printer.refused(error);
    const interrupted = interruptedCode(terminal);
    if (interrupted === undefined) throw error;
    process.exitCode = interrupted;
  } finally {
    // Without a reader nobody knows how much of it was read.
    if (read && printer.position !== undefined) terminal.note(`millrace: go on with --from ${printer.position}`);
  }
}

function checkedPattern(text: string): string {
  const parsed = parseTopicPattern(text);
  if ("pattern" in parsed) return text;
  throw usageFailure(`the topic pattern \`${text}\` ${parsed.problem}.`, "Write orders, orders.* or orders.>.");
}

function operation(text: string): Operation {
  const name = operations.find((known) => known === text.toUpperCase());
  if (name !== undefined) return Operation[name];
  throw usageFailure(`\`${text}\` is no operation.`, `Give one of ${operations.join(", ")}.`);
}

/** Prints frames, counts down to the limit, and knows where whoever comes next has to go on. */
class Printer {
  /** As `--from` takes it. */
  position: string | undefined;
  done = false;
  readonly #options: TailOptions;
  readonly #terminal: Terminal;
  readonly #pretty: boolean;
  readonly #cursors = new EventCursors();
  #left: number;

  constructor(options: TailOptions, terminal: Terminal) {
    this.#options = options;
    this.#terminal = terminal;
    this.#pretty = options.pretty ?? (options.ndjson !== true && terminal.outputIsTty);
    this.#left = options.limit ?? Number.POSITIVE_INFINITY;
  }

  /** A position that the server does not take is none to go on with; where an epoch forked is. */
  refused(error: unknown): void {
    if (!(error instanceof ConnectError) || failureFrom(error).exitCode !== exitCode.positionLost) return;
    const fork = error.findDetails(ErrorDetailSchema)[0]?.forkVersion;
    this.position = fork === undefined ? undefined : `version:${fork}`;
  }

  async print(response: SubscribeResponse): Promise<void> {
    const { frame } = response;
    if (frame.case === "events") {
      await this.#printBatch(frame.value);
    } else {
      await this.#printOther(response);
      if (frame.value !== undefined && "cursor" in frame.value) this.position = frame.value.cursor;
    }
    this.#cursors.pass(response);
  }

  async #printBatch(batch: EventBatch): Promise<void> {
    const cursors = this.#cursors.of(batch);
    const last = batch.events.length - 1;
    const events = batch.events.slice(0, this.#left);
    const lines = events.map((event, at) => this.#line(event, cursors[at], batch.complete && at === last));
    this.#left -= events.length;
    this.done = this.#left === 0;
    await this.#terminal.print(lines.join(""));
    // Where only the batch has a cursor, better some events twice than some never.
    this.position = cursors[events.length - 1] ?? this.position;
  }

  #line(event: Event, cursor: string | undefined, complete: boolean): string {
    if (!this.#pretty) return eventLine(event, cursor, complete);
    const { colour, width } = this.#terminal;
    return prettyEvent(event, { colour, width });
  }

  async #printOther(response: SubscribeResponse): Promise<void> {
    const { frame } = response;
    const always = frame.case === "snapshotStarted" || frame.case === "snapshotComplete" || frame.case === "gap";
    if (this.#pretty) {
      if (frame.case === "snapshotStarted") {
        this.#terminal.note(`millrace: ${snapshotNote(frame.value)}`);
      }
      if (frame.case === "gap") {
        this.#terminal.note(`millrace: ${gapNote(frame.value)}`);
      }
      if (frame.case === "checkpoint" && frame.value.progress !== undefined) {
        const { rows, estimatedRows } = frame.value.progress;
        const about = estimatedRows === undefined ? "" : ` of about ${estimatedRows}`;
        this.#terminal.note(`millrace: ${rows}${about} rows of the snapshot so far`);
      }
      if (frame.case === "snapshotComplete") {
        this.#terminal.note(`millrace: snapshot complete, ${frame.value.rows} rows; changes follow`);
      }
    } else if (always || this.#options.checkpoints === true) {
      // Always those of a snapshot: only they tell whether it goes on or its rows come again after it was cut. And what is
      // missing is said where it is missing.
      await this.#terminal.print(frameLine(response) ?? "");
    }
  }
}

function gapNote({ firstVersion, lastVersion, dropped, reason }: Gap): string {
  const policy = GapReason[reason].toLowerCase().replace("_", "-");
  return `behind: ${dropped ?? "some"} events left out of versions ${firstVersion} to ${lastVersion} (${policy})`;
}

function snapshotNote({ topics, version, restart, resumed }: SnapshotStarted): string {
  const again = restart ? ", again from its first row" : resumed ? ", going on where it was cut" : "";
  return `snapshot of ${topics.join(", ")} at ${version}${again}`;
}
