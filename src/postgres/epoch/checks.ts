import pg from "pg";
import { error, type Finding, ok } from "../finding.ts";
import type { Lease } from "../lease.ts";
import { whatHappened } from "./reason.ts";
import { epochInForce, readEpoch } from "./statements.ts";

interface EpochRow {
  readonly createdAt: string;
  readonly reason: string;
  readonly parent: string | null;
  readonly forkVersion: string | null;
  readonly unsettled: string | null;
}

const copied = "MR003";
const howToBegin =
  "Run `select millrace.begin_epoch()`, or start a server without `--new-epoch refuse`, which does it.";

/** What `doctor` says of the epoch in force: how it came about, or why another one is due. */
export async function epochFindings(lease: Lease): Promise<readonly Finding[]> {
  try {
    const [found] = await lease.rows<{ readonly epoch: string; readonly younger: boolean }>(epochInForce);
    const epoch = found?.epoch ?? "";
    if (found?.younger === true) {
      return [
        error(
          "EPOCH",
          `Nothing can be settled: transaction ids are lower than in epoch ${epoch}, so this database was restored under it.`,
          howToBegin,
        ),
      ];
    }
    const [row] = await lease.rows<EpochRow & pg.QueryResultRow>(readEpoch, [epoch]);
    return [ok("EPOCH", row === undefined ? `Epoch ${epoch} is in force.` : history(epoch, row))];
  } catch (cause) {
    if (!(cause instanceof pg.DatabaseError) || !cause.code?.startsWith("MR")) throw cause;
    const detail = cause.detail === undefined ? "" : ` ${cause.detail}`;
    return [
      error(
        "EPOCH",
        `Nothing can be settled: ${cause.message}.${detail}`,
        cause.code === copied ? howToBegin : (cause.hint ?? "Restore the server that wrote it."),
      ),
    ];
  }
}

function history(epoch: string, { createdAt, reason, parent, forkVersion, unsettled }: EpochRow): string {
  if (parent === null) return `Epoch ${epoch} is the first, since ${createdAt}.`;
  const settled =
    unsettled === null ? "" : ` ${unsettled} committed events of the dump had no version, and got one after that.`;
  return `Epoch ${epoch} began at ${createdAt}, because this database ${whatHappened(reason)}. It shares versions up to ${forkVersion} with ${parent}.${settled}`;
}
