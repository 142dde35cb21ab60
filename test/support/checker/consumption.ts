/**
 * What consumers of durable subscriptions did and saw, and what a database kept of it, as plain facts with the time of the
 * machine's one clock (milliseconds since the Unix epoch): it is all that `judge` looks at.
 */
export interface Consumption {
  readonly subscription: string;
  readonly kind: "plain" | "group";
  /** Of a group, in milliseconds. */
  readonly ackDeadlineMs: number;
  /** Every committed event that its selectors match, by version. */
  readonly truth: readonly Committed[];
  readonly notes: readonly Note[];
  /** Its row, as each transaction left it. */
  readonly rows: readonly Row[];
  /** Dead letters, as they were written. */
  readonly deadLetters: readonly { readonly at: number; readonly version: number }[];
}

export interface Committed {
  readonly version: number;
  readonly topic: string;
  /** Absent for what concerns all keys: it is a barrier in a group. */
  readonly key: string | undefined;
  /** Which of the writers' events it is. */
  readonly mark: string;
}

export interface Row {
  readonly at: number;
  readonly version: number;
  readonly generation: number;
  /** Of the last move. */
  readonly movedGeneration: number;
}

/** Said by a consumer's process as it happens, or by whoever killed it. */
export type Note = { readonly at: number; readonly who: string } & (
  | { readonly what: "opened"; readonly generation: number; readonly version: number; readonly askedAt: number }
  | { readonly what: "delivered"; readonly generation: number; readonly events: readonly Delivered[] }
  | { readonly what: "processed"; readonly version: number }
  | {
      /** Sent; what it means to cover was processed before. */
      readonly what: "acknowledging";
      readonly call: number;
      /** 0 for whoever has it. */
      readonly generation: number;
      readonly versions: readonly number[];
      readonly rejected: readonly number[];
    }
  | { readonly what: "acknowledged"; readonly call: number; readonly accepted: number }
  | { readonly what: "refused"; readonly call: number; readonly code: string }
  | { readonly what: "ended"; readonly generation: number; readonly why: string }
  | { readonly what: "killed" }
);

export interface Delivered {
  readonly version: number;
  readonly mark: string;
  readonly attempt: number;
}

type Of<What extends Note["what"]> = Extract<Note, { readonly what: What }>;

/** Clocks are read in whole milliseconds, before what they date. */
const CLOCK_MS = 2;
/** What was handed to a socket was received by then, on a machine that does much else. */
const ON_ITS_WAY_MS = 1_000;
/** Generations of a group's members are those of its claims, times this, and a number. */
const MEMBERS_OF_CLAIM = 100_000;

/** What is wrong, a line each; nothing for what is as promised. */
export function judge(consumption: Consumption): readonly string[] {
  const facts = new Facts(consumption);
  return [
    ...processedOrDead(facts),
    ...deliveredIsCommitted(facts),
    ...positionsAreEarned(facts),
    ...rowsOnlyRise(facts),
    ...fencesHold(facts),
    ...acknowledgedStaysSo(facts),
    ...(consumption.kind === "group" ? ofGroups(facts) : streamsAreWhole(facts)),
  ].map((complaint) => `${consumption.subscription}: ${complaint}`);
}

/** The consumer's own data against what was committed: each once, in order. */
export function judgeEffects(truth: readonly Committed[], effects: readonly string[]): readonly string[] {
  const seen = new Set<string>();
  const complaints = effects.flatMap((mark) => {
    const twice = seen.has(mark);
    seen.add(mark);
    return twice ? [`${mark} took effect twice`] : [];
  });
  complaints.push(...truth.filter(({ mark }) => !seen.has(mark)).map(({ mark }) => `${mark} never took effect`));
  const order = truth.map(({ mark }) => mark);
  if (complaints.length === 0 && order.join() !== effects.join()) complaints.push("effects are not in order");
  return complaints;
}

class Facts {
  readonly all: Consumption;
  readonly truth: ReadonlyMap<number, Committed>;
  readonly versions: readonly number[];
  readonly dead = new Map<number, number>();
  readonly acknowledgements: readonly Of<"acknowledging">[];
  readonly answers = new Map<string, Of<"acknowledged">>();
  readonly deliveries: readonly (Delivered & {
    readonly at: number;
    readonly who: string;
    readonly generation: number;
  })[];
  readonly deliveriesOf: ReadonlyMap<number, Facts["deliveries"]>;
  /** Times at which the subscription was moved. */
  readonly moves: readonly number[];

  constructor(all: Consumption) {
    this.all = all;
    this.truth = new Map(all.truth.map((event) => [event.version, event]));
    this.versions = [...this.truth.keys()].toSorted((a, b) => a - b);
    for (const { version, at } of all.deadLetters) this.dead.set(version, Math.min(at, this.dead.get(version) ?? at));
    this.acknowledgements = this.notes("acknowledging");
    for (const answer of this.notes("acknowledged")) this.answers.set(`${answer.who} ${answer.call}`, answer);
    this.deliveries = this.notes("delivered").flatMap(({ events, at, who, generation }) =>
      events.map((event) => ({ ...event, at, who, generation })),
    );
    this.deliveriesOf = Map.groupBy(this.deliveries, ({ version }) => version);
    this.moves = all.rows.filter((_, index) => this.isMove(index)).map(({ at }) => at);
  }

  notes<What extends Note["what"]>(what: What): readonly Of<What>[] {
    return this.all.notes.filter((note): note is Of<What> => note.what === what);
  }

  answer({ who, call }: Of<"acknowledging">): Of<"acknowledged"> | undefined {
    return this.answers.get(`${who} ${call}`);
  }

  isMove(row: number): boolean {
    const { rows } = this.all;
    return (rows[row]?.movedGeneration ?? 0) > (rows[row - 1]?.movedGeneration ?? 0);
  }

  movedBetween(from: number, to: number): boolean {
    return this.moves.some((at) => at > from - CLOCK_MS && at < to + CLOCK_MS);
  }

  name(version: number): string {
    const { topic = "?", key } = this.truth.get(version) ?? {};
    return `version ${version} (${topic}/${key ?? "all"})`;
  }
}

function processedOrDead(facts: Facts): readonly string[] {
  const processed = new Set(facts.notes("processed").map(({ version }) => version));
  return facts.versions
    .filter((version) => !processed.has(version) && !facts.dead.has(version))
    .map((version) => `${facts.name(version)} was lost`);
}

function deliveredIsCommitted(facts: Facts): readonly string[] {
  return facts.deliveries
    .filter(({ version, mark }) => facts.truth.get(version)?.mark !== mark)
    .map(({ version, mark }) => `${facts.name(version)} was delivered as ${mark}, which is not what was committed`);
}

/** The position is never beyond what nobody has processed and acknowledged, nor given up, since it was last moved. */
function positionsAreEarned(facts: Facts): readonly string[] {
  const complaints: string[] = [];
  const earned = new Map<number, number[]>();
  for (const { at, versions } of facts.acknowledgements) {
    for (const version of versions) earned.set(version, [...(earned.get(version) ?? []), at]);
  }
  let since = Number.NEGATIVE_INFINITY;
  let checked = facts.all.rows[0]?.version ?? 0;
  for (const [index, { at, version: position }] of facts.all.rows.entries()) {
    if (facts.isMove(index)) {
      since = at;
      checked = position;
    }
    for (const version of facts.versions) {
      if (version <= checked || version > position) continue;
      const isAcknowledged = earned.get(version)?.some((sent) => sent <= at + CLOCK_MS && sent >= since - CLOCK_MS);
      const isDead = (facts.dead.get(version) ?? Number.POSITIVE_INFINITY) <= at + CLOCK_MS;
      if (isAcknowledged !== true && !isDead) {
        complaints.push(`the position ${position} is beyond ${facts.name(version)}, which nobody acknowledged`);
      }
    }
    checked = Math.max(checked, position);
  }
  const firstProcessed = earliest(facts.notes("processed"), ({ version }) => version);
  for (const { who, at, versions } of facts.acknowledgements) {
    for (const version of versions) {
      const known = !facts.truth.has(version) || (firstProcessed.get(version) ?? Number.POSITIVE_INFINITY) <= at;
      if (!known) complaints.push(`${who} acknowledged ${facts.name(version)}, which nobody had processed`);
    }
  }
  return complaints;
}

function rowsOnlyRise(facts: Facts): readonly string[] {
  return facts.all.rows.flatMap((row, index) => {
    const before = facts.all.rows[index - 1];
    if (before === undefined) return [];
    const complaints: string[] = [];
    if (row.version < before.version && row.movedGeneration === before.movedGeneration) {
      complaints.push(`the position went back from ${before.version} to ${row.version}`);
    }
    if (row.generation < before.generation) {
      complaints.push(`the generation went back from ${before.generation} to ${row.generation}`);
    }
    return complaints;
  });
}

/** Nothing is taken from a generation once a newer one was given. */
function fencesHold(facts: Facts): readonly string[] {
  const isGroup = facts.all.kind === "group";
  return facts.acknowledgements.flatMap((said) => {
    const { who, at, generation, versions, rejected } = said;
    const answer = facts.answer(said);
    if (answer === undefined || generation === 0) return [];
    const claim = isGroup ? Math.floor(generation / MEMBERS_OF_CLAIM) : generation;
    const newer = facts.all.rows.find((row) => row.generation > claim && row.at < at - CLOCK_MS);
    if (newer !== undefined) return [`${who} was believed as ${generation} after ${newer.generation} was given`];
    if (!isGroup) return [];
    const own = [...versions, ...rejected].filter((version) => !wasGivenAway(facts, version, generation, at));
    return answer.accepted > own.length
      ? [`${who} acknowledged ${answer.accepted}, of which it had ${own.length}: others had the rest`]
      : [];
  });
}

/** Somebody else was given it after this member was. */
function wasGivenAway(facts: Facts, version: number, generation: number, at: number): boolean {
  const given = facts.deliveriesOf.get(version) ?? [];
  const own = Math.max(...given.filter((one) => one.generation === generation && one.at <= at).map((one) => one.at));
  return given.some((one) => one.generation !== generation && one.at > own + CLOCK_MS && one.at < at - CLOCK_MS);
}

/** What is durably acknowledged never comes again, unless the subscription is moved. */
function acknowledgedStaysSo(facts: Facts): readonly string[] {
  const done = new Map<number, { readonly sent: number; readonly answered: number }[]>();
  for (const said of facts.acknowledgements) {
    const answer = facts.answer(said);
    const { versions, rejected } = said;
    if (answer === undefined) continue;
    if (facts.all.kind === "group" && answer.accepted < versions.length + rejected.length) continue;
    const times = { sent: said.at, answered: answer.at };
    for (const version of versions) done.set(version, [...(done.get(version) ?? []), times]);
  }
  const opened = new Map(facts.notes("opened").map((note) => [`${note.who} ${note.generation}`, note.askedAt]));
  return facts.deliveries.flatMap(({ who, generation, version, at }) => {
    // A plain stream that was there before may still have it on its way.
    const begun = facts.all.kind === "plain" ? (opened.get(`${who} ${generation}`) ?? at) : at;
    // A move may come between its acknowledgement and the answer.
    const isDone = done
      .get(version)
      ?.some(({ sent, answered }) => begun > answered + CLOCK_MS && !facts.movedBetween(sent, at));
    return isDone === true ? [`${facts.name(version)} came to ${who} after it was acknowledged`] : [];
  });
}

/** Without a group a stream is everything after its position, in order. */
function streamsAreWhole(facts: Facts): readonly string[] {
  return facts.notes("opened").flatMap(({ who, generation, version: from }) => {
    const wanted = facts.versions.filter((version) => version > from);
    const came = facts.deliveries.filter((delivery) => delivery.who === who && delivery.generation === generation);
    const wrong = came.findIndex(({ version }, index) => version !== wanted[index]);
    if (wrong < 0) return [];
    return [`${who} as ${generation} was given ${came[wrong]?.version} where ${wanted[wrong]} is next`];
  });
}

function ofGroups(facts: Facts): readonly string[] {
  return [...keysInOrder(facts), ...keysWithOne(facts), ...barriers(facts)];
}

/** First processings of a key are in the order of its versions. */
function keysInOrder(facts: Facts): readonly string[] {
  const highest = new Map<string, number>();
  const seen = new Set<number>();
  const complaints: string[] = [];
  for (const { version, who } of facts.notes("processed").toSorted((a, b) => a.at - b.at)) {
    const event = facts.truth.get(version);
    if (event?.key === undefined || seen.has(version)) continue;
    seen.add(version);
    const key = `${event.topic}/${event.key}`;
    const before = highest.get(key) ?? 0;
    if (version < before) complaints.push(`${who} processed ${facts.name(version)} for the first time after ${before}`);
    highest.set(key, Math.max(before, version));
  }
  return complaints;
}

/** No event of a key at one member while another one has it, or an earlier one, and its time is not over. */
function keysWithOne(facts: Facts): readonly string[] {
  const complaints: string[] = [];
  const ofKey = new Map<string, (typeof facts.deliveries)[number][]>();
  const released = releases(facts);
  for (const delivery of facts.deliveries.toSorted((a, b) => a.at - b.at)) {
    const event = facts.truth.get(delivery.version);
    if (event?.key === undefined) continue;
    const key = `${event.topic}/${event.key}`;
    const held = (ofKey.get(key) ?? []).filter(({ at }) => delivery.at - at < facts.all.ackDeadlineMs - ON_ITS_WAY_MS);
    for (const other of held) {
      const { generation, version, who, at } = other;
      if (generation === delivery.generation || version > delivery.version) continue;
      if (released(generation, who, version, at) > delivery.at + CLOCK_MS) {
        complaints.push(
          `${facts.name(delivery.version)} came to ${delivery.who} while ${who} had ${version}, for ${delivery.at - at} ms`,
        );
      }
    }
    ofKey.set(key, [...held, delivery]);
  }
  return complaints;
}

/** When a member had said what became of an event, or was gone. */
function releases(facts: Facts) {
  const said = new Map<string, number[]>();
  for (const { at, generation, versions, rejected } of facts.acknowledgements) {
    for (const version of [...versions, ...rejected]) {
      const name = `${generation} ${version}`;
      said.set(name, [...(said.get(name) ?? []), at]);
    }
  }
  const ended = new Map(facts.notes("ended").map(({ generation, at }) => [generation, at]));
  const killed = facts.notes("killed");
  const moved = facts.moves;
  return (generation: number, who: string, version: number, since: number): number =>
    Math.min(
      ...(said.get(`${generation} ${version}`) ?? []).filter((at) => at >= since),
      // The server knew before its client was told.
      (ended.get(generation) ?? Number.POSITIVE_INFINITY) - ON_ITS_WAY_MS,
      ...killed.filter((note) => note.who === who && note.at >= since).map(({ at }) => at),
      ...moved.filter((at) => at >= since - ON_ITS_WAY_MS),
    );
}

/** What has no key comes when all before it is settled, and nothing after it comes before it is. */
function barriers(facts: Facts): readonly string[] {
  const first = earliest(facts.deliveries, ({ version }) => version);
  const acknowledged = new Map<number, number>();
  for (const { at, versions } of facts.acknowledgements) {
    for (const version of versions) acknowledged.set(version, Math.min(at, acknowledged.get(version) ?? at));
  }
  const settledAt = (version: number) =>
    facts.dead.has(version) ? Number.NEGATIVE_INFINITY : (acknowledged.get(version) ?? Number.POSITIVE_INFINITY);
  const complaints: string[] = [];
  let settledBefore = { at: Number.NEGATIVE_INFINITY, version: 0 };
  let barrier = { at: Number.NEGATIVE_INFINITY, version: 0 };
  for (const version of facts.versions) {
    const came = first.get(version) ?? Number.POSITIVE_INFINITY;
    const isBarrier = facts.truth.get(version)?.key === undefined;
    if (isBarrier && settledBefore.at > came + CLOCK_MS) {
      complaints.push(`${facts.name(version)} came before ${settledBefore.version} was settled`);
    }
    if (barrier.at > came + CLOCK_MS)
      complaints.push(`${facts.name(version)} came before the barrier ${barrier.version}`);
    const at = settledAt(version);
    if (at >= settledBefore.at) settledBefore = { at, version };
    if (isBarrier && at >= barrier.at) barrier = { at, version };
  }
  return complaints;
}

function earliest<T extends { readonly at: number }>(notes: readonly T[], of: (note: T) => number) {
  const first = new Map<number, number>();
  for (const note of notes) first.set(of(note), Math.min(note.at, first.get(of(note)) ?? note.at));
  return first as ReadonlyMap<number, number>;
}
