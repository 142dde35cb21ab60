import { describe, expect, it } from "vitest";
import { refusal, servers, WatchedDatabase } from "./watched-database.ts";

const refused: readonly (readonly [parameters: string, code: string, message: string])[] = [
  ["null", "22023", "topic null is not a dotted name of at most 255 bytes"],
  ["''", "22023", "topic '' is not a dotted name of at most 255 bytes"],
  ["'a..b'", "22023", "topic 'a..b' is not a dotted name of at most 255 bytes"],
  ["'a b'", "22023", "topic 'a b' is not a dotted name of at most 255 bytes"],
  ["E'a\\n'", "22023", "topic 'a\n' is not a dotted name of at most 255 bytes"],
  ["'orders.*'", "22023", "topic 'orders.*' is not a dotted name of at most 255 bytes"],
  ["repeat('a', 256)", "22023", `topic '${"a".repeat(256)}' is not a dotted name of at most 255 bytes`],
  ["'a', operation => 'TRUNCATE'", "22023", "operation 'TRUNCATE' cannot be emitted"],
  ["'a', operation => null", "22023", "operation null cannot be emitted"],
  ["'a', operation => 'DELETE'", "22023", "operation DELETE needs a key"],
  ["'a', repeat('k', 8193)", "54000", "a key of 8193 bytes is too long"],
  [`'a', headers => '{"n": 1}'`, "22023", "headers must be a JSON object of strings"],
  [`'a', headers => '["n"]'`, "22023", "headers must be a JSON object of strings"],
  [`'a', headers => '{"n": "\\u0000"}'`, "22023", "headers must be a JSON object of strings"],
  ["'a', payload => '{'", "22P02", "invalid input syntax for type json"],
];

describe.each(servers)("millrace.emit on $name", ({ cluster }) => {
  it("writes the event with its bytes and returns the transaction", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const { rows } = await database.client.query<{ token: string; same: string; epoch: string; xid: string }>(
      `select millrace.emit('shop.mail', 'k', '{"b":  1e400, "a": "\\u0000"}', '{"x": "y"}') as token,
         millrace.transaction() as same, (select id from millrace.epoch) as epoch, pg_current_xact_id()::text as xid`,
    );
    expect(rows).toEqual([
      { token: `${rows[0]?.epoch}:${rows[0]?.xid}`, same: rows[0]?.token, epoch: rows[0]?.epoch, xid: rows[0]?.xid },
    ]);
    await database.run(
      "select millrace.emit('shop.mail')",
      `select millrace.emit('shop.mail', 'k', '1', null, 'INSERT')`,
      `select millrace.emit('shop.mail', 'k', '2', operation => 'UPDATE')`,
      `select millrace.emit('shop.mail', 'k', '3', operation => 'DELETE')`,
    );
    const common = { topic: "shop.mail", key: "k", before: null, after: null, headers: null, source_id: null };
    expect(await database.written()).toEqual([
      { ...common, operation: "M", after: '{"b":  1e400, "a": "\\u0000"}', headers: '{"x": "y"}' },
      { ...common, operation: "M", key: null },
      { ...common, operation: "I", after: "1" },
      { ...common, operation: "U", after: "2" },
      { ...common, operation: "D", before: "3" },
    ]);
  });

  it("refuses what could not be an event, with what to do", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    for (const [parameters, code, message] of refused) {
      expect(await refusal(database.run(`select millrace.emit(${parameters})`))).toMatchObject({ code, message });
    }
    expect(await database.written()).toEqual([]);
    const large = "select millrace.emit('a', payload => to_json(repeat('x', 67108863)))";
    expect(await refusal(database.run(large))).toMatchObject({ code: "54000" });
  });

  it("refuses the topics of watched tables, those of a template too, and no others", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v text)",
      "create table u (id int primary key, v text)",
      "select millrace.watch('t')",
      "select millrace.watch('u', topic => 'u.{v}-x.y')",
    );
    for (const topic of ["t", "u.a-x.y", "u.%null-x.y"]) {
      expect(await refusal(database.run(`select millrace.emit('${topic}')`))).toMatchObject({
        code: "42501",
        message: `topic "${topic}" belongs to the watched table public.${topic.slice(0, 1)}`,
      });
    }
    await database.run("select millrace.emit('t.a'), millrace.emit('u.a-xAy'), millrace.emit('u.a.b-x.y')");
    await database.run("select millrace.unwatch('t')", "select millrace.emit('t')");
  });

  it("is for roles that were allowed to, and goes with the permission", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const app = `emitter_${await database.value<string>("select pg_backend_pid()")}`;
    await database.run(`create role ${app} login`, `select millrace.allow('${app}', 'writer')`);
    const writer = await database.session(app);
    await writer.query("begin; set transaction isolation level serializable; select millrace.emit('a', 'k'); commit");
    for (const statement of [
      "insert into millrace.outbox (topic, operation) values ('a', 'M')",
      "select * from millrace.outbox",
      `select millrace.allow('${app}', 'server')`,
      "select millrace.watch('pg_class')",
      "select millrace.row_image(row(1), '{}')",
    ]) {
      await expect(writer.query(statement)).rejects.toMatchObject({ code: "42501" });
    }
    await database.run(`select millrace.deny('${app}', 'writer')`);
    await expect(writer.query("select millrace.emit('a')")).rejects.toMatchObject({ code: "42501" });
    await writer.end();
    await database.run(`drop role ${app}`);
  });
});
