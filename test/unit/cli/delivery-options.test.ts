import { describe, expect, it } from "vitest";
import { PolicyKind } from "../../../gen/millrace/v1/feed_service_pb.js";
import { deliveryFromOptions, parsePolicy } from "../../../src/cli/tail/delivery-options.ts";

describe("--policy", () => {
  it.each([
    ["block", PolicyKind.BLOCK, 0],
    ["drop-oldest", PolicyKind.DROP_OLDEST, 0],
    ["DROP-NEWEST", PolicyKind.DROP_NEWEST, 0],
    ["latest", PolicyKind.LATEST, 0],
    ["sample", PolicyKind.SAMPLE, 0],
    ["sample:2", PolicyKind.SAMPLE, 2],
    ["disconnect", PolicyKind.DISCONNECT, 0],
  ])("reads %s", (text, kind, sampleEvery) => {
    expect(parsePolicy(text)).toMatchObject({ kind, sampleEvery });
  });

  it.each(["", "drop", "latest:3", "sample:1", "sample:", "sample:x", "sample:4294967296"])("refuses `%s`", (text) => {
    expect(() => parsePolicy(text)).toThrow(/is no policy/);
  });
});

describe("delivery", () => {
  it("is asked for only where there is something to ask for", () => {
    expect(deliveryFromOptions({})).toBeUndefined();
    expect(deliveryFromOptions({ rate: 5 })).toMatchObject({ maxEventsPerSecond: 5 });
    const delivery = deliveryFromOptions({ policy: parsePolicy("latest"), maxLag: 7 });
    expect(delivery).toMatchObject({ policy: { kind: PolicyKind.LATEST, maxLagEvents: 7n } });
    expect(() => deliveryFromOptions({ maxLag: 7 })).toThrow(/without --policy/);
  });
});
