import { type Finding, ok, warning } from "../finding.ts";
import type { Lease } from "../lease.ts";
import { readStorage, type Storage, storageFinding, storageProblems } from "./storage.ts";

const littleRoom = 1_000_000;

/** What `doctor` says of partitions and of what is kept. */
export async function storageFindings(lease: Lease): Promise<readonly Finding[]> {
  const storage = await readStorage(lease);
  return [...storageProblems(storage).map(storageFinding), ...room(storage), ...limits(storage)];
}

function room({ defaultRows, drawn, partitions }: Storage): readonly Finding[] {
  if (defaultRows > 0) return [];
  const left = Math.max(0, ...partitions.map(({ upperSeq }) => (upperSeq ?? 0) - drawn - 1));
  return left < littleRoom
    ? [
        warning(
          "PARTITIONS_NEARLY_FULL",
          `${left} more events have a partition; later ones go to millrace.outbox_default.`,
          "Let a server run, or run `millrace prune`: it makes partitions for what comes next.",
        ),
      ]
    : [ok("PARTITIONS", "There are partitions for the events to come.")];
}

function limits({ settings }: Storage): readonly Finding[] {
  return settings.keepAgeMs === undefined && settings.keepBytes === undefined
    ? [
        warning(
          "RETENTION_OFF",
          "Nothing is ever forgotten: the outbox grows without end.",
          "Set a limit: `millrace retain --age 7d`, or `--bytes 50GiB`.",
        ),
      ]
    : [ok("RETENTION", "What is kept is limited.")];
}
