import { ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { ErrorDetailSchema } from "../../../gen/millrace/v1/error_pb.js";
import { FeedError } from "../../../src/core/errors.ts";
import { connectErrorFrom } from "../../../src/rpc/errors.ts";

describe("retry_after", () => {
  it("can be written whatever fraction of a millisecond was left of a lease", () => {
    const busy = new FeedError("SUBSCRIPTION_BUSY", "Held.", "Try again.", { retryAfterMs: 9_202.992919921875 });
    const error = connectErrorFrom(busy, "Poll", undefined, { error: () => undefined });
    const [detail] = ConnectError.from(error).findDetails(ErrorDetailSchema);
    expect(detail?.retryAfter).toMatchObject({ seconds: 9n, nanos: 203_000_000 });
  });
});
