import { once } from "node:events";
import { connect, constants } from "node:http2";
import { describe, expect, it } from "vitest";
import { freshDatabase } from "../../support/cluster.ts";
import { startServerProcess } from "../../support/server-process.ts";

const PATH = "/millrace.v1.FeedService/Subscribe";
/** An empty request in its envelope: a stream of everything from now on. */
const EVERYTHING = Buffer.alloc(5);

describe.each(["mux", "hand-off", "stock"])("a client that resets its calls, delivery %s", (mode) => {
  it("G9 ends no server, whenever it does so and whatever code it gives", async () => {
    await using server = await startServerProcess({ databaseUrl: await freshDatabase(), delivery: mode });
    const session = connect(`http://127.0.0.1:${server.port}`);
    session.on("error", () => undefined);
    const headers = { ":method": "POST", ":path": PATH, "content-type": "application/grpc" };
    for (const code of [constants.NGHTTP2_INTERNAL_ERROR, constants.NGHTTP2_CANCEL, constants.NGHTTP2_PROTOCOL_ERROR]) {
      for (const moment of ["at once", "half sent", "sent", "opened"]) {
        const call = session.request(headers);
        call.on("error", () => undefined);
        const closed = new Promise((resolve) => call.once("close", resolve));
        if (moment === "half sent") call.write(EVERYTHING.subarray(0, 3));
        if (moment === "sent" || moment === "opened") call.end(EVERYTHING);
        if (moment === "opened") await once(call, "data");
        call.close(code);
        await closed;
      }
    }
    const last = session.request(headers);
    last.end(EVERYTHING);
    const [frame] = await once(last, "data");
    expect(frame.length).toBeGreaterThan(5);
    session.destroy();
  });
});
