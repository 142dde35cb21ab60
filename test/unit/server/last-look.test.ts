import { expect, test } from "vitest";
import { createLastLook } from "../../../src/server/last-look.ts";

test("what was seen is told until it is too old, and again after the next look", () => {
  let nowMs = 5;
  const look = createLastLook<string>(60_000, { monotonic: () => nowMs });
  expect(look.current()).toBeUndefined();
  look.saw("12 MB");
  nowMs += 60_000;
  expect(look.current()).toBe("12 MB");
  nowMs += 1;
  expect(look.current()).toBeUndefined();
  look.saw("13 MB");
  expect(look.current()).toBe("13 MB");
});
