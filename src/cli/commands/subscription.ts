import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { PayloadForm } from "../../../gen/millrace/v1/event_pb.js";
import {
  type CreateSubscriptionRequest,
  DeadLetterPolicy,
  type Group,
  GroupSchema,
  type SeekSubscriptionRequest,
  type Subscription,
} from "../../../gen/millrace/v1/subscription_service_pb.js";
import { usageFailure } from "../failure.ts";
import { jsonLine } from "../layout.ts";
import { type ServerOptions, withServerOptions, withSubscriptions } from "../subscription/subscription-client.ts";
import { subscriptionJson, subscriptionTable, subscriptionText } from "../subscription/subscription-text.ts";
import { type DeliveryOptions, deliveryFromOptions, parsePolicy, policyNames } from "../tail/delivery-options.ts";
import { type SelectionOptions, selectorFromOptions, withSelectionOptions } from "../tail/selection-options.ts";
import { parseStartPosition, type StartPosition } from "../tail/start-position.ts";
import type { Terminal } from "../terminal.ts";
import { mostCount, namedValue, timeSpan, wholeNumber } from "./option-values.ts";
import { addAcknowledge, addDeadLetters, addDiscard, addReplay } from "./subscription-work.ts";

/** Adds `millrace subscription` with its commands. */
export function addSubscription(program: Command, terminal: Terminal): void {
  const command = program
    .command("subscription")
    .alias("subscriptions")
    .description("named, durable positions: create, list, move and end them, and acknowledge")
    .addHelpText(
      "after",
      `
Follow one with \`millrace tail --subscription NAME\`.

Examples:
  $ millrace subscription create billing 'orders.*' --from oldest --expire-after 30d
  $ millrace subscription list --owner billing
  $ millrace subscription seek billing --to time:2026-01-31T08:30:00Z`,
    );
  addCreate(command, terminal);
  addList(command, terminal);
  addGet(command, terminal);
  addSeek(command, terminal);
  addPause(command, terminal);
  addResume(command, terminal);
  addDelete(command, terminal);
  addAcknowledge(command, terminal);
  addDeadLetters(command, terminal);
  addReplay(command, terminal);
  addDiscard(command, terminal);
}

interface CreateOptions extends ServerOptions, SelectionOptions, DeliveryOptions {
  readonly from: string;
  readonly payload: boolean;
  readonly owner?: string;
  readonly label?: Readonly<Record<string, string>>;
  readonly expireAfter?: number;
  readonly group?: boolean;
  readonly maxInFlight?: number;
  readonly ackDeadline?: number;
  readonly maxAttempts?: number;
  readonly maxMembers?: number;
  readonly skipDead?: boolean;
}

function addCreate(parent: Command, terminal: Terminal): void {
  const command = parent
    .command("create")
    .description("create a subscription; again with the same definition, show what is there")
    .argument("<name>", "letters, digits, _, -, ., : and /")
    .argument("[patterns...]", "topics: orders, orders.*, orders.> (default: all)")
    .option("--from <position>", "oldest, now, snapshot, a cursor, version:N (after it), or time:ISO-8601", "now");
  withSelectionOptions(command)
    .option("--no-payload", "leave the rows out")
    .option("--policy <policy>", `if its consumer falls behind: ${policyNames}`, parsePolicy)
    .option("--max-lag <events>", "so far behind before the policy acts (default: 10000)", wholeNumber("--max-lag", 1))
    .option("--rate <events>", "at most so many events a second", wholeNumber("--rate", 1, mostCount))
    .option("--owner <name>", "whose it is, for lists")
    .option("--label <name=value>", "a label, for lists; may be repeated", namedValue)
    .option("--expire-after <time>", "delete it when unused for so long: 12h, 30d", timeSpan("--expire-after"))
    .option("--group", "let several members share it, split by key")
    .option(
      "--max-in-flight <events>",
      "of a member, not acknowledged (1000)",
      wholeNumber("--max-in-flight", 1, mostCount),
    )
    .option("--ack-deadline <time>", "after which an event comes again (30s)", timeSpan("--ack-deadline"))
    .option(
      "--max-attempts <count>",
      "after which it is a dead letter (5)",
      wholeNumber("--max-attempts", 1, mostCount),
    )
    .option("--max-members <count>", "at once (256)", wholeNumber("--max-members", 1, mostCount))
    .option("--skip-dead", "go on with later events of a key that has a dead letter, instead of parking them");
  withServerOptions(command, "print it as a JSON object")
    .addHelpText(
      "after",
      `
Examples:
  $ millrace subscription create billing 'orders.*' --from oldest
  $ millrace subscription create mirror orders --from snapshot --filter 'row.total > 100'
  $ millrace subscription create workers 'jobs.>' --group --max-attempts 3 --label team=blue`,
    )
    .action(async (name: string, patterns: readonly string[], options: CreateOptions) => {
      const request = createRequest(name, patterns, options);
      const { subscription, existed } = await withSubscriptions(options, terminal, (client) =>
        client.createSubscription(request, { signal: terminal.interrupted }),
      );
      if (existed && options.json !== true) terminal.note(`millrace: "${name}" was there already, and is the same`);
      await printOne(subscription, options, terminal);
    });
}

function createRequest(name: string, patterns: readonly string[], options: CreateOptions) {
  const selector = selectorFromOptions(patterns, options);
  const delivery = deliveryFromOptions(options);
  const group = groupFromOptions(options);
  return {
    subscriptionId: name,
    selectors: [selector],
    payloadForm: options.payload ? PayloadForm.UNSPECIFIED : PayloadForm.NONE,
    owner: options.owner ?? "",
    labels: { ...options.label },
    start: startOfSubscription(parseStartPosition(options.from)),
    ...(delivery === undefined ? {} : { delivery }),
    ...(options.expireAfter === undefined ? {} : { expireAfter: durationFromMs(options.expireAfter) }),
    ...(group === undefined ? {} : { group }),
  };
}

function groupFromOptions(options: CreateOptions): Group | undefined {
  const { group, maxInFlight, ackDeadline, maxAttempts, maxMembers, skipDead } = options;
  const given = [maxInFlight, ackDeadline, maxAttempts, maxMembers, skipDead].some((value) => value !== undefined);
  if (group !== true) {
    if (given) throw usageFailure("that means nothing without --group.", "Add --group, or leave it out.");
    return undefined;
  }
  return create(GroupSchema, {
    maxInFlight: maxInFlight ?? 0,
    maxAttempts: maxAttempts ?? 0,
    maxMembers: maxMembers ?? 0,
    deadLetterPolicy: skipDead === true ? DeadLetterPolicy.SKIP : DeadLetterPolicy.UNSPECIFIED,
    ...(ackDeadline === undefined ? {} : { ackDeadline: durationFromMs(ackDeadline) }),
  });
}

function startOfSubscription(start: StartPosition): CreateSubscriptionRequest["start"] {
  if (start.case === "subscriptionId") throw usageFailure("a subscription cannot begin where another one stands.");
  return start;
}

interface ListOptions extends ServerOptions {
  readonly topic?: string;
  readonly owner?: string;
  readonly label?: Readonly<Record<string, string>>;
}

const pageSize = 1000;

function addList(parent: Command, terminal: Terminal): void {
  const command = parent
    .command("list")
    .description("list subscriptions, by name")
    .option("--topic <topic>", "only those that could get events of this topic")
    .option("--owner <name>", "only those of this owner")
    .option("--label <name=value>", "only those with this label; may be repeated", namedValue);
  withServerOptions(command, "print them as a JSON array")
    .addHelpText(
      "after",
      `
Examples:
  $ millrace subscription list --topic orders.eu
  $ millrace subscription list --label team=blue --json | jq '.[] | select(.state == "LOST")'`,
    )
    .action(async (options: ListOptions) => {
      const found: Subscription[] = [];
      const filter = { topic: options.topic ?? "", owner: options.owner ?? "", labels: { ...options.label } };
      const total = await withSubscriptions(options, terminal, async (client) => {
        for (let pageToken = ""; ; ) {
          const request = { ...filter, pageSize, pageToken };
          const page = await client.listSubscriptions(request, { signal: terminal.interrupted });
          found.push(...page.subscriptions);
          pageToken = page.nextPageToken;
          if (pageToken === "") return page.total;
        }
      });
      await terminal.print(
        options.json === true ? jsonLine(found.map(subscriptionJson)) : subscriptionTable(found, total),
      );
    });
}

function addGet(parent: Command, terminal: Terminal): void {
  const command = parent
    .command("get")
    .description("show where a subscription stands")
    .argument("<name>", "of the subscription");
  withServerOptions(command, "print it as a JSON object")
    .addHelpText("after", "\nExamples:\n  $ millrace subscription get billing --json | jq .lagVersions")
    .action(async (subscriptionId: string, options: ServerOptions) => {
      const { subscription } = await withSubscriptions(options, terminal, (client) =>
        client.getSubscription({ subscriptionId }, { signal: terminal.interrupted }),
      );
      await printOne(subscription, options, terminal);
    });
}

interface SeekOptions extends ServerOptions {
  readonly to: string;
}

function addSeek(parent: Command, terminal: Terminal): void {
  const command = parent
    .command("seek")
    .description("move a subscription, back or forth; its streams end, and go on there")
    .argument("<name>", "of the subscription")
    .requiredOption("--to <position>", "oldest, now, a cursor, version:N (after it), or time:ISO-8601");
  withServerOptions(command, "print it as a JSON object")
    .addHelpText(
      "after",
      `
Examples:
  $ millrace subscription seek billing --to oldest
  $ millrace subscription seek billing --to version:48211`,
    )
    .action(async (subscriptionId: string, options: SeekOptions) => {
      const to = seekPosition(parseStartPosition(options.to));
      const { subscription } = await withSubscriptions(options, terminal, (client) =>
        client.seekSubscription({ subscriptionId, to }, { signal: terminal.interrupted }),
      );
      await printOne(subscription, options, terminal);
    });
}

function seekPosition(start: StartPosition): SeekSubscriptionRequest["to"] {
  if (start.case === "snapshot" || start.case === "subscriptionId") {
    throw usageFailure("a subscription cannot be moved into a snapshot.", "Delete it and create it --from snapshot.");
  }
  return start;
}

function addPause(parent: Command, terminal: Terminal): void {
  const command = parent
    .command("pause")
    .description("deliver nothing until it is resumed; history is kept for it meanwhile")
    .argument("<name>", "of the subscription");
  withServerOptions(command, "print it as a JSON object")
    .addHelpText("after", "\nExamples:\n  $ millrace subscription pause billing")
    .action(async (subscriptionId: string, options: ServerOptions) => {
      const { subscription } = await withSubscriptions(options, terminal, (client) =>
        client.pauseSubscription({ subscriptionId }, { signal: terminal.interrupted }),
      );
      await printOne(subscription, options, terminal);
    });
}

function addResume(parent: Command, terminal: Terminal): void {
  const command = parent
    .command("resume")
    .description("deliver again what was paused")
    .argument("<name>", "of the subscription");
  withServerOptions(command, "print it as a JSON object")
    .addHelpText("after", "\nExamples:\n  $ millrace subscription resume billing")
    .action(async (subscriptionId: string, options: ServerOptions) => {
      const { subscription } = await withSubscriptions(options, terminal, (client) =>
        client.resumeSubscription({ subscriptionId }, { signal: terminal.interrupted }),
      );
      await printOne(subscription, options, terminal);
    });
}

function addDelete(parent: Command, terminal: Terminal): void {
  const command = parent
    .command("delete")
    .description("end a subscription, and say where it stood")
    .argument("<name>", "of the subscription");
  withServerOptions(command, "print its last cursor and version as a JSON object")
    .addHelpText(
      "after",
      `
Its dead letters go with it. Whoever wants to go on without it goes on from the cursor.

Examples:
  $ millrace subscription delete billing
  $ millrace tail --from "$(millrace subscription delete billing --json | jq -r .cursor)"`,
    )
    .action(async (subscriptionId: string, options: ServerOptions) => {
      const { cursor, version } = await withSubscriptions(options, terminal, (client) =>
        client.deleteSubscription({ subscriptionId }, { signal: terminal.interrupted }),
      );
      await terminal.print(
        options.json === true
          ? jsonLine({ subscriptionId, cursor, version })
          : `${subscriptionId} is deleted; it stood after version ${version}: ${cursor}\n`,
      );
    });
}

async function printOne(
  subscription: Subscription | undefined,
  { json }: ServerOptions,
  terminal: Terminal,
): Promise<void> {
  if (subscription === undefined) return;
  await terminal.print(json === true ? jsonLine(subscriptionJson(subscription)) : subscriptionText(subscription));
}
