import type { Command } from "commander";
import type { DeadLetter } from "../../../gen/millrace/v1/subscription_service_pb.js";
import { usageFailure } from "../failure.ts";
import { jsonLine } from "../layout.ts";
import { type ServerOptions, withServerOptions, withSubscriptions } from "../subscription/subscription-client.ts";
import { deadLetterLine, deadLetterTable } from "../subscription/subscription-text.ts";
import type { Terminal } from "../terminal.ts";
import { mostCount, wholeNumber } from "./option-values.ts";

interface AckOptions extends ServerOptions {
  readonly generation?: number;
  readonly member?: string;
}

/** Adds `millrace subscription ack`. */
export function addAcknowledge(parent: Command, terminal: Terminal): void {
  const command = parent
    .command("ack")
    .description("acknowledge everything up to a cursor: it does not come again")
    .argument("<name>", "of the subscription")
    .argument("<cursor>", "of the last event that is done, as `tail --ndjson` prints it")
    .option("--generation <number>", "refuse it when a newer consumer has come", wholeNumber("--generation", 1))
    .option("--member <name>", "of a group: who was given it");
  withServerOptions(command, "print where the subscription stands as a JSON object")
    .addHelpText(
      "after",
      `
Examples:
  $ millrace subscription ack billing "$(tail -1 done.ndjson | jq -r .cursor)"`,
    )
    .action(async (subscriptionId: string, cursor: string, options: AckOptions) => {
      const { member = "", generation = 0 } = options;
      const request = { subscriptionId, cursor, member, generation: BigInt(generation) };
      const { version, accepted, ...answer } = await withSubscriptions(options, terminal, (client) =>
        client.acknowledge(request, { signal: terminal.interrupted }),
      );
      await terminal.print(
        options.json === true
          ? jsonLine({ subscriptionId, version, cursor: answer.cursor, accepted })
          : `${subscriptionId} is acknowledged up to version ${version}\n`,
      );
    });
}

interface DeadLetterOptions extends ServerOptions {
  readonly key?: string;
  readonly limit?: number;
}

const pageSize = 500;

/** Adds `millrace subscription dead-letters`. */
export function addDeadLetters(parent: Command, terminal: Terminal): void {
  const command = parent
    .command("dead-letters")
    .description("list the events that a group gave up, oldest first")
    .argument("<name>", "of the subscription")
    .option("--key <key>", "only of this key")
    .option("--limit <count>", "at most so many (default: 1000)", wholeNumber("--limit", 1, mostCount));
  withServerOptions(command, "print each as a line of JSON, with its event")
    .addHelpText(
      "after",
      `
Examples:
  $ millrace subscription dead-letters workers
  $ millrace subscription dead-letters workers --json | jq -r .dead.reason | sort | uniq -c`,
    )
    .action(async (subscriptionId: string, options: DeadLetterOptions) => {
      const { key, limit = 1000 } = options;
      const letters: DeadLetter[] = [];
      const total = await withSubscriptions(options, terminal, async (client) => {
        for (let pageToken = ""; ; ) {
          const request = { subscriptionId, pageToken, pageSize: Math.min(pageSize, limit - letters.length) };
          const asked = key === undefined ? request : { ...request, key };
          const page = await client.listDeadLetters(asked, { signal: terminal.interrupted });
          letters.push(...page.deadLetters);
          pageToken = page.nextPageToken;
          if (pageToken === "" || letters.length >= limit) return page.total;
        }
      });
      await terminal.print(
        options.json === true ? letters.map(deadLetterLine).join("") : deadLetterTable(letters, total),
      );
    });
}

interface WhichOptions extends ServerOptions {
  readonly key?: string;
  readonly limit?: number;
  readonly all?: boolean;
}

/** Adds `millrace subscription replay`. */
export function addReplay(parent: Command, terminal: Terminal): void {
  const command = parent
    .command("replay")
    .description("deliver dead letters again; what is acknowledged then is none any more")
    .argument("<name>", "of the subscription")
    .argument("[versions...]", "which (default: the oldest)")
    .option("--key <key>", "only of this key")
    .option("--limit <count>", "at most so many (default: 100)", wholeNumber("--limit", 1, mostCount));
  withServerOptions(command, "print how many as a JSON object")
    .addHelpText(
      "after",
      `
Examples:
  $ millrace subscription replay workers
  $ millrace subscription replay workers 4711 4712
  $ millrace subscription replay workers --key 42`,
    )
    .action(async (subscriptionId: string, versions: readonly string[], options: WhichOptions) => {
      const request = { ...which(subscriptionId, versions, options), limit: options.limit ?? 0 };
      const { replaying, remaining } = await withSubscriptions(options, terminal, (client) =>
        client.replayDeadLetters(request, { signal: terminal.interrupted }),
      );
      await terminal.print(
        options.json === true
          ? jsonLine({ subscriptionId, replaying, remaining })
          : `${replaying} dead letters are being delivered again; ${remaining} are left\n`,
      );
    });
}

/** Adds `millrace subscription discard`. */
export function addDiscard(parent: Command, terminal: Terminal): void {
  const command = parent
    .command("discard")
    .description("drop dead letters for good; keys that were parked for them flow again")
    .argument("<name>", "of the subscription")
    .argument("[versions...]", "which")
    .option("--key <key>", "those of this key")
    .option("--all", "all of them");
  withServerOptions(command, "print how many as a JSON object")
    .addHelpText(
      "after",
      `
Examples:
  $ millrace subscription discard workers 4711
  $ millrace subscription discard workers --all`,
    )
    .action(async (subscriptionId: string, versions: readonly string[], options: WhichOptions) => {
      const all = options.all === true;
      if (!all && versions.length === 0 && options.key === undefined) {
        throw usageFailure("say which dead letters to discard.", "Give versions, --key, or --all.");
      }
      const request = { ...which(subscriptionId, versions, options), all };
      const { discarded, remaining } = await withSubscriptions(options, terminal, (client) =>
        client.discardDeadLetters(request, { signal: terminal.interrupted }),
      );
      await terminal.print(
        options.json === true
          ? jsonLine({ subscriptionId, discarded, remaining })
          : `${discarded} dead letters are gone; ${remaining} are left\n`,
      );
    });
}

function which(subscriptionId: string, versions: readonly string[], { key }: WhichOptions) {
  const numbers = versions.map((version) => BigInt(wholeNumber("version", 1)(version)));
  return { subscriptionId, versions: numbers, ...(key === undefined ? {} : { key }) };
}
