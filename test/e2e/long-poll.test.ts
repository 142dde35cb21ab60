import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buf, run } from "./process.ts";
import { openShop, type Shop } from "./shop.ts";

let shop: Shop;
beforeAll(async () => {
  shop = await openShop();
  await shop.order("1.10", "2.20", "3.30");
});
afterAll(() => shop[Symbol.asyncDispose]());

const procedure = (): string => `${shop.url}/millrace.v1.FeedService/Poll`;

interface Answer {
  readonly events?: readonly { readonly key: string }[];
  readonly cursor: string;
  readonly hasMore?: boolean;
}

const keys = ({ events = [] }: Answer) => events.map(({ key }) => key);

describe.each(["--http1.1", "--http2-prior-knowledge"])("curl %s", (version) => {
  const curl = (...args: string[]) => run("curl", ["--silent", "--show-error", version, ...args]);
  const poll = async (request: object): Promise<Answer> => {
    const { stdout } = await curl("-H", "content-type: application/json", "-d", JSON.stringify(request), procedure());
    return JSON.parse(stdout.toString());
  };

  it("polls page by page, as the docs have it, and waits for no more than it says", async () => {
    const selectors = [{ topics: ["orders"] }];
    const first = await poll({ oldest: {}, selectors, maxEvents: 2 });
    expect(keys(first)).toEqual(["1", "2"]);
    expect(first.hasMore).toBe(true);
    const second = await poll({ afterCursor: first.cursor, selectors, timeout: "30s" });
    expect(keys(second)).toEqual(["3"]);
    const none = await poll({ afterCursor: second.cursor, selectors, timeout: "0.2s" });
    expect(none).toMatchObject({ cursor: second.cursor });
    expect(keys(none)).toEqual([]);
  });

  it("gets a page that stays by GET, and is spared it the second time", async () => {
    const { cursor } = await poll({ oldest: {}, maxEvents: 1 });
    const get = async (...more: string[]) => {
      const message = `message=${JSON.stringify({ afterCursor: cursor, maxEvents: 1 })}`;
      const { stdout } = await curl("-iG", procedure(), "-d", "encoding=json", "--data-urlencode", message, ...more);
      return stdout.toString();
    };
    const answer = await get();
    expect(answer).toMatch(/^HTTP\/\S+ 200/);
    expect(answer.toLowerCase()).toContain("cache-control: public, max-age=31536000, immutable");
    const tag = /^etag: (\S+)\r$/im.exec(answer)?.[1] ?? "";
    expect(await get("-H", `if-none-match: ${tag}`)).toMatch(/^HTTP\/\S+ 304/);
  });
});

describe.each(["grpc", "grpcweb", "connect"])("buf curl --protocol %s", (protocol) => {
  it("polls with nothing but the URL", async () => {
    const args = ["curl", "--http2-prior-knowledge", "--protocol", protocol, "--reflect", procedure()];
    const { code, stdout } = await run(buf, [...args, "-d", '{"oldest":{}}']);
    expect(code).toBe(0);
    expect(keys(JSON.parse(stdout.toString()))).toEqual(["1", "2", "3"]);
  });
});
