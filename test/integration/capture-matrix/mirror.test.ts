import { expect, it } from "vitest";
import { freshDatabase, sharedCluster } from "../../support/cluster.ts";
import { WatchedDatabase } from "../capture/watched-database.ts";
import { mirror } from "./mirror.ts";

/** What is done to the outbox before anybody reads it, and what the comparison says. */
const faults: readonly (readonly [fault: string, sql: string, complaint: string])[] = [
  ["an INSERT that is lost", "delete from millrace.outbox where seq = 1", "UPDATE t 1: the row was not that"],
  ["the last event lost", "delete from millrace.outbox where operation = 'D'", "1 rows differ, the first with key 2"],
  [
    "an event twice",
    "insert into millrace.outbox (topic, key, operation, after) select topic, key, operation, after from millrace.outbox where seq = 1",
    "INSERT t 1: the row is there already",
  ],
  [
    "an image of one byte more",
    "update millrace.outbox set after = (after::text || ' ')::json where operation = 'U'",
    "1 rows differ, the first with key 1",
  ],
  [
    "two events in each other's place",
    "update millrace.outbox set seq = case key when '1' then 200 else 100 end where operation = 'I' and key in ('1', '3')",
    "UPDATE t 1: the row was not that",
  ],
  [
    "a key of another row",
    "update millrace.outbox set key = '3' where operation = 'D'",
    "DELETE t 3: the row was not that",
  ],
];

it.each(faults)("the comparison is shown red: %s", async (_fault, sql, complaint) => {
  await using database = await WatchedDatabase.open(await sharedCluster(), await freshDatabase());
  await database.run(
    "create table t (id int primary key, v int)",
    "select millrace.watch('t')",
    "insert into t values (1, 1), (2, 2), (3, 3)",
    "update t set v = 9 where id = 1",
    "delete from t where id = 2",
    sql,
  );
  await expect(mirror(database, { table: "t" })).rejects.toThrow(complaint);
});
