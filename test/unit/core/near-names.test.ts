import { describe, expect, it } from "vitest";
import { nearNames } from "../../../src/core/near-names.ts";

const tables = ["public.orders", "public.order_items", "shop.customers", "public.a"];

describe("near names", () => {
  it.each([
    { text: "order", near: ["public.orders"] },
    { text: "ordres", near: ["public.orders"] },
    { text: "public.ordesr", near: ["public.orders"] },
    { text: "Custmers", near: ["shop.customers"] },
    { text: "invoices", near: [] },
  ])("of $text", ({ text, near }) => {
    expect(nearNames(text, tables)).toEqual(near);
  });

  it("are at most three, the nearest first", () => {
    expect(nearNames("abcd", ["abxx", "abcd1", "abc", "abce", "zzzz"])).toEqual(["abc", "abcd1", "abce"]);
  });
});
