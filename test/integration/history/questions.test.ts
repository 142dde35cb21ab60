import { expect, test } from "vitest";
import { tickEnd } from "../../../src/core/page.ts";
import { commit, never, openStage, readAll, tick } from "../ordering/stage.ts";

test("G8 the ticks of many versions, asked for at once, are those of each", async () => {
  await using stage = await openStage();
  const session = await stage.session();
  for (let round = 0; round < 30; round += 1) {
    await commit(session, ...Array.from({ length: 1 + (round % 4) }, (_, i) => `${round} ${i}`));
    await tick(session);
  }
  const store = await stage.store();
  const head = (await readAll(store)).length;
  const asked = await Promise.all(Array.from({ length: head + 2 }, (_, version) => store.tickOf(version, never)));
  expect(asked[0]?.tick).toBe(0);
  expect(asked[head + 1]).toBeUndefined();
  for (let version = 1; version <= head; version += 1) {
    const holds = asked[version];
    expect(holds?.firstVersion).toBeLessThanOrEqual(version);
    expect(holds && tickEnd(holds)).toBeGreaterThanOrEqual(version);
    expect(await store.tickOf(version, never)).toEqual(holds);
  }
  const bounds = await Promise.all(Array.from({ length: 50 }, () => store.bounds(never)));
  expect(new Set(bounds.map(({ oldest, head: last }) => `${oldest}-${last}`))).toEqual(new Set([`1-${head}`]));
});

test("an epoch that is over is told, also where no tick is found", async () => {
  await using stage = await openStage();
  const session = await stage.session();
  await commit(session, "a");
  await tick(session);
  const store = await stage.store();
  expect(await store.tickOf(99, never)).toBeUndefined();
  await session.query("update millrace.epoch set timeline = 99");
  await expect(store.tickOf(99, never)).rejects.toMatchObject({ name: "EpochOver" });
  await expect(store.bounds(never)).rejects.toMatchObject({ name: "EpochOver" });
});
