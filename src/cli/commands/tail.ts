import { ConnectError } from "@connectrpc/connect";
import { type Command, Option } from "commander";
import { ErrorDetailSchema } from "../../../gen/millrace/v1/error_pb.js";
import { type Event, PayloadForm } from "../../../gen/millrace/v1/event_pb.js";
import {
  type EventBatch,
  type Gap,
  GapReason,
  type SnapshotStarted,
  type SubscribeResponse,
} from "../../../gen/millrace/v1/feed_service_pb.js";
import { exitCode } from "../exit-code.ts";
import { failureFrom, usageFailure } from "../failure.ts";
import { serverUrl } from "../feed-client.ts";
import { Acknowledger } from "../tail/acknowledger.ts";
import { type DeliveryOptions, deliveryFromOptions, parsePolicy, policyNames } from "../tail/delivery-options.ts";
import { EventCursors } from "../tail/event-cursors.ts";
import { eventLine, frameLine } from "../tail/event-line.ts";
import { prettyEvent } from "../tail/event-pretty.ts";
import { follow } from "../tail/follow.ts";
import { type SelectionOptions, selectorFromOptions, withSelectionOptions } from "../tail/selection-options.ts";
import { parseStartPosition } from "../tail/start-position.ts";
import { interruptedCode, OutputClosed, type Terminal } from "../terminal.ts";
import { mostCount, wholeNumber } from "./option-values.ts";

interface TailOptions extends DeliveryOptions, SelectionOptions {
  readonly url?: string;
  readonly from: string;
  readonly subscription?: string;
  readonly member?: string;
  readonly ack?: boolean;
  readonly ndjson?: boolean;
  readonly pretty?: boolean;
  readonly limit?: number;
  readonly payload: boolean;
  readonly checkpoints?: boolean;
}

/** Adds `millrace tail`. */
export function addTail(program: Command, terminal: Terminal): void {
  const command = program
    .command("tail")
    .description("print events as they are committed, and go on through restarts and network failures")
    .argument("[patterns...]", "topics: orders, orders.*, orders.> (default: all)")
    .option("--from <position>", "oldest, now, snapshot, a cursor, version:N (after it), or time:ISO-8601", "now");
  withSelectionOptions(command)
    .option("--subscription <name>", "what this subscription has not acknowledged, and what follows")
    .option("--member <name>", "with --subscription of a group: whose stream this is")
    .option("--ack", "with --subscription: acknowledge what was printed")
    .addOption(new Option("--ndjson", "one JSON object a line (default for pipes)").conflicts("pretty"))
    .addOption(new Option("--json", "the same as --ndjson").implies({ ndjson: true }).conflicts("pretty"))
    .option("--pretty", "for people (default for terminals)")
    .option("--limit <count>", "stop after this many events", wholeNumber("--limit", 1))
    .option("--no-payload", "leave the rows out")
    .option("--policy <policy>", `if this falls behind: ${policyNames}`, parsePolicy)
    .option("--max-lag <events>", "so far behind before the policy acts (default: 10000)", wholeNumber("--max-lag", 1))
    .option("--rate <events>", "at most so many events a second", wholeNumber("--rate", 1, mostCount))
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
  $ millrace tail --from version:41 --limit 10
  $ millrace tail --subscription billing --ack --ndjson >> billing.ndjson`,
    )
    .action((patterns: readonly string[], options: TailOptions) => tail(patterns, options, terminal));
}

async function tail(patterns: readonly string[], options: TailOptions, terminal: Terminal): Promise<void> {
  const printer = new Printer(options, terminal);
  const url = serverUrl(options.url, terminal);
  const asked = options.subscription === undefined ? byPosition(patterns, options) : bySubscription(patterns, options);
  const acknowledger = options.ack === true ? new Acknowledger(url) : undefined;
  const frames = follow({
    url,
    ...asked,
    signal: acknowledger === undefined ? terminal.interrupted : onceAcknowledged(terminal.interrupted, acknowledger),
    note: (sentence) => terminal.note(`millrace: ${sentence}`),
  });
  let read = true;
  try {
    for await (const response of frames) {
      const { frame } = response;
      if (frame.case === "opened") acknowledger?.opened(frame.value.lease);
      await printer.print(response);
      if (frame.case !== "opened" && printer.position !== undefined) acknowledger?.printed(printer.position);
      if (printer.done) {
        await acknowledger?.flush();
        break;
      }
    }
  } catch (error) {
    read = !(error instanceof OutputClosed);
    printer.refused(error);
    const interrupted = interruptedCode(terminal);
    if (interrupted === undefined) throw error;
    process.exitCode = interrupted;
  } finally {
    await acknowledger?.end();
    // Without a reader nobody knows how much of it was read.
    if (read) noteTheEnd(printer.position, acknowledger, options, terminal);
  }
}

/** How long Ctrl-C waits for the server to hear what was printed. */
const LAST_WORD_MS = 2_000;

/** Aborts after the other has, once what was printed is said: what a group's member says after its stream is nobody's. */
function onceAcknowledged(interrupted: AbortSignal, acknowledger: Acknowledger): AbortSignal {
  const ending = new AbortController();
  const end = async (): Promise<void> => {
    const late = setTimeout(() => ending.abort(interrupted.reason), LAST_WORD_MS);
    // What fails now is said once more at the end, and told there.
    await acknowledger.flush().catch(() => undefined);
    clearTimeout(late);
    ending.abort(interrupted.reason);
  };
  if (interrupted.aborted) void end();
  else interrupted.addEventListener("abort", () => void end(), { once: true });
  return ending.signal;
}

type Asked = Pick<Parameters<typeof follow>[0], "start" | "request">;

function byPosition(patterns: readonly string[], options: TailOptions): Asked {
  if (options.ack === true || options.member !== undefined) {
    throw usageFailure("--ack and --member mean nothing without --subscription.", "Name the subscription.");
  }
  const delivery = deliveryFromOptions(options);
  return {
    start: parseStartPosition(options.from),
    request: {
      selectors: [selectorFromOptions(patterns, options)],
      payloadForm: options.payload ? PayloadForm.JSON : PayloadForm.NONE,
      member: "",
      ...(delivery === undefined ? {} : { delivery }),
    },
  };
}

function bySubscription(patterns: readonly string[], options: TailOptions): Asked {
  const { key, operation, filter, fields, policy, maxLag, rate, payload, from } = options;
  const said = [key, operation, filter, fields, policy, maxLag, rate].some((value) => value !== undefined);
  if (patterns.length > 0 || said || !payload || from !== "now") {
    throw usageFailure(
      "what a subscription delivers, from where and how, was said when it was created.",
      "With --subscription leave topics, --from, filters and delivery out; `millrace subscription seek` moves it.",
    );
  }
  return {
    start: { case: "subscriptionId", value: options.subscription ?? "" },
    request: { selectors: [], payloadForm: PayloadForm.UNSPECIFIED, member: options.member ?? "" },
  };
}

function noteTheEnd(
  position: string | undefined,
  acknowledger: Acknowledger | undefined,
  { subscription }: TailOptions,
  terminal: Terminal,
): void {
  if (subscription === undefined) {
    if (position !== undefined) terminal.note(`millrace: go on with --from ${position}`);
  } else if (acknowledger?.version !== undefined) {
    terminal.note(`millrace: ${subscription} is acknowledged up to version ${acknowledger.version}`);
  }
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
