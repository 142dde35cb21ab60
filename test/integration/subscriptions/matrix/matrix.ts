import pg from "pg";
import { type Committed, type Consumption, judge, judgeEffects } from "../../../support/checker/consumption.ts";
import { eventually, hold, within } from "../../../support/deadline.ts";
import { createRandom, type Random } from "../../../support/workload/random.ts";
import type { ConsumerProcess, Step } from "./consumer-process.ts";
import { ACK_DEADLINE_MS, MatrixStage, type Target, targets } from "./stage.ts";
import { emit, Writers } from "./writers.ts";

const victims = ["consumer", "server", "database"] as const;
type Victim = (typeof victims)[number];
type Moment = Step | "rebalance" | "stalled" | "seek";

const moments: Readonly<Record<Target, readonly Moment[]>> = {
  plain: ["opened", "received", "processed", "acknowledging", "acknowledged", "redelivered", "seek"],
  group: [
    "opened",
    "received",
    "processed",
    "acknowledging",
    "acknowledged",
    "redelivered",
    "burying",
    "rebalance",
    "stalled",
    "seek",
  ],
  exactly: ["opened", "received", "storing", "processed", "acknowledging", "acknowledged"],
};

interface Round {
  readonly target: Target;
  readonly moment: Moment;
  readonly victim: Victim;
}

export interface MatrixOptions {
  readonly seed: number;
  readonly rounds: number;
  readonly replicas: number;
  readonly members: number;
  /** Only these. Default all. */
  readonly only?: readonly Target[] | undefined;
  readonly report: (line: string) => void;
}

export interface MatrixOutcome {
  readonly complaints: readonly string[];
  /** Rounds in which the moment came. */
  readonly reached: number;
  readonly events: number;
  readonly consumptions: readonly Consumption[];
  readonly effects: readonly string[];
}

const REACH_MS = 30_000;
const RECOVER_MS = 45_000;
/** Longer than a lease and any deadline: what stands still for so long does so for good. */
const STILL_MS = 45_000;

/** Rounds of consumers, servers and databases that are killed, beside writers; and what an independent judge has to say. */
export async function runMatrix(options: MatrixOptions): Promise<MatrixOutcome> {
  const { seed, members } = options;
  const random = createRandom(seed);
  await using stage = await MatrixStage.open(options.replicas);
  const wants = options.only ?? targets;
  for (const target of wants) {
    const names = target === "group" ? Array.from({ length: members }, (_, n) => `member-${n + 1}`) : [target];
    for (const name of names) stage.startConsumer(name, target);
  }
  const writers = new Writers(stage.url, seed, 3);
  const replaying = new AbortController();
  const replays = replay(stage, replaying.signal);
  let reached = 0;
  try {
    for (const [number, round] of roundsOf(random, options.rounds, wants).entries()) {
      const begun = performance.now();
      const came = await new Rounds(stage, random).run(round);
      if (came) reached += 1;
      const took = ((performance.now() - begun) / 1000).toFixed(1);
      const what = `${round.target}, ${round.moment}: ${round.victim} killed`;
      options.report(`${number + 1}: ${what}${came ? "" : " (the moment did not come)"}, ${took} s`);
    }
  } finally {
    await writers.stop();
  }
  const truth = await finish(stage, wants).finally(() => replaying.abort());
  await replays;
  return { ...(await assess(stage, wants, truth)), events: truth.length, reached };
}

/** Every combination, in an order by chance, as often as there are rounds. */
function roundsOf(random: Random, count: number, wants: readonly Target[]): readonly Round[] {
  const all = wants.flatMap((target) =>
    moments[target].flatMap((moment) => victims.map((victim) => ({ target, moment, victim }))),
  );
  const rounds: Round[] = [];
  while (rounds.length < count) {
    rounds.push(
      ...all
        .map((round) => ({ round, at: random.next() }))
        .toSorted((a, b) => a.at - b.at)
        .map(({ round }) => round),
    );
  }
  return rounds.slice(0, count);
}

class Rounds {
  readonly #stage: MatrixStage;
  readonly #random: Random;

  constructor(stage: MatrixStage, random: Random) {
    this.#stage = stage;
    this.#random = random;
  }

  /** Whether the moment came. */
  async run({ target, moment, victim }: Round): Promise<boolean> {
    const name = this.#anyOf(target);
    const came = await this.#bringAbout(name, target, moment, victim);
    await this.#recovered(target);
    return came;
  }

  async #bringAbout(name: string, target: Target, moment: Moment, victim: Victim): Promise<boolean> {
    if (moment === "seek") return await this.#seek(name, target, victim);
    if (moment === "rebalance") {
      const joining = await this.#stage.killConsumer(name);
      const came = await within(REACH_MS, joining.arm("opened"));
      await this.#kill(victim, this.#anyOf(target));
      joining.goOn();
      return came;
    }
    const consumer = this.#process(name);
    // One that opens has to end first.
    const waiting = moment === "opened" ? await this.#stage.killConsumer(name) : consumer;
    const at = waiting.arm(moment === "stalled" ? "processed" : moment);
    if (!(await within(REACH_MS, at))) {
      void at.then(() => waiting.goOn());
      return false;
    }
    if (moment === "stalled") await hold(ACK_DEADLINE_MS + 500);
    if (moment === "acknowledging" || moment === "burying") await hold(this.#random.below(6));
    await this.#kill(victim, name);
    waiting.goOn();
    return true;
  }

  /** Back by some versions, with something killed before anybody can answer. */
  async #seek(name: string, target: Target, victim: Victim): Promise<boolean> {
    const [row] = await this.#stage.sql<{ version: string }>(
      "select version from millrace.subscription where id = $1",
      [target],
    );
    const { subscriptions, hangUp } = this.#stage.connect(this.#random.below(this.#stage.replicas));
    const value = BigInt(Math.max(0, Number(row?.version) - this.#random.below(40)));
    const seeking = subscriptions.seekSubscription({ subscriptionId: target, to: { case: "afterVersion", value } });
    seeking.catch(() => undefined);
    await hold(this.#random.below(12));
    await this.#kill(victim, name);
    await seeking.catch(() => undefined);
    hangUp();
    return true;
  }

  async #kill(victim: Victim, name: string): Promise<void> {
    if (victim === "consumer") await this.#stage.killConsumer(name);
    else if (victim === "server") await this.#stage.killServer(this.#random.below(this.#stage.replicas));
    else await this.#stage.killDatabase();
  }

  /** Its consumers go on. */
  async #recovered(target: Target): Promise<void> {
    const before = this.#stage.processed(target);
    if (
      await within(
        RECOVER_MS,
        eventually(async () => this.#stage.processed(target) > before + 3),
      )
    )
      return;
    throw new Error(`${target} stands still.\n${await stateOf(this.#stage)}`);
  }

  #anyOf(target: Target): string {
    const names = [...this.#stage.consumers].filter(([, consumer]) => consumer.target === target).map(([name]) => name);
    return names[this.#random.below(names.length)] ?? target;
  }

  #process(name: string): ConsumerProcess {
    const found = this.#stage.consumers.get(name);
    if (found === undefined) throw new Error(`There is no ${name}.`);
    return found.process;
  }
}

/** Dead letters are delivered again, all the time. */
async function replay(stage: MatrixStage, signal: AbortSignal): Promise<void> {
  for (let turn = 0; !signal.aborted; turn++) {
    const { subscriptions, hangUp } = stage.connect(turn % stage.replicas);
    await subscriptions
      .replayDeadLetters({ subscriptionId: "group", limit: 1_000 }, { timeoutMs: 5_000 })
      .catch(() => undefined);
    hangUp();
    await hold(700);
  }
}

/** Until every subscription has acknowledged the last event, and no dead letter is left. */
async function finish(stage: MatrixStage, wants: readonly Target[]): Promise<readonly Committed[]> {
  const client = new pg.Client({ connectionString: stage.url });
  await client.connect();
  await emit(client, "notes", null, "the end");
  await client.end();
  const truth = await eventually(() => stage.truth());
  const last = truth.at(-1)?.version ?? 0;
  let before = "";
  let changedAtMs = performance.now();
  await eventually(async () => {
    const rows = await stage.sql<{ id: string; version: string; letters: string }>(
      `select id, version, (select count(*) from millrace.dead_letter where subscription = id) as letters
       from millrace.subscription where id = any ($1)`,
      [wants],
    );
    const now = JSON.stringify(rows);
    if (now !== before) changedAtMs = performance.now();
    before = now;
    if (performance.now() - changedAtMs > STILL_MS) {
      throw new Error(`Of ${last} versions not all are acknowledged.\n${await stateOf(stage)}`);
    }
    return rows.every(({ version, letters }) => Number(version) >= last && letters === "0");
  });
  return truth;
}

async function assess(stage: MatrixStage, wants: readonly Target[], truth: readonly Committed[]) {
  const consumptions: Consumption[] = [];
  for (const target of wants) consumptions.push(await stage.consumption(target, truth));
  const effects = await stage.effects();
  const complaints = consumptions.flatMap((consumption) => [
    ...judge(consumption),
    ...(consumption.subscription === "exactly" ? judgeEffects(consumption.truth, effects) : []),
  ]);
  return { complaints, consumptions, effects };
}

/** For whoever reads of a failure. */
async function stateOf(stage: MatrixStage): Promise<string> {
  const rows = await stage.sql(
    `select id, version, generation, holder_url, held_until > now() as held, left(progress, 300) as progress,
       (select count(*) from millrace.dead_letter where subscription = id) as letters from millrace.subscription`,
  );
  const notes = [...stage.consumers].map(([name, { process }]) => {
    return `${name}: processed ${process.processed}; ${process.failures.slice(-2).join("; ")} ${process.log.slice(-500)}`;
  });
  return [...rows.map((row) => JSON.stringify(row)), ...notes, ...(await stage.servers()), ...stage.lastNotes()].join(
    "\n",
  );
}
