import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openSnapshot } from "../../../src/postgres/snapshot/snapshot.ts";
import { createFeedDatabase, type FeedDatabase, forever, readAll } from "./feed-database.ts";

let database: FeedDatabase;
let server: pg.Pool;
const role = `server_${process.pid}`;

const snapshotOf = (topic: string) =>
  openSnapshot(server, database.epoch, { wantsSource: (source) => source === topic }, {}, forever);

beforeAll(async () => {
  database = await createFeedDatabase();
  await database.sql(`create role ${role} login; select millrace.allow('${role}', 'server')`);
  await database.sql(`
    create table plain (id int primary key); insert into plain values (1);
    create table secured (id int primary key, owner text);
    insert into secured values (1, '${role}'), (2, 'somebody');
    alter table secured enable row level security;
    create policy own on secured using (owner = current_user);
    create schema "Other One"; create table "Other One"."My Table" (id int primary key);
    insert into "Other One"."My Table" values (1);
    select millrace.watch('plain'), millrace.watch('secured'), millrace.watch('"Other One"."My Table"', topic => 'mine')`);
  server = database.poolAs(role);
});

afterAll(async () => {
  await database.sql(`drop owned by ${role}`);
  await database[Symbol.asyncDispose]();
});

describe("an ordinary role with the capability server", () => {
  it("is told which grant is missing, and has what it asked for once that is given", async () => {
    await expect(snapshotOf("plain")).rejects.toMatchObject({
      code: "TOPIC_FORBIDDEN",
      message: expect.stringContaining(role),
      action: expect.stringContaining(`grant select on "public"."plain" to "${role}"`),
    });
    await database.sql(`grant select on "public"."plain" to "${role}"`);
    expect(await readAll(await snapshotOf("plain"))).toHaveLength(1);
  });

  it("is told of the schema's grant too, and the grants work as they stand", async () => {
    const failure = await snapshotOf("mine").catch((error: unknown) => error);
    const grants = /`(grant [^`]+)`/.exec(String((failure as { action?: string }).action))?.[1] ?? "";
    expect(grants).toContain(`grant usage on schema "Other One" to "${role}"; grant select on`);
    await database.sql(grants);
    expect(await readAll(await snapshotOf("mine"))).toHaveLength(1);
  });

  it("gets no part of a table whose rows a policy hides, but an error", async () => {
    await database.sql(`grant select on secured to ${role}`);
    // As it would be without care: one row of two, and nobody the wiser.
    expect((await server.query("select from secured")).rowCount).toBe(1);
    await expect(snapshotOf("secured")).rejects.toMatchObject({
      code: "TOPIC_FORBIDDEN",
      action: expect.stringContaining("bypassrls"),
    });
    await database.sql(`alter role ${role} bypassrls`);
    expect(await readAll(await snapshotOf("secured"))).toHaveLength(2);
    await database.sql(`alter role ${role} nobypassrls`);
  });

  it("does not need rights on what was not asked for", async () => {
    await database.sql("create table hidden (id int primary key); select millrace.watch('hidden')");
    expect(await readAll(await snapshotOf("plain"))).toHaveLength(1);
  });

  it("gets no rows when nothing is wanted, and still a moment", async () => {
    const reader = await snapshotOf("nothing.of.the.kind");
    expect(reader.parts).toEqual([]);
    expect(await readAll(reader)).toEqual([]);
    expect(reader.tick.tick).toBeGreaterThan(0);
  });

  it("has a snapshot whatever its defaults are", async () => {
    await database.sql(`alter role ${role} set synchronous_commit = off;
      alter role ${role} set default_transaction_isolation = 'serializable';
      alter role ${role} set default_transaction_read_only = on;
      alter role ${role} set search_path = "Other One"`);
    server = database.poolAs(role);
    expect(await readAll(await snapshotOf("plain"))).toHaveLength(1);
  });
});

it("refuses the epoch of another history", async () => {
  const other = "00000000-0000-4000-8000-000000000000";
  await expect(openSnapshot(database.pool, other, { wantsSource: () => true }, {}, forever)).rejects.toMatchObject({
    code: "EPOCH_CHANGED",
  });
});
