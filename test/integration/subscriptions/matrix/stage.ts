import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import pg from "pg";
import { FeedService } from "../../../../gen/millrace/v1/feed_service_pb.js";
import { SubscriptionService } from "../../../../gen/millrace/v1/subscription_service_pb.js";
import { chooseFreePort } from "../../../../src/embedded/port.ts";
import { migrate } from "../../../../src/postgres/migrate.ts";
import type { Committed, Consumption, Note, Row } from "../../../support/checker/consumption.ts";
import { createCluster, type TestCluster } from "../../../support/cluster.ts";
import { type ServerProcess, startServerProcess } from "../../../support/server-process.ts";
import { ConsumerProcess } from "./consumer-process.ts";

export const targets = ["plain", "group", "exactly"] as const;
export type Target = (typeof targets)[number];

/** What each of them reads. */
const wanted: Readonly<Record<Target, readonly string[]>> = {
  plain: ["a", "b", "notes", "item"],
  group: ["a", "b", "notes", "item"],
  exactly: ["b", "notes", "item"],
};

export const ACK_DEADLINE_MS = 3_000;

/** What the database itself says of each subscription, transaction by transaction. A dead letter is of when its began. */
const records = `
  create table item (id int primary key, mark text not null);
  create table row_log (
    seq bigint generated always as identity, at float8, id text, version bigint, generation bigint, moved bigint);
  create table dead_log (at float8, id text, version bigint);
  create function log_row() returns trigger language plpgsql security definer as $$
    begin
      insert into public.row_log (at, id, version, generation, moved)
      values (floor(extract(epoch from clock_timestamp()) * 1000), new.id, new.version, new.generation, new.moved_generation);
      return null;
    end $$;
  create function log_dead() returns trigger language plpgsql security definer as $$
    begin
      insert into public.dead_log values (
        floor(extract(epoch from now()) * 1000), new.subscription, new.version);
      return null;
    end $$;
  create trigger log_row after insert or update on millrace.subscription for each row execute function public.log_row();
  create trigger log_dead after insert on millrace.dead_letter for each row execute function public.log_dead();
  select millrace.watch('item', 'item');
`;

/** A database, servers at addresses that stay, and consumers that are started again under the same names. */
export class MatrixStage implements AsyncDisposable {
  readonly url: string;
  readonly ledgerUrl: string;
  readonly cluster: TestCluster;
  readonly consumers = new Map<string, { readonly target: Target; lives: number; process: ConsumerProcess }>();
  readonly #ports: readonly number[];
  readonly #servers: ServerProcess[] = [];
  readonly #notes: Readonly<Record<Target, Note[]>> = { plain: [], group: [], exactly: [] };

  private constructor(cluster: TestCluster, url: string, ledgerUrl: string, ports: readonly number[]) {
    this.cluster = cluster;
    this.url = url;
    this.ledgerUrl = ledgerUrl;
    this.#ports = ports;
  }

  static async open(replicas: number): Promise<MatrixStage> {
    const cluster = await createCluster();
    const [url, ledgerUrl] = [await cluster.createDatabase(), await cluster.createDatabase()];
    const ports: number[] = [];
    while (ports.length < replicas) {
      const port = await chooseFreePort();
      if (!ports.includes(port)) ports.push(port);
    }
    const stage = new MatrixStage(cluster, url, ledgerUrl, ports);
    try {
      await migrate(url);
      await stage.sql(records);
      const ledger = `create table effect (id bigint generated always as identity, version bigint, mark text);
        create table consumer (cursor text not null); insert into consumer values ('')`;
      await stage.sql(ledger, [], ledgerUrl);
      for (const at of ports.keys()) await stage.#start(at);
      await stage.#createSubscriptions();
    } catch (error) {
      await stage[Symbol.asyncDispose]();
      throw error;
    }
    return stage;
  }

  async #start(at: number): Promise<void> {
    this.#servers[at] = await startServerProcess({ databaseUrl: this.url, port: this.#ports[at], logLevel: "warn" });
  }

  async #createSubscriptions(): Promise<void> {
    const { subscriptions, hangUp } = this.connect();
    for (const subscriptionId of targets) {
      await subscriptions.createSubscription({
        subscriptionId,
        selectors: [{ topics: [...wanted[subscriptionId]] }],
        delivery: { batch: { maxEvents: 6 } },
        ...(subscriptionId === "group" && {
          group: { maxInFlight: 24, ackDeadline: { seconds: BigInt(ACK_DEADLINE_MS / 1000) } },
        }),
      });
    }
    hangUp();
  }

  get replicas(): number {
    return this.#ports.length;
  }

  /** Of any server, or this one. */
  connect(at = 0): Connected {
    const baseUrl = `http://127.0.0.1:${this.#ports[at]}`;
    const sessionManager = new Http2SessionManager(baseUrl);
    const transport = createGrpcTransport({ baseUrl, sessionManager });
    return {
      feed: createClient(FeedService, transport),
      subscriptions: createClient(SubscriptionService, transport),
      hangUp: () => sessionManager.abort(),
    };
  }

  async killServer(at: number): Promise<void> {
    await this.#servers[at]?.kill9();
    await this.#start(at);
  }

  async killDatabase(): Promise<void> {
    await this.cluster.kill9();
    await this.cluster.start();
  }

  /** Starts it, again. */
  startConsumer(name: string, target: Target): ConsumerProcess {
    const lives = (this.consumers.get(name)?.lives ?? 0) + 1;
    const process = new ConsumerProcess(
      {
        who: `${name}.${lives}`,
        subscription: target,
        ports: this.#ports,
        turn: this.consumers.size,
        ...(target === "group" && { member: name }),
        ...(target === "exactly" && { ledgerUrl: this.ledgerUrl }),
      },
      (note) => this.#notes[target].push(note),
    );
    this.consumers.set(name, { target, lives, process });
    return process;
  }

  async killConsumer(name: string): Promise<ConsumerProcess> {
    const found = this.consumers.get(name);
    if (found === undefined) throw new Error(`There is no ${name}.`);
    await found.process.kill9((note) => this.#notes[found.target].push(note));
    return this.startConsumer(name, found.target);
  }

  processed(target: Target): number {
    return this.#notes[target].filter(({ what }) => what === "processed").length;
  }

  /** What each server has logged, and what it measures of groups. */
  async servers(): Promise<readonly string[]> {
    const said = this.#ports.map(async (port, at) => {
      const metrics = await fetch(`http://127.0.0.1:${port}/metrics`).then((answer) => answer.text());
      const ofGroups = metrics.split("\n").filter((line) => /^millrace_(?:group|subscription)\w* /.test(line));
      return [`server ${at} at ${port}: ${this.#servers[at]?.log().slice(-2_000)}`, ...ofGroups].join("\n  ");
    });
    return (await Promise.allSettled(said)).map((one) => (one.status === "fulfilled" ? one.value : String(one.reason)));
  }

  /** The last few of each. */
  lastNotes(): readonly string[] {
    return targets.flatMap((target) =>
      this.#notes[target].slice(-12).map((note) => `${target} ${JSON.stringify(note).slice(0, 300)}`),
    );
  }

  async sql<T extends object>(
    text: string,
    values: readonly unknown[] = [],
    url: string = this.url,
  ): Promise<readonly T[]> {
    const client = new pg.Client({ connectionString: url });
    client.on("error", () => undefined);
    await client.connect();
    try {
      return (await client.query<T>(text, [...values])).rows;
    } finally {
      await client.end();
    }
  }

  /** Everything that was committed, in order; `undefined` as long as it is not all settled. */
  async truth(): Promise<readonly Committed[] | undefined> {
    const { feed, hangUp } = this.connect();
    const truth: Committed[] = [];
    const head = await feed.getStatus({});
    for await (const { frame } of feed.subscribe({ start: { case: "afterVersion", value: 0n } })) {
      if (frame.case === "events") {
        for (const { version, topic, key, after, transaction } of frame.value.events) {
          const json = after?.form.case === "json" ? after.form.value : undefined;
          const { mark = `truncated by ${transaction}` }: { readonly mark?: string } = JSON.parse(json ?? "{}");
          truth.push({ version: Number(version), topic, key, mark });
        }
      }
      if ((truth.at(-1)?.version ?? 0) >= Number(head.headVersion)) break;
    }
    hangUp();
    const [outbox] = await this.sql<{ count: string }>("select count(*) from millrace.outbox");
    return Number(outbox?.count) === truth.length ? truth : undefined;
  }

  async consumption(target: Target, truth: readonly Committed[]): Promise<Consumption> {
    const rows = await this.sql<Row>(
      `select at, version::float8, generation::float8, moved::float8 as "movedGeneration" from row_log
       where id = $1 order by seq`,
      [target],
    );
    const deadLetters = await this.sql<{ at: number; version: number }>(
      "select at, version::float8 from dead_log where id = $1",
      [target],
    );
    return {
      subscription: target,
      kind: target === "group" ? "group" : "plain",
      ackDeadlineMs: ACK_DEADLINE_MS,
      truth: truth.filter(({ topic }) => wanted[target].includes(topic)),
      notes: this.#notes[target],
      rows,
      deadLetters,
    };
  }

  async effects(): Promise<readonly string[]> {
    const rows = await this.sql<{ mark: string }>("select mark from effect order by id", [], this.ledgerUrl);
    return rows.map(({ mark }) => mark);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { process } of this.consumers.values()) await process[Symbol.asyncDispose]();
    for (const server of this.#servers) await server[Symbol.asyncDispose]();
    await this.cluster[Symbol.asyncDispose]();
  }
}

export interface Connected {
  readonly feed: Client<typeof FeedService>;
  readonly subscriptions: Client<typeof SubscriptionService>;
  hangUp(): void;
}
