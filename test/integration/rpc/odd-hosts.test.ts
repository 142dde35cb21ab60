import { once } from "node:events";
import { connect as connectHttp2, constants } from "node:http2";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { describe, expect, it } from "vitest";
import { createScriptedFeed } from "./scripted-feed.ts";
import { serve } from "./served.ts";

const path = "/millrace.v1.FeedService/GetStatus";
const oddHosts = ["a b", "[", "a:99999", "", "x%00y", "a/b?c#d", "\u00ff\u00fe", "[::1", "user:@", ":7400"];

describe("a call that names a host which is none", () => {
  it.each(oddHosts)("is answered like every other over HTTP/1.1, and nobody else suffers: %j", async (host) => {
    await using served = await serve(createScriptedFeed({}));
    const socket = connect(served.port, "127.0.0.1");
    const head = ["content-type: application/json", "content-length: 2", "connection: close"].join("\r\n");
    socket.write(`POST ${path} HTTP/1.1\r\nhost: ${host}\r\n${head}\r\n\r\n{}`, "latin1");
    expect(await text(socket)).toMatch(/^HTTP\/1\.1 200 /);
  });

  // Others are refused by the protocol itself.
  it.each(["[", "a:99999", "x%00y", "[::1", ":7400"])("is so over HTTP/2: %j", async (host) => {
    await using served = await serve(createScriptedFeed({}));
    const session = connectHttp2(served.url);
    try {
      for (const name of [":authority", "host"]) {
        const call = session.request({
          ":method": "POST",
          ":path": path,
          "content-type": "application/json",
          [name]: host,
        });
        call.end("{}");
        const [answer] = await once(call, "response");
        expect(answer[constants.HTTP2_HEADER_STATUS]).toBe(200);
        call.resume();
      }
    } finally {
      session.destroy();
    }
  });
});
