import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type BodyServer, startBodyServer } from "../../support/h2/body-server.ts";
import { connectFrames, type FrameClient } from "../../support/h2/frame-client.ts";
import { request, rstStream, settings, windowUpdate } from "../../support/h2/frames.ts";

/** More: `MUX_FUZZ_RUNS=10000 npx vitest run test/integration/mux/tight-windows.test.ts`. */
const runs = Number(process.env.MUX_FUZZ_RUNS ?? 150);
const seed = Number(process.env.MUX_FUZZ_SEED ?? 20_260_419);

type Act =
  | { readonly do: "open"; readonly how: "handed" | "unary"; readonly sizes: readonly number[] }
  /** Gives back a share of what was used, of a stream's window or, for -1, of the connection's. */
  | { readonly do: "acknowledge"; readonly stream: number; readonly share: number }
  | { readonly do: "windows"; readonly size: number }
  | { readonly do: "reset"; readonly stream: number }
  | { readonly do: "settle" };

const STREAMS_MAX = 12;
const size = fc.oneof(fc.nat({ max: 300 }), fc.nat({ max: 20_000 }), fc.constant(70_000));
const acts = fc.array(
  fc.oneof<fc.WeightedArbitrary<Act>[]>(
    {
      weight: 5,
      arbitrary: fc.record({
        do: fc.constant("open" as const),
        how: fc.constantFrom("handed" as const, "handed" as const, "unary" as const),
        sizes: fc.array(size, { maxLength: 5 }),
      }),
    },
    {
      weight: 6,
      arbitrary: fc.record({
        do: fc.constant("acknowledge" as const),
        stream: fc.integer({ min: -1, max: STREAMS_MAX - 1 }),
        share: fc.constantFrom(0.01, 0.5, 1),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        do: fc.constant("windows" as const),
        size: fc.constantFrom(0, 1, 500, 4_096, 65_535, 1 << 20, 1 << 30),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ do: fc.constant("reset" as const), stream: fc.nat({ max: STREAMS_MAX - 1 }) }),
    },
    { weight: 4, arbitrary: fc.record({ do: fc.constant("settle" as const) }) },
  ),
  { maxLength: 40 },
);
const story = fc.record({ acts, streamWindow: fc.constantFrom(0, 1, 100, 4_096, 65_535, 1 << 20) });
type Story = typeof story extends fc.Arbitrary<infer T> ? T : never;

/** Stories that once had no end. */
const once: readonly Story[] = [
  {
    // Settings took the window from a stream that was to end, or that carried placeholder bytes.
    acts: [
      { do: "open", how: "unary", sizes: [1, 70_000] },
      { do: "open", how: "handed", sizes: [1] },
      { do: "settle" },
    ],
    streamWindow: 65_535,
  },
];

const piece = (bytes: number, index: number) => Buffer.alloc(bytes, 97 + (index % 26));
const bodyOf = (sizes: readonly number[]) => Buffer.concat(sizes.map(piece));

function startScripted(chop: number | undefined): Promise<BodyServer> {
  const server = startBodyServer({
    ...(chop === undefined ? {} : { chop }),
    answer(received, response) {
      received.resume();
      const sizes = (received.url.split("/")[2] ?? "").split(",").filter(Boolean).map(Number);
      if (received.url.startsWith("/handed")) {
        setImmediate(async () => {
          const body = (await server).bodies.findLast((each) => each.request === received);
          for (const [index, each] of sizes.entries()) body?.sink.write(piece(each, index));
          body?.sink.end(undefined, [["x-end", "yes"]]);
        });
        return false;
      }
      response.writeHead(200);
      for (const [index, each] of sizes.entries()) response.write(piece(each, index));
      response.addTrailers({ "x-end": "yes" });
      response.end();
      return true;
    },
  });
  return server;
}

/** A reader that gives window back as it likes, and no more than it was given bytes. */
class Reader {
  readonly streams: { readonly id: number; readonly sizes: readonly number[]; reset: boolean }[] = [];
  readonly #client: FrameClient;
  readonly #returned = new Map<number, number>();

  constructor(client: FrameClient) {
    this.#client = client;
  }

  open(how: string, sizes: readonly number[]): void {
    if (this.streams.length === STREAMS_MAX) return;
    const id = 1 + 2 * this.streams.length;
    this.streams.push({ id, sizes, reset: false });
    this.#client.send(request(id, `/${how}/${sizes.join(",")}`));
  }

  reset(index: number): void {
    const stream = this.streams[index];
    if (stream === undefined || this.#client.stream(stream.id).ended) return;
    stream.reset = true;
    this.#client.send(rstStream(stream.id, 8));
  }

  acknowledge(id: number, share: number): void {
    const before = this.#returned.get(id) ?? 0;
    const owed = this.#used(id) - before;
    const increment = Math.ceil(owed * share);
    if (increment <= 0 || (id !== 0 && this.#client.stream(id).ended)) return;
    this.#returned.set(id, before + increment);
    this.#client.send(windowUpdate(id, increment));
  }

  get done(): boolean {
    return this.streams.every(({ id, reset }) => reset || this.#client.stream(id).ended);
  }

  #used(id: number): number {
    if (id !== 0) return this.#client.stream(id).length;
    let sum = 0;
    for (const { length } of this.#client.streams.values()) sum += length;
    return sum;
  }
}

async function play(server: BodyServer, { acts: all, streamWindow }: Story): Promise<void> {
  await using client = await connectFrames(server.port, { streamWindow });
  const reader = new Reader(client);
  for (const act of all) {
    if (act.do === "open") reader.open(act.how, act.sizes);
    else if (act.do === "acknowledge") reader.acknowledge(act.stream === -1 ? 0 : 1 + 2 * act.stream, act.share);
    else if (act.do === "windows") client.send(settings({ initialWindowSize: act.size }));
    else if (act.do === "reset") reader.reset(act.stream);
    else await client.settled();
  }
  client.send(settings({ initialWindowSize: 40_000 }));
  // Whoever is given back what he used must get on: a round that brings nothing is the last.
  for (let rounds = 0; !reader.done; rounds += 1) {
    await client.settled();
    expect(rounds).toBeLessThan(400);
    reader.acknowledge(0, 1);
    for (const { id } of reader.streams) reader.acknowledge(id, 1);
  }
  for (const { id, sizes, reset } of reader.streams) {
    const body = client.body(id);
    expect(body.equals(reset ? bodyOf(sizes).subarray(0, body.length) : bodyOf(sizes))).toBe(true);
  }
  expect(client.goaway).toBeUndefined();
  expect(client.judge.violations).toEqual([]);
}

describe.each([{ chop: undefined }, { chop: 3 }])("readers of tight windows, everything cut to $chop", ({ chop }) => {
  let server: BodyServer;
  beforeAll(async () => {
    server = await startScripted(chop);
  });
  afterAll(() => server[Symbol.asyncDispose]());

  it(`get everything, and never more than they allowed (${runs} stories, seed ${seed})`, async () => {
    await fc.assert(
      fc.asyncProperty(story, (each) => play(server, each)),
      {
        numRuns: chop === undefined ? runs : Math.ceil(runs / 10),
        seed,
        examples: once.map((each): [Story] => [each]),
      },
    );
  }, 600_000);
});
