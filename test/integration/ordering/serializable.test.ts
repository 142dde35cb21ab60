import { expect, test } from "vitest";
import { commit, never, openStage, tick, write } from "./stage.ts";

test("G11 a server whose role reads serializably makes no serializable writer fail", async () => {
  await using stage = await openStage();
  const [owner, writer, other] = [await stage.session(), await stage.session(), await stage.session()];
  const role = `serializable_${process.pid}`;
  await owner.query(`
    create role ${role} login;
    alter role ${role} set default_transaction_isolation = serializable;
    select millrace.allow('${role}', 'server');
    create table stock (id int primary key, n int not null);
    insert into stock values (1, 1)`);
  await commit(owner, "before");
  await tick(owner);
  const url = new URL(stage.url);
  url.username = role;
  const store = await stage.store({ url: url.href });

  // Writer reads what other then changes: fine, as writer before other. Who sees other's commit and not the writer's
  // event, as a serializable reader, closes the ring, and the writer is the one to go.
  await writer.query("begin isolation level serializable");
  await writer.query("select n from stock where id = 1");
  await other.query("begin isolation level serializable");
  await other.query("update stock set n = n + 1 where id = 1");
  await write(other, "other");
  await other.query("commit");
  expect((await store.advance(1, never))?.events.map(({ key }) => key)).toEqual(["other"]);
  expect((await store.readAfter(1, never))?.events.map(({ key }) => key)).toEqual(["other"]);
  await write(writer, "writer");
  await writer.query("commit");
  expect((await store.advance(2, never))?.events.map(({ key }) => key)).toEqual(["writer"]);
});
