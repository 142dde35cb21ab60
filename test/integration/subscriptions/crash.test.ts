import { type Client, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import pg from "pg";
import { describe, expect, it } from "vitest";
import { ErrorCode, ErrorDetailSchema } from "../../../gen/millrace/v1/error_pb.js";
import { FeedService } from "../../../gen/millrace/v1/feed_service_pb.js";
import { SubscriptionService } from "../../../gen/millrace/v1/subscription_service_pb.js";
import { migrate } from "../../../src/postgres/migrate.ts";
import { createCluster, type TestCluster } from "../../support/cluster.ts";
import { eventually } from "../../support/deadline.ts";
import { type ServerProcess, startServerProcess } from "../../support/server-process.ts";
import { soak, testMs } from "../guarantees/stage.ts";

const rounds = soak ? 100 : 12;
const subscriptionId = "crash";

/** Between which two steps of a consumer something dies, and what. */
const moments = ["received", "stored", "acknowledging", "acknowledged"] as const;
const victims = ["consumer", "server", "database"] as const;
type Moment = (typeof moments)[number];

/** What the consumer's own database holds: an effect of each event, and the cursor, in one transaction. */
interface Data {
  readonly applied: number[];
  cursor: string;
}

interface Connected {
  readonly feed: Client<typeof FeedService>;
  readonly service: Client<typeof SubscriptionService>;
  hangUp(): void;
}

function connect({ port }: ServerProcess): Connected {
  const baseUrl = `http://127.0.0.1:${port}`;
  const sessionManager = new Http2SessionManager(baseUrl);
  const transport = createGrpcTransport({ baseUrl, sessionManager });
  return {
    feed: createClient(FeedService, transport),
    service: createClient(SubscriptionService, transport),
    hangUp: () => sessionManager.abort(),
  };
}

class Stage implements AsyncDisposable {
  readonly #cluster: TestCluster;
  readonly #url: string;
  server: ServerProcess;

  private constructor(cluster: TestCluster, url: string, server: ServerProcess) {
    this.#cluster = cluster;
    this.#url = url;
    this.server = server;
  }

  static async open(): Promise<Stage> {
    const cluster = await createCluster();
    const url = await cluster.createDatabase();
    await migrate(url);
    return new Stage(cluster, url, await startServerProcess({ databaseUrl: url }));
  }

  async kill(victim: (typeof victims)[number]): Promise<void> {
    if (victim === "server") {
      await this.server.kill9();
      this.server = await startServerProcess({ databaseUrl: this.#url });
    } else if (victim === "database") {
      await this.#cluster.kill9();
      await this.#cluster.start();
    }
  }

  /** Until it is known to have committed: an emission whose answer is lost is looked for. */
  async emit(first: number, count: number): Promise<void> {
    for (let n = first; n < first + count; n++) {
      await eventually(async () => {
        const client = new pg.Client({ connectionString: this.#url });
        client.on("error", () => undefined);
        try {
          await client.connect();
          const there = await client.query("select 1 from millrace.outbox where key = $1", [String(n)]);
          if (there.rowCount === 0) await client.query("select millrace.emit('notes', $1, '{}')", [String(n)]);
          return true;
        } catch {
          return false;
        } finally {
          await client.end().catch(() => undefined);
        }
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server[Symbol.asyncDispose]();
    await this.#cluster[Symbol.asyncDispose]();
  }
}

/** One life of a consumer: until it has applied so many events, or dies at this moment of a batch. */
async function live(stage: Stage, data: Data, until: number, death: Death | undefined): Promise<void> {
  const { feed, service, hangUp } = connect(stage.server);
  try {
    // What is in its data is done, whatever was said of it.
    if (data.cursor !== "") await service.acknowledge({ subscriptionId, cursor: data.cursor });
    let generation = 0n;
    for await (const { frame } of feed.subscribe({ start: { case: "subscriptionId", value: subscriptionId } })) {
      if (frame.case === "opened") generation = frame.value.lease?.generation ?? 0n;
      if (frame.case === "closing") return;
      if (frame.case !== "events") continue;
      const { events, cursor } = frame.value;
      await death?.at("received");
      data.applied.push(...events.map(({ key }) => Number(key)));
      data.cursor = cursor;
      await death?.at("stored");
      const acknowledging = service.acknowledge({ subscriptionId, generation, cursor });
      acknowledging.catch(() => undefined);
      await death?.at("acknowledging");
      await acknowledging;
      await death?.at("acknowledged");
      if (data.applied.length >= until) return;
    }
  } finally {
    hangUp();
  }
}

class Dead extends Error {}

/** Of a consumer, of the server under it, or of the database under that. */
class Death {
  readonly #stage: Stage;
  readonly #moment: Moment;
  readonly #victim: (typeof victims)[number];
  happened = false;

  constructor(stage: Stage, moment: Moment, victim: (typeof victims)[number]) {
    this.#stage = stage;
    this.#moment = moment;
    this.#victim = victim;
  }

  async at(moment: Moment): Promise<void> {
    if (moment !== this.#moment || this.happened) return;
    this.happened = true;
    await this.#stage.kill(this.#victim);
    if (this.#victim === "consumer") throw new Dead("the consumer was killed");
  }
}

/** Failures that pass: whoever comes again is served. Anything else is a fault. */
function assertPasses(error: unknown): void {
  if (error instanceof Dead) return;
  const failure = ConnectError.from(error);
  const code = failure.findDetails(ErrorDetailSchema)[0]?.code;
  const passes = [undefined, ErrorCode.DATABASE_UNAVAILABLE, ErrorCode.DRAINING, ErrorCode.SUBSCRIPTION_FENCED];
  expect(passes).toContain(code);
}

describe("a consumer that stores its cursor with its data", () => {
  it(
    "G1 G8 applies each event exactly once and in order, whatever is killed between delivery and acknowledgement",
    async () => {
      await using stage = await Stage.open();
      const { service, hangUp } = connect(stage.server);
      await service.createSubscription({ subscriptionId });
      hangUp();
      const data: Data = { applied: [], cursor: "" };
      const deaths = new Set<string>();
      for (let round = 0; round < rounds; round++) {
        const moment = moments[round % moments.length] ?? "received";
        const victim = victims[Math.floor(round / moments.length) % victims.length] ?? "server";
        const death = new Death(stage, moment, victim);
        const emitted = stage.emit(round * 5, 5);
        const until = (round + 1) * 5;
        while (data.applied.length < until || !death.happened) {
          await live(stage, data, until, death).catch(assertPasses);
          if (data.applied.length >= until) break;
        }
        await emitted;
        if (death.happened) deaths.add(`${victim} ${moment}`);
      }
      expect(data.applied).toEqual(Array.from({ length: rounds * 5 }, (_, n) => n));
      expect(deaths.size).toBe(Math.min(rounds, moments.length * victims.length));
    },
    testMs,
  );
});
