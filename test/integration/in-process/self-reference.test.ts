import { expect, test } from "vitest";

test("programs import the package by its name", async () => {
  const name = "millrace";
  expect(Object.keys(await import(name))).toEqual(
    expect.arrayContaining([
      "ChangeFeed",
      "FeedError",
      "createMemoryStore",
      "encodeCursor",
      "openFeed",
      "openMemoryFeed",
    ]),
  );
});
