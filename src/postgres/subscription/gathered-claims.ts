import { FeedError } from "../../core/errors.ts";
import type { Claimant } from "../../core/subscription/subscription-store.ts";
import { GatheredQuestions } from "../gathered-questions.ts";
import type { Literal } from "../literal.ts";
import { inRounds, storable } from "./advance-text.ts";
import type { ClaimedRow } from "./record.ts";
import { claimedRecords, claimSubscriptions } from "./statements.ts";

/** What became of a claim. The row is as it was right after; `undefined` when there is none. */
export interface ClaimAnswer {
  readonly outcome: "claimed" | "held" | "paused" | "lost" | "gone";
  readonly row: ClaimedRow | undefined;
}

type AnswerRow = ClaimedRow & Pick<ClaimAnswer, "outcome">;

/** Runs statements in one transaction, and answers with the rows of each. */
export type Write = (
  statements: readonly (readonly [statement: string, values: readonly Literal[]])[],
  signal: AbortSignal,
) => Promise<readonly (readonly AnswerRow[])[]>;

interface Asked extends Claimant {
  readonly id: string;
}

/** Claims that come while others are under way go into the next transaction together: after a restart there are thousands. */
export class GatheredClaims {
  readonly #questions: GatheredQuestions<Asked, ClaimAnswer>;

  constructor(epoch: () => string, write: Write) {
    this.#questions = new GatheredQuestions((asked, signal) => claimAll(asked, { epoch: epoch(), write, signal }));
  }

  async claim(id: string, claimant: Claimant, signal: AbortSignal): Promise<ClaimAnswer> {
    const answer = await this.#questions.about({ ...claimant, id }, signal);
    if (answer !== undefined) return answer;
    throw new FeedError("INTERNAL", "The database gave no answer to a claim.", "Report it.");
  }
}

interface Asking {
  readonly epoch: string;
  readonly write: Write;
  readonly signal: AbortSignal;
}

/** Of several claims of one subscription each sees what those before it did. */
async function claimAll(
  asked: readonly Asked[],
  { epoch, write, signal }: Asking,
): Promise<ReadonlyMap<Asked, ClaimAnswer>> {
  const rounds = inRounds(asked).map((indexes) => indexes.flatMap((index) => asked[index] ?? []));
  const results = await write(
    rounds.flatMap((round) => {
      const ids = round.map(({ id }) => id);
      const replicas = round.map(({ replica }) => storable(replica));
      const urls = round.map(({ url }) => storable(url ?? ""));
      const leases = round.map(({ leaseMs }) => String(leaseMs));
      return [
        [claimSubscriptions, [epoch, ids, replicas, urls, leases]],
        [claimedRecords, [ids]],
      ];
    }),
    signal,
  );
  const answers = rounds.flatMap((round, index) => {
    const outcomes = new Map(results[2 * index]?.map(({ id, outcome }) => [id, outcome]));
    const rows = new Map(results[2 * index + 1]?.map((row) => [row.id, row]));
    return round.map((one) => [one, { outcome: outcomes.get(one.id) ?? "gone", row: rows.get(one.id) }] as const);
  });
  return new Map(answers);
}
