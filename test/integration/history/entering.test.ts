import { expect, test } from "vitest";
import { pageEnd } from "../../../src/core/page.ts";
import { commit, keysOf, never, openStage, readAll, type Stage, takeXid, tick, write } from "../ordering/stage.ts";

/** Small ticks whose rows lie among one another, by transactions that hold early seqs and commit late. */
async function writeInterleaved(stage: Stage, ticks: number): Promise<void> {
  const session = await stage.session();
  const late = await stage.session();
  for (let round = 0; round < ticks; round += 1) {
    await late.query("begin");
    await takeXid(late);
    await write(late, `${round} late 1`);
    await commit(session, `${round} a`, `${round} b`);
    await write(late, `${round} late 2`);
    await tick(session);
    await commit(session, `${round} c`, `${round} d`, `${round} e`);
    await late.query("commit");
    await tick(session);
  }
}

test("G3 G8 a page that is entered in the middle of a tick goes on beyond it", async () => {
  await using stage = await openStage();
  await writeInterleaved(stage, 6);
  const store = await stage.store();
  const all = await readAll(store);
  expect(all).toHaveLength(42);
  for (let after = 0; after < all.length; after += 1) {
    const page = await store.readAfter(after, never);
    expect(page?.firstVersion, `after ${after}`).toBe(after + 1);
    expect(keysOf(page?.events ?? []), `after ${after}`).toEqual(keysOf(all).slice(after));
    expect(page?.ticks.length, `after ${after}`).toBe(new Set(page?.ticks.map(({ tick }) => tick)).size);
    expect(page?.ticks.at(0)?.firstVersion).toBeLessThanOrEqual(after + 1);
  }
});

test.each([1, 2, 3, 4, 5, 7, 9, 20])("G3 pages of %d rows from every version on tell one history", async (maxRows) => {
  await using stage = await openStage();
  await writeInterleaved(stage, 4);
  const expected = keysOf(await readAll(await stage.store()));
  const store = await stage.store({ pages: { maxRows } });
  for (let after = 0; after < expected.length; after += 1) {
    expect(keysOf(await readAll(store, after)), `after ${after}`).toEqual(expected.slice(after));
  }
});

test("G3 pages that are cut by their bytes within a tick that was entered in the middle tell one history", async () => {
  await using stage = await openStage();
  const session = await stage.session();
  const late = await stage.session();
  const insert = (client: typeof session, key: string, length: number) =>
    client.query(
      "insert into millrace.outbox (topic, key, operation, after) values ('t', $1, 'M', to_json(repeat('x', $2)))",
      [key, length],
    );
  await late.query("begin");
  for (let i = 0; i < 6; i += 1) {
    await insert(late, `late ${i}`, i % 2 === 0 ? 60_000 : 10);
    await insert(session, `${i}`, i % 3 === 0 ? 40_000 : 10);
  }
  await tick(session);
  await late.query("commit");
  await tick(session);
  const expected = keysOf(await readAll(await stage.store()));
  expect(expected).toHaveLength(12);
  for (let after = 0; after < 12; after += 1) {
    // A store of its own each time: sizes and places are learnt.
    const store = await stage.store({ historyConnections: 1, pages: { maxBytes: 100_000 } });
    expect(keysOf(await readAll(store, after)), `after ${after}`).toEqual(expected.slice(after));
    const again = await store.readAfter(after, never);
    expect(again && pageEnd(again)).toBeGreaterThan(after);
    await store.stop();
  }
});

test("G1 a row that went missing before a page's beginning, in its first tick, is an error all the same", async () => {
  await using stage = await openStage();
  const session = await stage.session();
  await commit(session, "a", "b", "c");
  await tick(session);
  await session.query("delete from millrace.outbox where key = 'a'");
  const store = await stage.store();
  await expect(store.readAfter(1, never)).rejects.toMatchObject({ code: "INTERNAL" });
});
