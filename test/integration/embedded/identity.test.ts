import { chmod, chown, mkdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { startEmbedded } from "../../../src/embedded/embedded-postgres.ts";
import { chooseIdentity, type Identity } from "../../../src/embedded/identity.ts";
import { startMillraceAs } from "./millrace-process.ts";
import { query, scratchDirectory } from "./scratch.ts";

const root = process.getuid?.() === 0;

test("Postgres is not root, whoever starts it", async () => {
  const dataDir = join(await scratchDirectory(0o711), "data");
  const postgres = await startEmbedded({ dataDir });
  expect(await capabilitiesOf(postgres.pid)).toBe(0n);
  if (root) expect((await chooseIdentity([dataDir])).kind).toBe("user");
  await postgres.stop();
});

test("it runs below a directory that only its owner may enter, and again once others may", async () => {
  const scratch = await scratchDirectory(0o700);
  const dataDir = join(scratch, "data");
  if (root) expect((await chooseIdentity([scratch])).kind).toBe("namespace");
  const first = await startEmbedded({ dataDir });
  expect(await capabilitiesOf(first.pid)).toBe(0n);
  await query(first.url, "create table kept as select 42 as answer");
  await first.stop();
  await chmod(scratch, 0o711);
  const second = await startEmbedded({ dataDir });
  expect(await query(second.url, "select answer from kept")).toEqual([{ answer: 42 }]);
  await second.stop();
});

test("an ordinary user runs it too", async () => {
  const scratch = await scratchDirectory(0o711);
  const own = join(scratch, "own");
  await mkdir(own, { mode: 0o700 });
  // As root: another user that can reach Node and this project; else: this one.
  const identity = await chooseIdentity([dirname(process.execPath), import.meta.dirname, scratch]);
  if (identity.kind === "user") await chown(own, identity.uid, identity.gid);
  const millrace = startMillraceAs(identity, [join(own, "data")]);
  const { url, error } = await millrace.outcome;
  expect(error).toBeUndefined();
  expect(await query(url, "select 1 as one")).toEqual([{ one: 1 }]);
  await millrace.end();
});

test("a user without a name, as in a container, runs it too", async () => {
  const scratch = await scratchDirectory(0o711);
  const own = join(scratch, "own");
  await mkdir(own, { mode: 0o700 });
  // Only root can become a uid of its choice; anybody else stays who he is.
  const nameless: Identity = root ? { kind: "user", uid: 54_321, gid: 54_321 } : { kind: "self" };
  if (nameless.kind === "user") await chown(own, nameless.uid, nameless.gid);
  const millrace = startMillraceAs(nameless, [join(own, "data")]);
  const { url, error } = await millrace.outcome;
  expect(error).toBeUndefined();
  expect(await query(url, "select 1 as one")).toEqual([{ one: 1 }]);
  await millrace.end();
});

/** The effective capabilities of a process: none, unless it is root or something near it. */
async function capabilitiesOf(pid: number): Promise<bigint> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return BigInt(`0x${/^CapEff:\s*(\w+)/m.exec(status)?.[1]}`);
}
