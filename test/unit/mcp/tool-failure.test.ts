import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { ErrorCode, ErrorDetailSchema } from "../../../gen/millrace/v1/error_pb.js";
import { positionFrom } from "../../../src/mcp/position.ts";
import { failureText, toolFailureFrom } from "../../../src/mcp/tool-failure.ts";

const told = (error: unknown): string => failureText(toolFailureFrom(error));

describe("toolFailureFrom", () => {
  it("says code, sentence, action and whatever else lets a model go on", () => {
    const value = create(ErrorDetailSchema, {
      code: ErrorCode.HISTORY_LOST,
      action: "Start from the oldest.",
      oldestVersion: 40n,
      headVersion: 90n,
      retryAfter: durationFromMs(1_500),
    });
    const details = [{ desc: ErrorDetailSchema, value }];
    expect(
      told(new ConnectError("Version 3 is gone. Start from the oldest.", Code.OutOfRange, undefined, details)),
    ).toBe(
      [
        "HISTORY_LOST: Version 3 is gone. Start from the oldest.",
        "The oldest version still readable: 40.",
        "The last version: 90.",
        "Try again after 1.5 s.",
        "With these tools: `unsubscribe`, then `subscribe_changes` again, from `oldest` or `now`.",
      ].join("\n"),
    );
  });

  it("names fields as the tools' arguments do, and the place in a filter", () => {
    const value = create(ErrorDetailSchema, {
      code: ErrorCode.FILTER_INVALID,
      violations: [
        { field: "selectors[0].filter", message: "cannot be read" },
        { field: "max_events", message: "is too large" },
        { field: "", message: "has no start" },
      ],
      filterPosition: { selector: 0, line: 2, column: 7 },
    });
    const details = [{ desc: ErrorDetailSchema, value }];
    expect(told(new ConnectError("Wrong.", Code.InvalidArgument, undefined, details)).split("\n")).toEqual([
      "FILTER_INVALID: Wrong.",
      "`batch_size`: is too large",
      "The request as a whole: has no start",
      "The mistake is at line 2, column 7 of `filter`.",
    ]);
  });

  it("takes a server that is not there for what it is", () => {
    expect(told(new ConnectError("connect ECONNREFUSED 127.0.0.1:7400", Code.Unavailable))).toMatch(
      /^SERVER_UNREACHABLE: No answer from the Millrace server: connect ECONNREFUSED 127.0.0.1:7400\. Nothing is lost/,
    );
    expect(told(new ConnectError("late", Code.DeadlineExceeded))).toContain("did not answer in time");
  });
});

describe("positionFrom", () => {
  it("reads keywords, versions and times, and takes everything else for a cursor", () => {
    expect(positionFrom("now").case).toBe("now");
    expect(positionFrom("oldest").case).toBe("oldest");
    expect(positionFrom("version:41")).toEqual({ case: "afterVersion", value: 41n });
    expect(positionFrom("time:2026-01-31T08:30:00Z")).toMatchObject({
      case: "atTime",
      value: { seconds: 1769848200n },
    });
    expect(positionFrom("AbC-_")).toEqual({ case: "afterCursor", value: "AbC-_" });
    expect(() => positionFrom("version:x")).toThrow("names no version");
    expect(() => positionFrom("snapshot")).toThrow("cannot be `snapshot`");
    expect(() => positionFrom("time:soon")).toThrow("names no time");
  });
});
