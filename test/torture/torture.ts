import type pg from "pg";
import { Client } from "pg";
import { migrate } from "../../src/postgres/migrate.ts";
import { listSources } from "../../src/postgres/sources.ts";
import { type ClusterOptions, createCluster, type TestCluster } from "../support/cluster.ts";
import { hold } from "../support/deadline.ts";
import { type ServerProcess, startServerProcess } from "../support/server-process.ts";
import { becomesTrue, inTime, Waits } from "../support/waits.ts";
import { createRandom, type Random } from "../support/workload/random.ts";
import { TortureDdl, triggerFunctions } from "./ddl.ts";
import { databaseFindings, serverFindings } from "./findings.ts";
import { type Followed, Follower } from "./follower.ts";
import { copyNow, type Fork, forks, possibleForks } from "./forks.ts";
import { compare, replay } from "./judge.ts";
import { createTables } from "./tables.ts";
import { TortureWriter } from "./writer.ts";

/** What a part of a run may take, in milliseconds: many times what it does, and well below what the test may. */
const LONGEST_MS = 120_000;
const LONGEST_END_MS = 30_000;

/** What a run does, and for how long. */
export interface TortureOptions {
  readonly seed: number;
  readonly rounds: number;
  /** Transactions that commit in each round, at least. */
  readonly transactions: number;
  readonly writers: number;
  readonly cluster?: ClusterOptions;
  /** Those that may happen. Default all. */
  readonly faults?: readonly Fault[];
  /** What a round may take, in milliseconds. Default 120,000. */
  readonly longestMs?: number;
  /** Told what happens. */
  readonly report?: (line: string) => void;
}

/** What came of a run. */
export interface TortureOutcome {
  /** Empty when all is as it must be. */
  readonly complaints: readonly string[];
  /** What the follower had in the end. */
  readonly story: readonly Followed[];
  readonly committed: number;
  readonly ddl: number;
  readonly forks: number;
}

/** What may happen in the middle of a round, or instead of one. */
export const faults = [
  "none",
  "kill server",
  "kill database",
  "freeze server",
  "cut stream",
  "two servers",
  ...forks,
] as const;

/** One of them. */
export type Fault = (typeof faults)[number];

/** A database, a server, a follower and whoever torments them. Disposing of it ends all. */
class Torture implements AsyncDisposable {
  readonly #options: TortureOptions;
  readonly #random: Random;
  readonly #things = new AsyncDisposableStack();
  readonly #waits = new Waits();
  readonly #ending = new AbortController();
  /** They torment the database in the present round. */
  #tormentors: readonly (TortureWriter | TortureDdl)[] = [];
  #cluster: TestCluster;
  #url: string;
  #writers = 0;
  readonly #servers: ServerProcess[] = [];
  readonly #follower: Follower;
  readonly #complaints: string[] = [];
  #marker = 0;
  #committed = 0;
  #ddl = 0;
  #forks = 0;

  private constructor(options: TortureOptions, cluster: TestCluster, url: string) {
    this.#options = options;
    this.#random = createRandom(options.seed);
    this.#cluster = cluster;
    this.#url = url;
    this.#things.use(cluster);
    this.#follower = new Follower(() => this.#servers.at(-1)?.port ?? 0);
  }

  static async open(options: TortureOptions): Promise<Torture> {
    const cluster = await createCluster(options.cluster);
    const torture = new Torture(options, cluster, cluster.url("torture"));
    try {
      await torture.#inTime("The opening", LONGEST_MS, torture.#begin());
      return torture;
    } catch (error) {
      await torture[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #begin(): Promise<void> {
    await this.#waits.until("the database", this.#cluster.createDatabase("torture"));
    await this.#waits.until("the migrations", migrate(this.#url));
    for (const statement of [...createTables(), ...triggerFunctions]) await this.#sql(statement);
    await this.#startServer();
    this.#things.defer(() => this.#follower.stop());
    this.#follower.start();
  }

  async run(): Promise<TortureOutcome> {
    const { rounds, faults: wanted = faults, cluster, longestMs = LONGEST_MS } = this.#options;
    const possible: readonly string[] = possibleForks(cluster?.binaries === "debian-15");
    const allowed = wanted.filter((fault) => !isFork(fault) || possible.includes(fault));
    for (let round = 1; round <= rounds && this.#complaints.length === 0; round += 1) {
      const fault = allowed[this.#random.below(allowed.length)] ?? "none";
      this.#say(`round ${round}: ${fault}`);
      const work = (isFork(fault) ? this.#fork(fault) : this.#round(fault)).then(() => this.#judge());
      await this.#inTime(`Round ${round}, ${fault}`, longestMs, work);
    }
    return {
      complaints: this.#complaints,
      story: this.#follower.log,
      committed: this.#committed,
      ddl: this.#ddl,
      forks: this.#forks,
    };
  }

  /** An error says when it was, and, of what does not end, what it waits for. */
  async #inTime(when: string, longestMs: number, work: Promise<void>): Promise<void> {
    try {
      await inTime(longestMs, work, () => this.#findings());
    } catch (error) {
      throw new Error(`${when}: ${messageOf(error)}`, { cause: error });
    }
  }

  async #findings(): Promise<string> {
    const waits = this.#waits.list();
    const asked = await Promise.all([
      databaseFindings(this.#cluster, this.#url),
      ...this.#servers.map((server) => serverFindings(server)),
    ]);
    const own = [...this.#tormentors, this.#follower].map((one) => one.findings());
    return [...waits, ...own, ...asked.flat()].join("\n");
  }

  async #round(fault: Fault): Promise<void> {
    const { writers: count, transactions } = this.#options;
    const writers = Array.from(
      { length: count },
      (_, i) => new TortureWriter(this.#url, `w${this.#marker}-${i}`, this.#random.fork(this.#marker * 100 + i)),
    );
    const ddl = new TortureDdl(this.#url, this.#random.fork(this.#marker * 100 + 99));
    const committed = () => writers.reduce((sum, writer) => sum + writer.committed, 0);
    this.#torment([...writers, ddl]);
    await this.#committing(writers, transactions / 2);
    await this.#waits.until(fault, this.#strike(fault));
    await this.#committing(writers, committed() + transactions / 2);
    await this.#waits.until("the end of writers and ddl", Promise.all([...writers, ddl].map((one) => one.stop())));
    this.#committed += committed();
    this.#ddl += ddl.done;
    this.#complaints.push(...writers.flatMap(({ failures }) => failures), ...ddl.failures);
    this.#say(`  ${committed()} transactions, ${ddl.done} changes of tables`);
  }

  async #strike(fault: Fault): Promise<void> {
    const server = this.#servers.at(-1);
    switch (fault) {
      case "kill server":
        await server?.kill9();
        await this.#startServer();
        return;
      case "kill database":
        await this.#cluster.kill9();
        await this.#cluster.start();
        return;
      case "freeze server":
        server?.freeze();
        await hold(500);
        server?.thaw();
        return;
      case "cut stream":
        this.#follower.cut();
        return;
      case "two servers":
        await this.#startServer();
        this.#follower.cut();
        return;
      default:
        return;
    }
  }

  /** The database as it was a round ago, in one way or another. */
  async #fork(fork: Fork): Promise<void> {
    const random = this.#random;
    // Now and then nobody has settled the last of what the copy holds.
    if (random.chance(0.5)) {
      await this.#stopServers();
      await this.#write(20);
    }
    const copying = copyNow(fork, { cluster: this.#cluster, url: this.#url });
    const replace = await this.#waits.until(`${fork}, the copy`, copying);
    if (this.#servers.length === 0) await this.#startServer();
    await this.#round("none");
    await this.#reachMarker();
    const away = random.chance(0.5) || fork === "dump and restore";
    if (away) await this.#stopServers();
    const { cluster, url } = await this.#waits.until(`${fork}, in its place`, replace());
    if (cluster !== this.#cluster) {
      this.#things.use(cluster);
      await this.#cluster.kill9();
    }
    this.#cluster = cluster;
    this.#url = url;
    if (away) {
      if (random.chance(0.5)) await this.#write(20);
      await this.#startServer();
    }
    this.#forks += 1;
  }

  /** Writers alone, for some transactions. */
  async #write(transactions: number): Promise<void> {
    this.#writers += 1;
    const writer = new TortureWriter(this.#url, `alone${this.#writers}`, this.#random.fork(10_000 + this.#writers));
    this.#torment([writer]);
    await this.#committing([writer], transactions);
    await this.#waits.until("the end of a writer", writer.stop());
    this.#committed += writer.committed;
    this.#complaints.push(...writer.failures);
  }

  #torment(all: readonly (TortureWriter | TortureDdl)[]): void {
    for (const one of all) this.#things.use(one);
    this.#tormentors = all;
  }

  /** Waits until they have committed so many in all, or have failed in a way that nothing explains. */
  async #committing(writers: readonly TortureWriter[], transactions: number): Promise<void> {
    const committed = () => writers.reduce((sum, writer) => sum + writer.committed, 0);
    const enough = () => committed() >= transactions || writers.some(({ failures }) => failures.length > 0);
    const { signal } = this.#ending;
    await this.#waits.until(`${transactions} transactions`, becomesTrue(enough, signal));
  }

  async #stopServers(): Promise<void> {
    for (const server of this.#servers.splice(0)) {
      await this.#waits.until(`the end of server ${server.pid}`, server.kill9());
    }
  }

  async #judge(): Promise<void> {
    await this.#finishPrepared();
    await this.#reachMarker();
    const { complaints, state } = replay(this.#follower.log);
    this.#complaints.push(...(await this.#waits.until("what Millrace says of the sources", this.#problems())));
    const compared = await this.#waits.until("the tables' rows", compare(this.#url, state));
    this.#complaints.push(...complaints.slice(0, 20), ...compared.slice(0, 20));
    this.#say(`  ${this.#follower.log.length} events${this.#follower.notes.map((note) => `\n  ${note}`).join("")}`);
    this.#follower.notes.length = 0;
  }

  /** What Millrace itself says is wrong with the capture of a table, but for partitions that were attached since. */
  async #problems(): Promise<readonly string[]> {
    const client = new Client({ connectionString: this.#url });
    client.on("error", () => undefined);
    await client.connect();
    try {
      return (await listSources(client)).flatMap(({ problems }) =>
        problems.filter(({ kind }) => kind !== "TRUNCATE_UNSEEN").map(({ message }) => message),
      );
    } finally {
      await client.end();
    }
  }

  async #reachMarker(): Promise<void> {
    this.#marker += 1;
    const key = `m${this.#marker}`;
    await this.#sql(`select millrace.emit('torture.marker', '${key}')`);
    await this.#waits.until(`marker ${key} at the follower`, this.#follower.untilMarker(key));
  }

  /** A crash between PREPARE and COMMIT PREPARED leaves them. */
  async #finishPrepared(): Promise<void> {
    const prepared = await this.#sql<{ gid: string }>(
      "select gid from pg_prepared_xacts where database = current_database()",
    );
    for (const { gid } of prepared) await this.#sql(`commit prepared '${gid}'`);
  }

  async #startServer(): Promise<void> {
    const starting = startServerProcess({ databaseUrl: this.#url });
    this.#servers.push(this.#things.use(await this.#waits.until("the start of a server", starting)));
  }

  #sql<R extends pg.QueryResultRow>(text: string): Promise<readonly R[]> {
    return this.#waits.until(text, this.#query<R>(text));
  }

  async #query<R extends pg.QueryResultRow>(text: string): Promise<readonly R[]> {
    const client = new Client({ connectionString: this.#url });
    client.on("error", () => undefined);
    await client.connect();
    try {
      return (await client.query<R>(text)).rows;
    } finally {
      await client.end();
    }
  }

  #say(line: string): void {
    this.#options.report?.(line);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    const ended = this.#things.disposeAsync();
    await inTime(LONGEST_END_MS, ended, async () => this.#waits.list().join("\n"));
  }
}

/** Runs it all, and says what is wrong. Rejects when it does not come to an end, and says what it waits for. */
export async function torture(options: TortureOptions): Promise<TortureOutcome> {
  try {
    await using world = await Torture.open(options);
    return await world.run();
  } catch (error) {
    throw new Error(`MILLRACE_SEED=${options.seed}: ${messageOf(error)}`, { cause: error });
  }
}

function messageOf(error: unknown): string {
  if (error instanceof SuppressedError) return `${messageOf(error.suppressed)}\nAt the end: ${messageOf(error.error)}`;
  return error instanceof Error ? error.message : String(error);
}

function isFork(fault: Fault): fault is Fork {
  return forks.some((fork) => fork === fault);
}
