import { createHash } from "node:crypto";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type BodyServer, startBodyServer } from "../../support/h2/body-server.ts";
import { connectFrames, type FrameClient } from "../../support/h2/frame-client.ts";
import { settings, windowUpdate } from "../../support/h2/frames.ts";
import { type Program, ProgramClient, program } from "./frame-program.ts";

/** More: `MUX_FUZZ_RUNS=100000 npx vitest run test/integration/mux/fuzz.test.ts`. */
const runs = Number(process.env.MUX_FUZZ_RUNS ?? 400);
const seed = Number(process.env.MUX_FUZZ_SEED ?? 20_260_419);

const piece = (size: number, index: number) => Buffer.alloc(size, 97 + (index % 26));

function sizesOf(path: string): number[] {
  const text = path.split("/")[2] ?? "";
  return text === "" ? [] : text.split(",").map(Number);
}

/** `/handed/…` writes as a handed-off body, `/unary/…` through the session; both end with a trailer. */
async function startScripted(mux: boolean): Promise<BodyServer> {
  const server: BodyServer = await startBodyServer({
    mux,
    answer(request, response) {
      request.resume();
      const sizes = sizesOf(request.url);
      if (request.url.startsWith("/handed")) {
        setImmediate(() => {
          const body = server.bodies.findLast((each) => each.request === request);
          for (const [index, size] of sizes.entries()) body?.sink.write(piece(size, index));
          body?.sink.end(undefined, [["x-end", "yes"]]);
        });
        return false;
      }
      response.sendDate = false;
      response.writeHead(200);
      for (const [index, size] of sizes.entries()) response.write(piece(size, index));
      response.addTrailers({ "x-end": "yes" });
      response.end();
      return true;
    },
  });
  return server;
}

function digest(body: Buffer): string {
  return `${body.length}: ${createHash("sha1").update(body).digest("hex")}`;
}

/** What a client has seen when nothing moves any more. */
interface Seen {
  readonly goaway: number | undefined;
  readonly closed: boolean;
  readonly streams: readonly unknown[];
  readonly violations: readonly string[];
}

async function follow(server: BodyServer, { acts, pieces }: Program): Promise<Seen> {
  await using client = await connectFrames(server.port, { streamWindow: 3_000 });
  // A header table of no size: equal headers are equal bytes, whatever went before.
  client.send(settings({ headerTableSize: 0 }));
  const doer = new ProgramClient();
  let cuts = 0;
  const waiting: Buffer[] = [];
  const flush = () => {
    client.sendPieces(Buffer.concat(waiting.splice(0)), () => pieces[cuts++ % Math.max(1, pieces.length)] ?? 1_000_000);
  };
  try {
    for (const act of acts) {
      const frames = doer.framesOf(act);
      if (act.do === "windows" || act.do === "wrong") {
        // What these mean depends on what has been sent, so let everything be sent that can be.
        flush();
        await client.settled();
      }
      if (act.do === "wrong" && frames !== undefined) {
        // What is still sent to a server that has closed makes its system reset the connection, and GOAWAY is lost.
        if (!(await client.survives(frames))) break;
      } else if (frames !== undefined) {
        waiting.push(frames);
      }
      if (act.do === "settle") {
        flush();
        await client.settled();
      }
    }
    if (client.closed) return seen(client, doer);
    flush();
    await client.settled();
    // Room for everything, so that what is still on its way arrives.
    client.send(settings({ initialWindowSize: 100_000 }), windowUpdate(0, 100_000));
    for (const { id } of doer.opened) client.send(windowUpdate(id, 20_000));
    await client.until(() => doer.opened.every(({ id }) => doer.reset.has(id) || client.stream(id).ended));
  } catch (error) {
    if (!client.closed) throw error;
  }
  return seen(client, doer);
}

function seen(client: FrameClient, doer: ProgramClient): Seen {
  const died = client.goaway !== undefined || client.closed;
  return {
    goaway: client.goaway?.code,
    closed: client.closed,
    // Of a connection that was given up, and of a stream that was reset, it is chance how much came before.
    streams: died
      ? []
      : doer.opened.map(({ id }) => {
          if (doer.reset.has(id)) return { id, reset: "by the client" };
          const { headers, ended, reset } = client.stream(id);
          return {
            id,
            headers: headers.map((each) => each.toString("hex")),
            body: digest(client.body(id)),
            ended,
            reset,
          };
        }),
    violations: client.judge.violations,
  };
}

describe("any frames of a client", () => {
  let servers: readonly [BodyServer, BodyServer];
  beforeAll(async () => {
    servers = [await startScripted(true), await startScripted(false)];
  });
  afterAll(async () => {
    await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()));
  });

  it(`have the same answers with and without the mux (${runs} programs, seed ${seed})`, async () => {
    await fc.assert(
      fc.asyncProperty(program, async (each) => {
        const [withMux, without] = [await follow(servers[0], each), await follow(servers[1], each)];
        expect(withMux.violations).toEqual([]);
        expect(withMux).toEqual(without);
      }),
      { numRuns: runs, seed, endOnFailure: process.env.MUX_FUZZ_RUNS !== undefined },
    );
  }, 600_000);
});
