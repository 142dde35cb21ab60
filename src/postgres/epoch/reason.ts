/** Why the database was not the one that an epoch was written by; completes "this database …". */
export function whatHappened(reason: string): string {
  return sentences[reason] ?? "is not the one that the last epoch was written by";
}

const sentences: Readonly<Record<string, string>> = {
  restored: "was restored from a dump",
  promoted: "was promoted from a standby, or recovered to a point in time",
  copied: "was copied from another",
  upgraded: "was upgraded to another major version",
  rolled_back: "was rolled back to older files",
};
