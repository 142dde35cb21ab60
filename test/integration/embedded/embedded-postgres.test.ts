import { mkdir, readdir, readFile, rename, stat, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { findRunning, startEmbedded } from "../../../src/embedded/embedded-postgres.ts";
import { chooseFreePort } from "../../../src/embedded/port.ts";
import { isAlive } from "../../../src/embedded/processes.ts";
import { startMillrace } from "./millrace-process.ts";
import { query, scratchDirectory } from "./scratch.ts";

test("a first start makes a UTF8 cluster of Postgres 18 that asks for its password", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  const postgres = await startEmbedded({ dataDir });
  expect(postgres.adopted).toBe(false);
  const [row] = await query(
    postgres.url,
    `select current_setting('server_version_num')::int / 10000 as major, current_user as name, lower('ÀÉ') as lower,
       current_setting('listen_addresses') as addresses, current_setting('unix_socket_directories') as sockets,
       current_setting('server_encoding') as encoding`,
  );
  expect(row).toEqual({
    major: 18,
    name: "postgres",
    lower: "àé",
    addresses: "127.0.0.1",
    sockets: "",
    encoding: "UTF8",
  });
  const wrong = new URL(postgres.url);
  wrong.password = "wrong";
  await expect(query(wrong.href, "select 1")).rejects.toThrow("password authentication failed");
  expect((await stat(join(dataDir, "password"))).mode & 0o777).toBe(0o600);
  expect((await stat(join(dataDir, "cluster"))).mode & 0o777).toBe(0o700);
  await postgres.stop();
});

test("a second start finds the data, the password and the port of the first", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  const first = await startEmbedded({ dataDir });
  await query(first.url, "create table kept as select 42 as answer");
  await first.stop();
  await first.stop();
  expect(await isAlive(first.pid)).toBe(false);
  const second = await startEmbedded({ dataDir });
  expect(second.url).toBe(first.url);
  expect(second.adopted).toBe(false);
  expect(await query(second.url, "select answer from kept")).toEqual([{ answer: 42 }]);
  await second.stop();
});

test("a remembered port that somebody took meanwhile is replaced", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  const first = await startEmbedded({ dataDir });
  await first.stop();
  await occupy(first.port);
  const second = await startEmbedded({ dataDir });
  expect(second.port).not.toBe(first.port);
  expect(await query(second.url, "select 1 as one")).toEqual([{ one: 1 }]);
  await second.stop();
});

test("a port that was asked for is had, or refused by name", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  const port = await chooseFreePort();
  const postgres = await startEmbedded({ dataDir, port });
  expect(postgres.port).toBe(port);
  await postgres.stop();
  await occupy(port);
  await expect(startEmbedded({ dataDir, port })).rejects.toThrow(
    `Port ${port}, meant for the embedded Postgres, is taken`,
  );
});

test("settings reach the server, and one that it does not know stops the start in its own words", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  const postgres = await startEmbedded({ dataDir, settings: { max_prepared_transactions: "7" } });
  expect(await query(postgres.url, "show max_prepared_transactions")).toEqual([{ max_prepared_transactions: "7" }]);
  await postgres.stop();
  await expect(startEmbedded({ dataDir, settings: { no_such_setting: "1" } })).rejects.toMatchObject({
    code: "DATABASE_UNAVAILABLE",
    message: expect.stringContaining('unrecognized configuration parameter "no_such_setting"'),
    action: expect.stringContaining(join(dataDir, "postgres.log")),
  });
});

test("findRunning gives the URL while it runs, to whoever asks, and nothing otherwise", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  expect(await findRunning(dataDir)).toBeUndefined();
  const postgres = await startEmbedded({ dataDir });
  expect(await findRunning(dataDir)).toEqual({ url: postgres.url, port: postgres.port, pid: postgres.pid });
  await postgres.stop();
  expect(await findRunning(dataDir)).toBeUndefined();
});

test("a directory reached through a symlink is the same directory", async () => {
  const scratch = await scratchDirectory();
  await mkdir(join(scratch, "data"), { mode: 0o711 });
  await symlink(join(scratch, "data"), join(scratch, "link"));
  const postgres = await startEmbedded({ dataDir: join(scratch, "link") });
  expect((await findRunning(join(scratch, "data")))?.url).toBe(postgres.url);
  await expect(startEmbedded({ dataDir: join(scratch, "data") })).rejects.toThrow("This process itself runs");
  await postgres.stop();
});

test("locales that this machine does not have make no difference", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  const env = { LANG: "xx_XX.UTF-8", LC_ALL: "zz_ZZ.ISO-8859-1", LC_MESSAGES: "yy_YY", PGOPTIONS: "--nonsense=1" };
  const millrace = startMillrace([dataDir], env);
  const { url, found } = await millrace.outcome;
  expect(found?.url).toBe(url);
  expect(await query(url, "select datlocprovider, datlocale from pg_database where datname = 'postgres'")).toEqual([
    { datlocprovider: "b", datlocale: "C.UTF-8" },
  ]);
  await millrace.end();
});

test("a cluster of another major version is left alone and named", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  const postgres = await startEmbedded({ dataDir });
  await postgres.stop();
  await writeFile(join(dataDir, "cluster", "PG_VERSION"), "16\n");
  await expect(startEmbedded({ dataDir })).rejects.toThrow("was made by Postgres 16; the embedded one is Postgres 18");
});

test("a cluster whose password file is gone says so and does not run on", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  const postgres = await startEmbedded({ dataDir });
  await postgres.stop();
  await rename(join(dataDir, "password"), join(dataDir, "hidden"));
  await expect(startEmbedded({ dataDir })).rejects.toThrow(`could not be read from ${join(dataDir, "password")}`);
  await rename(join(dataDir, "hidden"), join(dataDir, "password"));
  expect(await findRunning(dataDir)).toBeUndefined();
});

test("a directory that cannot be made is refused in a sentence", async () => {
  const scratch = await scratchDirectory();
  await writeFile(join(scratch, "file"), "");
  await expect(startEmbedded({ dataDir: join(scratch, "file", "data") })).rejects.toMatchObject({
    code: "DATABASE_UNAVAILABLE",
    action: expect.stringContaining("choose another data directory"),
  });
});

test("a directory of somebody else's is left as it is", async () => {
  const scratch = await scratchDirectory(0o750);
  await writeFile(join(scratch, "password"), "theirs");
  await expect(startEmbedded({ dataDir: scratch })).rejects.toThrow("holds other things");
  expect(await readdir(scratch)).toEqual(["password"]);
  expect((await stat(scratch)).mode & 0o777).toBe(0o750);
});

test("an overgrown log is put aside at the next start", async () => {
  const dataDir = join(await scratchDirectory(), "data");
  await mkdir(join(dataDir, "claims"), { recursive: true, mode: 0o711 });
  await writeFile(join(dataDir, "postgres.log"), Buffer.alloc(17 * 1024 * 1024, "x"));
  const postgres = await startEmbedded({ dataDir });
  await postgres.stop();
  expect((await stat(join(dataDir, "postgres.log.1"))).size).toBe(17 * 1024 * 1024);
  expect(await readFile(join(dataDir, "postgres.log"), "utf8")).toContain("ready to accept connections");
});

/** Listens there until the test is over. */
async function occupy(port: number): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  onTestFinished(() => new Promise<void>((resolve) => server.close(() => resolve())));
}
