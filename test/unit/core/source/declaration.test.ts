import { describe, expect, it } from "vitest";
import { stepTowards } from "../../../../src/core/source/declaration.ts";
import type { Source } from "../../../../src/core/source/sources.ts";
import { isSameTable, parseTableName } from "../../../../src/core/source/table-name.ts";

describe("a table's name", () => {
  it.each([
    ["public.orders", "public", "orders"],
    ["Public.ORDERS", "public", "orders"],
    ['shop."Order Items"', "shop", "Order Items"],
    ['"a""b"."c.d"', 'a"b', "c.d"],
    ["größe.maß", "größe", "maß"],
  ])("%s is taken apart as SQL does", (text, schema, table) => {
    expect(parseTableName(text)).toEqual({ schema, table });
  });

  it.each(["orders", "a.b.c", "a.", ".b", 'a."b', "a b.c", "a.b; drop table c", ""])(
    "%j is none with a schema",
    (text) => {
      expect(parseTableName(text)).toBeUndefined();
    },
  );

  it("is the same however it is written", () => {
    expect(isSameTable('"public".orders', "PUBLIC.Orders")).toBe(true);
    expect(isSameTable('public."Orders"', "public.orders")).toBe(false);
  });
});

const watched: Source = {
  table: "public.orders",
  watchedAs: "public.orders",
  topic: "shop.{region}",
  keyColumns: ["region", "id"],
  includedColumns: undefined,
  excludedColumns: ["secret"],
  beforeValues: true,
  captureTruncate: true,
  capture: "trigger",
  polling: undefined,
  createdAt: new Date(0),
  state: "OK",
  problems: [],
};
const polled: Source = {
  ...watched,
  capture: "poll",
  polling: { column: "updated_at", deletedColumn: null, everyMs: 1000, overlapMs: 60_000 },
};
const table = "public.orders";

describe("a declaration", () => {
  it.each([
    ["nothing", {}],
    ["its topic", { topic: "shop.{region}" }],
    ["its key", { keyColumns: ["region", "id"] }],
    ["its excluded columns", { exclude: ["secret"] }],
    ["all that is so", { beforeValues: true, captureTruncate: true, capture: "trigger" }],
  ] as const)("that says %s of a source that is so asks for nothing", (_what, settings) => {
    expect(stepTowards({ table, settings }, [watched])).toBeUndefined();
  });

  it.each([
    ["another topic", { topic: "shop" }],
    ["another order of key columns", { keyColumns: ["id", "region"] }],
    ["more excluded columns", { exclude: ["secret", "note"] }],
    ["no excluded columns", { exclude: [] }],
    ["included columns where there are none", { include: ["id"] }],
    ["no old rows", { beforeValues: false }],
    ["another order", { capture: "strict" }],
    ["polling", { polling: { column: "updated_at" } }],
  ] as const)("that says %s asks to watch with exactly that", (_what, settings) => {
    expect(stepTowards({ table, settings }, [watched])).toEqual({ kind: "watch", request: { table, ...settings } });
  });

  it("knows included columns whatever their order, beside those of key and topic", () => {
    const source = { ...watched, excludedColumns: [], includedColumns: ["id", "note", "region"] };
    expect(stepTowards({ table, settings: { include: ["note"] } }, [source])).toBeUndefined();
    expect(stepTowards({ table, settings: { include: ["note", "total"] } }, [source])?.kind).toBe("watch");
    expect(
      stepTowards({ table, settings: { include: ["note", "total"], exclude: ["total"] } }, [source]),
    ).toBeUndefined();
  });

  it("of polling compares what is polled, defaults included", () => {
    const step = (polling: object) =>
      stepTowards({ table, settings: { polling: { column: "updated_at", ...polling } } }, [polled])?.kind;
    expect(step({})).toBeUndefined();
    expect(step({ everyMs: 1000, overlapMs: 60_000 })).toBeUndefined();
    expect(step({ everyMs: 500 })).toBe("watch");
    expect(step({ deletedColumn: "gone" })).toBe("watch");
    expect(stepTowards({ table, settings: {} }, [polled])?.kind).toBe("watch");
  });

  it("of a table that is not watched, or whose capture is off, asks to watch it", () => {
    const request = { table, topic: "shop.{region}" };
    const settings = { topic: "shop.{region}" };
    expect(stepTowards({ table, settings }, [])).toEqual({ kind: "watch", request });
    expect(stepTowards({ table, settings }, [{ ...watched, state: "OFF" }])).toEqual({ kind: "watch", request });
    expect(stepTowards({ table, settings }, [{ ...watched, table: undefined }])).toEqual({ kind: "watch", request });
  });

  it("as false asks to end what is watched, and nothing where nothing is", () => {
    expect(stepTowards({ table, settings: undefined }, [watched])).toEqual({ kind: "unwatch", table });
    expect(stepTowards({ table, settings: undefined }, [])).toBeUndefined();
  });
});
