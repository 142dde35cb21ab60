import { once } from "node:events";
import { createServer, get, type IncomingMessage } from "node:http";
import { connect as connectHttp2, createServer as createHttp2Server } from "node:http2";
import type { AddressInfo, Server } from "node:net";
import { afterEach, expect, it } from "vitest";
import { sendWebResponse } from "../../../src/mcp/web-exchange.ts";
import type { RpcHandler } from "../../../src/rpc/node-call.ts";
import { eventually } from "../../support/deadline.ts";

const open: Server[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((server) => new Promise((resolve) => server.close(resolve))));
});

async function listening(server: Server): Promise<string> {
  open.push(server.listen(0, "127.0.0.1"));
  await once(server, "listening");
  const { port }: AddressInfo = Object(server.address());
  return `http://127.0.0.1:${port}`;
}

const CHUNKS = 400;
const chunk = new Uint8Array(65_536).fill(7);

/** Counts what was taken of a body that is far larger than any buffer on the way. */
function largeBody(): { readonly body: ReadableStream<Uint8Array>; taken: () => number; cancelled: () => boolean } {
  let taken = 0;
  let cancelled = false;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      taken += 1;
      controller.enqueue(chunk);
      if (taken === CHUNKS) controller.close();
    },
    cancel() {
      cancelled = true;
    },
  });
  return { body, taken: () => taken, cancelled: () => cancelled };
}

it.each(["HTTP/1.1", "HTTP/2"])("sends no faster than it is taken, and all of it (%s)", async (version) => {
  const large = largeBody();
  const handler: RpcHandler = (_request, response) => void sendWebResponse(new Response(large.body), response);
  const url = await listening(version === "HTTP/2" ? createHttp2Server(handler) : createServer(handler));
  const session = version === "HTTP/2" ? connectHttp2(url) : undefined;
  const answer = session === undefined ? (await once(get(url), "response"))[0] : session.request({ ":path": "/" });
  await once(answer, "readable");
  expect(large.taken()).toBeLessThan(CHUNKS);
  let bytes = 0;
  for await (const part of answer) bytes += part.length;
  expect(bytes).toBe(CHUNKS * chunk.length);
  session?.close();
});

it("stops making what nobody takes any more", async () => {
  const large = largeBody();
  const url = await listening(
    createServer((_request, response) => void sendWebResponse(new Response(large.body), response)),
  );
  const [answer]: [IncomingMessage] = Object(await once(get(url), "response"));
  await once(answer, "readable");
  answer.destroy();
  await eventually(async () => large.cancelled());
  expect(large.taken()).toBeLessThan(CHUNKS);
});
