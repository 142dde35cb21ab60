// What one would write by hand: a set of responses, and a loop over them. Keeps no history, knows no cursor, and asks no
// client whether it keeps up.
import { createServer, type ServerResponse } from "node:http";
import { childOptions, ready } from "../child.ts";
import { payload } from "../message.ts";

const { burst } = childOptions();
const responses = new Set<ServerResponse>();
let version = 0;
const server = createServer((_request, response) => {
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  response.write("event: opened\ndata: {}\n\n");
  responses.add(response);
  response.once("close", () => responses.delete(response));
});
server.listen(0, "127.0.0.1", () => {
  const address = server.address();
  void ready(typeof address === "object" && address !== null ? address.port : 0, publish, burst);
});

function publish(count: number, stampNs: bigint): void {
  const json = payload(stampNs);
  for (let i = 0; i < count; i += 1) {
    version += 1;
    const data = `{"version":${version},"topic":"bench","key":"k","operation":"MESSAGE","after":${json},"transaction":"1"}`;
    const text = `id: ${"x".repeat(40)}\nevent: change\ndata: ${data}\n\n`;
    for (const response of responses) response.write(text);
  }
}
