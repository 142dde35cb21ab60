import type { Random } from "../support/workload/random.ts";
import { createRandom } from "../support/workload/random.ts";
import { Client, type FrameFilter, type NewStart } from "./client.ts";
import { Database } from "./database.ts";
import { happen } from "./happenings.ts";
import { FAST } from "./outlet.ts";
import { Replica } from "./replica.ts";
import { sweep } from "./sweep.ts";
import { Tally } from "./tally.ts";
import { VirtualTime } from "./virtual-time.ts";
import { chooseAppetite, chooseWish, chooseWorld, pick, type WorldOptions } from "./world-options.ts";
import { Writers } from "./writers.ts";

const REPLICAS = 2;
/** Everybody has come to the end by then, in virtual milliseconds. */
const END_MS = 300_000;
const SWEEP_MS = 100;

/** A database, two replicas, and clients: everything that one seed makes happen. */
export class World {
  readonly random: Random;
  readonly options: WorldOptions;
  readonly time: VirtualTime;
  readonly tally: Tally;
  readonly database: Database;
  readonly writers: Writers;
  readonly replicas: Replica[] = [];
  readonly clients: Client[] = [];
  readonly #spoil: FrameFilter | undefined;
  #clientNumber = 0;
  #quiet = false;

  constructor(seed: number, spoil: FrameFilter | undefined) {
    this.random = createRandom(seed);
    this.options = chooseWorld(this.random);
    const { time, latencyMs, pageEvents, failing } = this.options;
    this.time = new VirtualTime(this.random.fork(1), time);
    this.tally = new Tally(() => this.time.steps);
    const random = this.random.fork(2);
    this.database = new Database({ time: this.time, random, latencyMs, pageEvents, failing });
    this.writers = new Writers(this.database, this.random.fork(3));
    this.#spoil = spoil;
  }

  /** Nothing happens any more: everybody is to come to the end. */
  get quiet(): boolean {
    return this.#quiet;
  }

  /** Lets so many steps happen, and then everybody come to the end. */
  async run(steps: number): Promise<void> {
    const boom = (error: unknown) => this.tally.object("G8", "world", `something was thrown: ${stackOf(error)}`);
    process.on("unhandledRejection", boom);
    try {
      for (let i = 0; i < REPLICAS; i++) {
        this.restart(i);
      }
      while (this.clients.length < this.options.clients) {
        this.addClient();
      }
      this.#happenLater();
      this.#sweepLater();
      const over = () => this.time.steps >= steps || this.tally.firstAt !== undefined;
      await this.time.runUntil(over);
      await this.#comeToTheEnd();
    } catch (error) {
      boom(error);
    } finally {
      process.off("unhandledRejection", boom);
    }
  }

  /** A new process in the place of another. */
  restart(index: number): void {
    const replica = new Replica(this.database, this.time, this.options.replica, (over, reason) => {
      this.tally.count(`over with ${reason.code}`);
      this.restart(index);
      this.time.after(this.random.below(50), () => {
        over.feed.end(reason);
        void over.stop();
      });
    });
    this.replicas[index] = replica;
    this.tally.count("processes");
    void this.#start(replica);
  }

  /** The processes at the database that is in force. */
  usable(): readonly Replica[] {
    const { truth } = this.database;
    return this.replicas.filter((replica) => replica.state === "up" && replica.truth === truth);
  }

  addClient(): void {
    this.#clientNumber += 1;
    const random = this.random.fork(this.#clientNumber + 100);
    const name = `client ${this.#clientNumber}`;
    const client = new Client({
      ...chooseWish(random),
      name,
      number: this.#clientNumber,
      time: this.time,
      tally: this.tally,
      inline: random.chance(0.3),
      spoil: this.#spoil,
      oldest: () => this.database.oldest,
    });
    client.setAppetite(this.#quiet ? FAST : chooseAppetite(random));
    this.clients.push(client);
    this.tally.count("clients");
  }

  /** Where somebody new may begin. */
  newStart({ options }: Client): NewStart {
    const { random, database, time } = this;
    const { head } = database.truth;
    const before = random.below(1 + Math.min(head, pick(random, [5, 50, 1_000])));
    switch (random.below(7)) {
      case 0:
      case 1:
        return { kind: "now" };
      case 2:
        return { kind: "oldest" };
      case 3:
        return { kind: "time", timeMicros: (time.now() - before) * 1_000 };
      case 4:
        return { kind: options.want.keepsRows === false ? "oldest" : "snapshot" };
      case 5:
        return { kind: "version", version: head + (random.chance(0.1) ? 3 : 0), epoch: undefined };
      default:
        return { kind: "version", version: head - before, epoch: undefined };
    }
  }

  /** Those without a call open one. */
  connect(client: Client): void {
    const replica = pick(this.random, [this.replicas[0], ...this.usable()]);
    if (!client.idle || replica === undefined || replica.truth !== this.database.truth) {
      return;
    }
    if (client.lost) {
      client.begin(replica, this.#quiet ? { kind: "now" } : this.newStart(client));
    } else {
      client.resume(replica, this.random.chance(0.7) || this.#quiet ? 0 : this.random.below(200));
    }
  }

  async #start(replica: Replica): Promise<void> {
    const { signal } = new AbortController();
    while (replica.state === "starting") {
      try {
        await replica.start(signal);
      } catch {
        await this.time.pause(200);
      }
    }
  }

  #happenLater(): void {
    const delayMs = -Math.log(1 - this.random.next()) * this.options.paceMs;
    this.time.after(delayMs, () => {
      if (!this.#quiet) {
        happen(this);
        this.#happenLater();
      }
    });
  }

  #sweepLater(): void {
    this.time.after(SWEEP_MS, () => {
      sweep(this);
      this.#sweepLater();
    });
  }

  async #comeToTheEnd(): Promise<void> {
    if (this.tally.firstAt !== undefined) {
      return;
    }
    this.#quiet = true;
    this.database.heal();
    this.writers.endLong();
    for (const replica of this.replicas) {
      replica.wakeUp.idleMs = 1_000;
    }
    for (const client of this.clients) {
      client.setAppetite(FAST);
      client.hurry();
    }
    const endMs = this.time.nowMs + END_MS;
    const reconnect = () => {
      for (const client of this.clients) {
        this.connect(client);
      }
      this.time.after(500, reconnect);
    };
    reconnect();
    const over = () => this.time.nowMs >= endMs || this.tally.firstAt !== undefined || this.#isAtTheEnd();
    await this.time.runUntil(over);
    const left = this.tally.firstAt === undefined ? this.clients.find((client) => !this.#isDone(client)) : undefined;
    if (left !== undefined) {
      const { standing, options, opened } = left;
      const where = `${JSON.stringify(standing)} of ${this.database.truth.head}, ${opened ? "open" : "not open"}`;
      this.tally.object("G8", options.name, `did not come to the end: it stands at ${where}`);
    }
    await this.#stop();
  }

  #isAtTheEnd(): boolean {
    return this.time.steps % 64 === 0 && this.clients.every((client) => this.#isDone(client));
  }

  #isDone(client: Client): boolean {
    const { truth } = this.database;
    const { standing, opened, inSnapshot, replica } = client;
    const here = opened && !inSnapshot && replica?.truth === truth;
    // A stream that has just been opened where everything ends has nothing to say for a while.
    return here && standing?.boundary === truth.head && (standing.state ?? "LIVE") === "LIVE";
  }

  async #stop(): Promise<void> {
    let left = this.replicas.length;
    for (const replica of this.replicas) {
      void replica.stop().then(() => {
        left -= 1;
      });
    }
    const endMs = this.time.nowMs + 60_000;
    await this.time.runUntil(() => left === 0 || this.time.nowMs > endMs);
    if (left > 0) {
      this.tally.object("G8", "world", "a replica did not stop");
    }
  }
}

function stackOf(error: unknown): string {
  return error instanceof Error ? `${error.stack}` : String(error);
}
