import { describe, expect, it } from "vitest";
import { servers, WatchedDatabase } from "../capture/watched-database.ts";
import { mirror, toldBy } from "./mirror.ts";

describe.each(servers)("columns on $name", ({ cluster }) => {
  it("stored generated columns have their value in the event, and may be a key's or a topic's", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (a int, b int not null, id int generated always as (a * 10 + b) stored primary key)",
      "create table u (id int primary key, v int, region text generated always as (case when v < 5 then 'low' else 'high' end) stored)",
      "select millrace.watch('t')",
      "select millrace.watch('u', topic => 'u.{region}')",
      "insert into t (a, b) values (1, 2)",
      "update t set b = 3",
      "insert into u values (1, 1)",
      "update u set v = 2",
      "update u set v = 9",
    );
    expect(await mirror(database, { table: "t" })).toEqual(["INSERT 12", "DELETE 12", "INSERT 13"]);
    expect(await mirror(database, { table: "u", topic: "u.{region}" })).toEqual([
      ...["INSERT u.low 1", "UPDATE u.low 1"],
      ...["DELETE u.low 1", "INSERT u.high 1"],
    ]);
  });

  it("identity columns, sequences and defaults have the value that was given", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int generated always as identity primary key, n serial, at timestamptz default clock_timestamp(), u uuid default gen_random_uuid())",
      "select millrace.watch('t')",
      "insert into t default values",
      "insert into t (id) overriding system value values (70)",
      "update t set u = default, n = default",
      "update t set id = default where id = 70",
    );
    const told = await mirror(database, { table: "t" });
    expect(told).toEqual(["INSERT 1", "INSERT 70", "UPDATE 1", "UPDATE 70", "DELETE 70", "INSERT 2"]);
  });

  it("what BEFORE triggers make of a row is what is told", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v text)",
      `create function shout() returns trigger language plpgsql as $$ begin
         if new.v = 'no' then return null; end if; new.v := upper(new.v); return new; end $$`,
      "create trigger shout before insert or update on t for each row execute function shout()",
      "select millrace.watch('t')",
      "insert into t values (1, 'a'), (2, 'no')",
      "update t set v = 'b'",
      "update t set v = 'no'",
    );
    expect(await mirror(database, { table: "t" })).toEqual(["INSERT 1", "UPDATE 1"]);
    expect((await toldBy(database)).at(-1)?.after).toBe('{"id":1,"v":"B"}');
  });

  it("hstore, xml, domains over arrays and nested composites look as SELECT shows them", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create extension hstore",
      "create type place as (city text, at point)",
      "create type trip as (stops place[], cost numeric)",
      "create domain primes as int[] check (7 > all (value))",
      "create table t (id int primary key, h hstore, x xml, p primes, j trip, empty place)",
      "select millrace.watch('t')",
      `insert into t values (1, 'a=>1, "b c"=>NULL', '<a b="1">ä &amp; <c/></a>', '{2,3,5}',
         row(array[row('Bern', '(1,2)')::place, null], 1.50), row(null, null))`,
      "update t set h = h || 'd=>4', x = null",
    );
    expect(await mirror(database, { table: "t" })).toEqual(["INSERT 1", "UPDATE 1"]);
    expect((await toldBy(database))[0]?.after).toBe(
      '{"id":1,"h":{"a": "1", "b c": null},"x":"<a b=\\"1\\">ä &amp; <c/></a>","p":[2,3,5],' +
        '"j":{"stops":[{"city":"Bern","at":"(1,2)"},null],"cost":1.50},"empty":{"city":null,"at":null}}',
    );
  });

  it("ranges, multiranges, enums and large values of any of them are told byte for byte", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create type mood as enum ('sad', 'O''K', 'very \"happy\"')",
      "create table t (id int primary key, m mood, ms mood[], r daterange, rs int4multirange, big int[])",
      "select millrace.watch('t')",
      `insert into t select n, 'very "happy"', '{sad,NULL,"O''K"}', '[2024-01-01,)', '{[1,3),[5,9)}', array(select generate_series(1, n * 1000))
       from generate_series(1, 20) n`,
      "update t set m = 'sad', r = 'empty'",
    );
    expect(await mirror(database, { table: "t" })).toHaveLength(40);
  });
});
