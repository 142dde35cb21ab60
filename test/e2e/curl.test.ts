import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { run } from "./process.ts";
import { openShop, type Shop } from "./shop.ts";

let shop: Shop;
beforeAll(async () => {
  shop = await openShop();
  await shop.order("1.10", "2.20");
});
afterAll(() => shop[Symbol.asyncDispose]());

const procedure = (name: string): string => `${shop.url}/millrace.v1.FeedService/${name}`;

/** Messages of a Connect stream: a byte of flags, four of length, JSON. The last, with flag 2, ends the stream. */
function messagesOf(bytes: Buffer): { readonly flags: number; readonly json: Record<string, unknown> }[] {
  const messages = [];
  for (let at = 0; at + 5 <= bytes.length; ) {
    const end = at + 5 + bytes.readUInt32BE(at + 1);
    if (end > bytes.length) break;
    messages.push({ flags: bytes[at] ?? 0, json: JSON.parse(bytes.toString("utf8", at + 5, end)) });
    at = end;
  }
  return messages;
}

describe.each(["--http1.1", "--http2-prior-knowledge"])("curl %s", (version) => {
  const curl = (...args: string[]) => ["--silent", "--show-error", version, ...args];
  const json = ["-H", "content-type: application/json"];

  it("calls a unary method with a line of JSON", async () => {
    const { stdout } = await run("curl", curl(...json, "-d", "{}", procedure("GetStatus")));
    expect(JSON.parse(stdout.toString())).toMatchObject({ state: "FEED_STATE_LIVE", headVersion: "2" });
  });

  it("calls it by GET, as a cache or a browser's address bar does", async () => {
    const { stdout } = await run("curl", curl("-g", `${procedure("GetStatus")}?encoding=json&message={}`));
    expect(JSON.parse(stdout.toString())).toMatchObject({ state: "FEED_STATE_LIVE" });
  });

  it("gets errors as JSON, with the field path", async () => {
    const { stdout } = await run(
      "curl",
      curl("-w", "\n%{http_code}", ...json, "-d", '{"events":[{"topic":"a b"}]}', procedure("Publish")),
    );
    const [body, status] = stdout.toString().split("\n");
    expect(status).toBe("400");
    expect(JSON.parse(body ?? "").details[0].debug.violations[0].field).toBe("events[0].topic");
  });

  it.each([
    ["Subscribe", json, 415, "application/connect+json"],
    ["GetStatus", [], 415, "application/json"],
    ["Publish", ["-X", "PUT"], 405, "Use POST"],
  ])("is told in a line what %s wants instead", async (name, wrong, code, hint) => {
    const { stdout } = await run("curl", curl("-w", "%{http_code}", ...wrong, "-d", "{}", procedure(name)));
    expect(stdout.toString()).toContain(hint);
    expect(stdout.toString()).toMatch(new RegExp(`\n${code}$`));
  });

  it("streams, with the request in an envelope", async () => {
    const message = '{"oldest":{}}';
    const octal = [0, 0, 0, 0, message.length].map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");
    const { stdout } = await run(
      "bash",
      [
        "-c",
        `printf '${octal}${message}' | exec curl --silent --no-buffer ${version} -H 'content-type: application/connect+json' --data-binary @- ${procedure("Subscribe")}`,
      ],
      (seen) => messagesOf(seen).some(({ json: { events } }) => events !== undefined),
    );
    const messages = messagesOf(stdout);
    expect(messages.map(({ flags, json: frame }) => [flags, Object.keys(frame)[0]]).slice(0, 2)).toEqual([
      [0, "opened"],
      [0, "events"],
    ]);
    expect(messages[1]?.json).toMatchObject({
      events: {
        events: [
          { version: "1", key: "1" },
          { version: "2", key: "2" },
        ],
        complete: true,
      },
    });
  });

  it("reads lines of JSON, or messages, as they come, with nothing but a URL", async () => {
    const url = `${shop.url}/v1/events?topic=orders&from=oldest`;
    const lines = await run("curl", curl("-N", `${url}&format=ndjson`), (seen) => seen.includes('"version":2,'));
    const [opened, ...events] = lines.stdout
      .toString()
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(opened).toMatchObject({ frame: "opened", version: 0 });
    expect(events.slice(0, 2)).toMatchObject([
      { version: 1, after: { id: 1 } },
      { version: 2, complete: true },
    ]);
    const messages = await run("curl", curl("-N", url), (seen) => seen.includes('"version":2,'));
    expect(messages.stdout.toString()).toMatch(
      /^retry: \d+\n\nid: \S+\nevent: opened\ndata: \{.*\}\n\nid: \S+\nevent: change\n/,
    );
  });

  it("ends with `closing` and an empty error when it named a timeout", async () => {
    const { code, stdout } = await run("bash", [
      "-c",
      `printf '\\000\\000\\000\\000\\002{}' | exec curl --silent ${version} -H 'content-type: application/connect+json' -H 'connect-timeout-ms: 2000' --data-binary @- ${procedure("Subscribe")}`,
    ]);
    expect(code).toBe(0);
    const messages = messagesOf(stdout);
    expect(messages.at(-2)?.json).toMatchObject({ closing: { reason: "CLOSING_REASON_DEADLINE" } });
    expect(messages.at(-1)).toEqual({ flags: 2, json: {} });
  });
});
