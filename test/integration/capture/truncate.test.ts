import { describe, expect, it } from "vitest";
import { listSources, watchTable } from "../../../src/postgres/sources.ts";
import { refusal, servers, WatchedDatabase, type Written } from "./watched-database.ts";

const tree = [
  "create table t (id int primary key, v text) partition by range (id)",
  "create table t_low partition of t for values from (0) to (10)",
  "create table t_high partition of t for values from (10) to (30) partition by range (id)",
  "create table t_high_1 partition of t_high for values from (10) to (20)",
  "create table t_high_2 partition of t_high for values from (20) to (30)",
];

/** `T`, or `truncated <partition>`, or the operation and key. */
function told({ operation, key, after, headers }: Written): string {
  if (operation !== "M") return `${operation} ${key ?? "-"}`;
  expect(headers).toBe('{"millrace-schema": "changed"}');
  const { table, partitions, rowsChanged } = JSON.parse(after ?? "null");
  expect([table, rowsChanged]).toEqual(["public.t", true]);
  return `truncated ${partitions.truncated[0].table} ${partitions.truncated[0].bound}`;
}

describe.each(servers)("TRUNCATE on $name", ({ cluster }) => {
  it("G1 of a partition is told as what it is, and not as one of the whole table", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      ...tree,
      "select millrace.watch('t')",
      "insert into t values (1, 'a'), (11, 'b'), (21, 'c')",
      "truncate millrace.outbox",
      "truncate t_low",
      "truncate t_high",
    );
    const low = "truncated public.t_low FOR VALUES FROM (0) TO (10)";
    const high = "truncated public.t_high FOR VALUES FROM (10) TO (30)";
    expect((await database.written()).map(told)).toEqual([low, high]);
    await database.clear();
    await database.run(
      "begin; truncate t; truncate t_low; insert into t values (2, 'a'); truncate t_low; truncate t_low, t_high_2; truncate t; commit",
      "truncate t_low, t_high_1",
    );
    expect((await database.written()).map(told)).toEqual([
      ...["T -", "I 2", low, "truncated public.t_high_2 FOR VALUES FROM (20) TO (30)", "T -"],
      ...[low, "truncated public.t_high_1 FOR VALUES FROM (10) TO (20)"],
    ]);
    await database.clear();
    await database.run("truncate t_low, t", "truncate t", "begin; truncate t; rollback");
    expect((await database.written()).map(told).filter((what) => what !== low)).toEqual(["T -", "T -"]);
  });

  it("is seen of a partition that came later once the table is watched again; until then sources names it", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      ...tree,
      "select millrace.watch('t', topic => 'named', before_values => false)",
      "create table t_new partition of t for values from (30) to (40)",
      "create table t_old (v text, id int not null)",
      "alter table t attach partition t_old for values from (40) to (50)",
    );
    const [before] = await listSources(database.client);
    expect(before?.problems).toEqual(
      ["public.t_new", "public.t_old"].map((table) => ({
        kind: "TRUNCATE_UNSEEN",
        message: `TRUNCATE of ${table} is not captured.`,
        action: "Run `millrace watch public.t` again; take a new snapshot if it was truncated.",
      })),
    );
    await database.run("truncate t_new, t_old");
    expect(await database.written()).toEqual([]);

    const source = await watchTable(database.client, { table: "t" });

    expect(source).toMatchObject({ topic: "named", beforeValues: false, problems: [] });
    await database.clear();
    await database.run("truncate t_new, t_old");
    expect((await database.written()).map(told)).toEqual([
      "truncated public.t_new FOR VALUES FROM (30) TO (40)",
      "truncated public.t_old FOR VALUES FROM (40) TO (50)",
    ]);
  });

  it("of a partition is not told where TRUNCATE is not, nor of one that was detached, and unwatch leaves no trigger", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const triggers =
      "select array_agg(tgrelid::regclass::text order by 1) from pg_trigger where tgname like '!millrace%'";
    await database.run(
      ...tree,
      "select millrace.watch('t')",
      "alter table t detach partition t_low",
      "insert into t_low values (1, 'x')",
      "truncate t_low",
    );
    expect(await database.written()).toEqual([]);
    await database.run("select millrace.watch('t', capture_truncate => false)", "truncate millrace.outbox");
    await database.run("truncate t_high_1", "truncate t");
    expect(await database.written()).toEqual([]);
    expect((await listSources(database.client)).flatMap(({ problems }) => problems)).toEqual([]);
    await database.run("select millrace.unwatch('t')");
    expect(await database.value(triggers)).toBeNull();
    await database.run(
      "select millrace.watch('t')",
      "alter table t detach partition t_high",
      "select millrace.unwatch('t')",
    );
    expect(await database.value(triggers)).toBeNull();
    expect(await database.value("select count(*)::int from pg_proc where proname ~ '^capture_[0-9]'")).toBe(0);
  });

  it("needs the owner of all partitions, and watch says of which one it is not", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const tag = await database.value<number>("select pg_backend_pid()");
    await database.run(
      `create role parent_${tag} login; create role child_${tag}`,
      `grant create on schema public to parent_${tag}`,
      `select millrace.allow('parent_${tag}', 'watcher')`,
    );
    const owner = await database.session(`parent_${tag}`);
    await owner.query(tree.join(";"));
    await database.run(`alter table t_low owner to child_${tag}`);
    expect(await refusal(owner.query("select millrace.watch('t')"))).toEqual({
      code: "42501",
      message: `role "parent_${tag}" does not own public.t_low, a partition of public.t`,
      hint: `Watch it as a role that owns all of its partitions, or run "alter table public.t_low owner to parent_${tag}".`,
    });
  });

  it("G11 of a partition reads nothing of what others have written, however much that is", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      ...tree,
      "select millrace.watch('t')",
      "insert into t values (1, 'a')",
      // As many in each transaction as have the planner prefer the order of seq.
      `insert into millrace.outbox (xid, topic, operation, source_id)
       select (1000000 + n / 500)::text::xid8, 't', 'M', (select id from millrace.source) from generate_series(1, 100000) n`,
      "analyze millrace.outbox",
      "begin; truncate t_low",
    );
    const read = await database.value<number>(
      "select sum(idx_tup_fetch + seq_tup_read)::int from pg_stat_xact_user_tables where schemaname = 'millrace' and relname like 'outbox%'",
    );
    await database.run("commit");
    expect(read).toBeLessThan(1000);
  });

  it("says of a partition that is to be watched where its changes are, and of children that they are not the parent's", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      ...tree,
      "select millrace.watch('t')",
      "create table parent (id int primary key); create table child (primary key (id)) inherits (parent)",
    );
    for (const table of ["t_low", "t_high_1"]) {
      expect(await refusal(database.run(`select millrace.watch('${table}')`))).toMatchObject({
        message: `public.${table} is a partition of a watched table: it cannot be watched`,
        hint: "Its changes are told already, as those of public.t: subscribe to the topic of that.",
      });
    }
    const warnings: string[] = [];
    await watchTable(database.client, { table: "parent" }, { onWarning: (sentence) => warnings.push(sentence) });
    expect(warnings).toEqual([
      "Rows of tables that inherit from public.parent are not captured with its own: public.child.",
    ]);
  });
});
