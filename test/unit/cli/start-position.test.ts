import { describe, expect, it } from "vitest";
import { Failure } from "../../../src/cli/failure.ts";
import { parseStartPosition } from "../../../src/cli/tail/start-position.ts";

describe("--from", () => {
  it("names a place or a cursor", () => {
    expect(parseStartPosition("now").case).toBe("now");
    expect(parseStartPosition("oldest").case).toBe("oldest");
    expect(parseStartPosition("snapshot").case).toBe("snapshot");
    expect(parseStartPosition("version:41")).toEqual({ case: "afterVersion", value: 41n });
    expect(parseStartPosition("time:2026-01-31T08:30:00Z")).toMatchObject({
      case: "atTime",
      value: { seconds: 1_769_848_200n },
    });
    expect(parseStartPosition("AQApEy61")).toEqual({ case: "afterCursor", value: "AQApEy61" });
  });

  it.each(["version:", "version:-1", "version:1.5", "time:noon", "time:2026-13-40", " "])("refuses `%s`", (text) => {
    expect(() => parseStartPosition(text)).toThrow(Failure);
  });
});
