import type { Event } from "../../src/core/event.ts";
import type { Frame } from "../../src/core/frame.ts";
import { type Tick, tickEnd } from "../../src/core/page.ts";
import type { Policy } from "../../src/core/policy/policy.ts";

/** A step of the stream: the frame that came of it, if one did, and what the feed knew as it was made, if that is known. */
export interface Seen {
  readonly frame: Frame | undefined;
  readonly log?: LogThen | undefined;
}

/** What the log held. */
interface LogThen {
  readonly head: number;
  readonly oldest: number;
}

/** All events, from version 1 on, and how they were cut into ticks. */
export interface History {
  readonly events: readonly Event[];
  readonly ticks: readonly Tick[];
}

/** What the stream was asked for. */
export interface Asked {
  readonly start: number;
  readonly wanted: readonly string[];
  readonly policy: Policy;
  readonly everyTick: boolean;
  readonly maxBatchEvents: number;
}

type Gap = Extract<Frame, { kind: "gap" }>;

/**
 * What the frames of a stream say, cuts joined, held against history by the plain meaning of its policy. It knows versions,
 * ticks and keys, and nothing of how a stream works.
 */
export function objectionsTo(seen: readonly Seen[], history: History, asked: Asked): string[] {
  const judge = new PolicyJudge(history, asked);
  for (const each of seen) {
    judge.hear(each);
  }
  return judge.objections;
}

class PolicyJudge {
  readonly objections: string[] = [];
  readonly #history: History;
  readonly #asked: Asked;
  readonly #delivered = new Set<number>();
  readonly #gaps: Gap[] = [];
  readonly #cuts = new Set<number>();
  #last: number;
  /** Everything up to here was delivered or told of. */
  #reached: number;
  #checkpoint: number;
  /** Of DROP_NEWEST: what it keeps, and where there was room again. */
  #full: { readonly until: number; readonly room: number } | undefined;

  constructor(history: History, asked: Asked) {
    this.#history = history;
    this.#asked = asked;
    this.#last = this.#reached = this.#checkpoint = asked.start;
  }

  hear({ frame, log }: Seen): void {
    if (log !== undefined && (frame === undefined || frame.kind === "events" || frame.kind === "gap")) {
      this.#notice(log);
    }
    switch (frame?.kind) {
      case "events":
        this.#events(frame, log);
        break;
      case "gap":
        this.#gap(frame, log);
        break;
      case "checkpoint":
        this.#boundary(frame.version, "checkpoint");
        if (frame.cursor.thinned !== undefined) {
          this.#object(`the checkpoint at ${frame.version} has the cursor of a thinned piece`);
        }
        break;
      case "opened":
        // A cut at the end of a tick is as good as a checkpoint there.
        this.#cuts.add(frame.version);
        this.#full = undefined;
        break;
      default:
        break;
    }
  }

  #events({ events, cursor, complete }: Extract<Frame, { kind: "events" }>, log: LogThen | undefined): void {
    const before = this.#reached;
    const first = events[0]?.version ?? 0;
    if (events.length === 0 || events.length > this.#asked.maxBatchEvents) {
      this.#object(`a batch has ${events.length} events`);
    }
    for (const event of events) {
      if (event.version <= this.#last || !isSame(event, this.#matching(event.version - 1, event.version)[0])) {
        this.#object(`version ${event.version} comes after ${this.#last}`);
      }
      this.#last = event.version;
      this.#delivered.add(event.version);
    }
    this.#reach(Math.max(this.#last, cursor.version), "a batch");
    if (complete) {
      this.#boundary(cursor.version, "complete batch", false);
    }
    if (!complete && this.#isTickEnd(cursor.version) && this.#openGap() === undefined) {
      this.#object(`the batch at ${cursor.version} does not call itself complete`);
    }
    if (this.#asked.everyTick && this.#history.ticks.some((tick) => within(tickEnd(tick), first - 1, this.#last - 1))) {
      this.#object(`a batch from ${first} to ${this.#last} goes on over the end of a tick`);
    }
    if (this.#full !== undefined && this.#last > this.#full.until) {
      this.#object(`it takes ${this.#last} although it was full with ${this.#full.until}`);
    }
    if (log !== undefined) {
      this.#mustHaveJumped(before, log);
    }
  }

  /** About to take more, and too far behind: DROP_NEWEST holds so many of the oldest, and has refused the rest. */
  #notice({ head, oldest }: LogThen): void {
    const { policy, wanted } = this.#asked;
    const at = this.#reached;
    if (
      policy.kind !== "DROP_NEWEST" ||
      wanted.length < 3 ||
      this.#full !== undefined ||
      head - at <= policy.maxLagEvents
    ) {
      return;
    }
    const most = at + policy.maxLagEvents;
    const cut = this.#history.ticks.find(({ firstVersion }) => firstVersion <= most && most < oldest - 1) === undefined;
    const split = this.#history.ticks.find((tick) => tick.firstVersion <= most && tickEnd(tick) > most);
    const whole = split !== undefined && cut && split.firstVersion - 1 > at ? split.firstVersion - 1 : most;
    const room = Math.max(0, ...this.#history.ticks.map(tickEnd).filter((end) => end <= head && end >= oldest - 1));
    this.#full = room > whole ? { until: whole, room } : undefined;
  }

  /** Of DROP_OLDEST without selectors: too far behind, it takes nothing if it can jump. */
  #mustHaveJumped(position: number, { head, oldest }: LogThen): void {
    const { policy, wanted } = this.#asked;
    if (policy.kind !== "DROP_OLDEST" || wanted.length < 3 || head - position <= policy.maxLagEvents) {
      return;
    }
    const newest = this.#history.ticks.find((tick) => tickEnd(tick) >= head);
    const places = this.#history.ticks
      .map(tickEnd)
      .filter((end) => end >= oldest - 1 && end < (newest?.firstVersion ?? 0));
    if (places.some((end) => end > position)) {
      this.#object(`at ${position} it takes events although ${head - position} are behind it`);
    }
  }

  #gap(gap: Gap, log: LogThen | undefined): void {
    const { policy } = this.#asked;
    const { firstVersion, lastVersion, reason, dropped } = gap;
    if (firstVersion <= this.#reached || lastVersion < firstVersion || this.#openGap() !== undefined) {
      this.#object(`a gap from ${firstVersion} to ${lastVersion} comes at ${this.#reached}`);
    }
    if (reason !== policy.kind || dropped === 0) {
      this.#object(`a gap of ${dropped} for ${reason}`);
    }
    // What lies before it without being told of must be nothing.
    this.#reach(firstVersion - 1, "a gap");
    this.#gaps.push(gap);
    if (policy.kind === "DROP_OLDEST" || policy.kind === "DROP_NEWEST") {
      this.#jump(gap, log?.head);
    } else if (log !== undefined && log.head - (firstVersion - 1) <= policy.maxLagEvents) {
      this.#object(`thinned at a lag of ${log.head - (firstVersion - 1)}`);
    }
  }

  #jump({ lastVersion, firstVersion, cursor }: Gap, head: number | undefined): void {
    const { kind, maxLagEvents } = this.#asked.policy;
    if (!this.#isTickEnd(lastVersion) || cursor.version !== lastVersion || lastVersion > (head ?? lastVersion)) {
      this.#object(`it lands at ${lastVersion} with the cursor at ${cursor.version}`);
    }
    this.#reach(lastVersion, "a jump");
    if (this.#full !== undefined && (firstVersion - 1 !== this.#full.until || lastVersion !== this.#full.room)) {
      this.#object(
        `from ${firstVersion} to ${lastVersion} it refuses, not from ${this.#full.until} to ${this.#full.room}`,
      );
    }
    this.#full = undefined;
    if (kind === "DROP_OLDEST" && head !== undefined) {
      const newest = this.#history.ticks.find((tick) => tickEnd(tick) >= head);
      const newestBegins = newest?.firstVersion ?? head;
      if (head - (firstVersion - 1) <= maxLagEvents) {
        this.#object(`jumped at a lag of ${head - (firstVersion - 1)}`);
      }
      if (head - lastVersion > maxLagEvents / 2 && lastVersion < newestBegins - 1) {
        this.#object(`the jump leaves a lag of ${head - lastVersion}`);
      }
      if (lastVersion >= newestBegins) {
        this.#object(`the jump to ${lastVersion} leaves nothing of the newest tick`);
      }
    }
  }

  #boundary(version: number, what: string, counted = true): void {
    if (!this.#isTickEnd(version) || version < this.#last) {
      this.#object(`the ${what} at ${version} is in the middle of a tick, or behind ${this.#last}`);
    }
    this.#reach(version, what);
    if (this.#gaps.some((gap) => version >= gap.firstVersion && version < gap.lastVersion)) {
      this.#object(`the ${what} at ${version} is inside a gap`);
    }
    if (counted) {
      this.#count(this.#checkpoint, version);
      this.#checkpoint = version;
    }
  }

  /** Between two checkpoints what came and what is said to be left out is all there is. */
  #count(from: number, to: number): void {
    const matching = this.#matching(from, to);
    const came = matching.filter(({ version }) => this.#delivered.has(version)).length;
    const gaps = this.#gaps.filter((gap) => gap.lastVersion > from && gap.firstVersion <= to);
    const dropped = gaps.reduce((sum, gap) => sum + (gap.dropped ?? Number.NaN), 0);
    if (!Number.isNaN(dropped) && came + dropped !== matching.length) {
      this.#object(`from ${from} to ${to} came ${came} and ${dropped} were left out of ${matching.length}`);
    }
    if (this.#asked.everyTick) {
      const ends = this.#history.ticks.map(tickEnd).filter((end) => within(end, from, to - 1));
      const untold = ends.filter(
        (end) => !this.#cuts.has(end) && !gaps.some((gap) => end >= gap.firstVersion && end < gap.lastVersion),
      );
      if (untold.length > 0) {
        this.#object(`no checkpoint at ${untold.join()}`);
      }
    }
  }

  /** Whatever is missing up to here is missing because a gap said so, and is what the policy leaves out. */
  #reach(to: number, where: string): void {
    for (const { version } of this.#matching(this.#reached, to)) {
      const gap = this.#gaps.find((each) => version >= each.firstVersion && version <= each.lastVersion);
      if (!this.#delivered.has(version) && gap === undefined) {
        this.#object(`${where} at ${to}: version ${version} is missing`);
      }
      if (gap !== undefined && this.#delivered.has(version) !== this.#keeps(gap).has(version)) {
        this.#object(`${where} at ${to}: version ${version} of a gap by ${gap.reason}`);
      }
    }
    this.#reached = Math.max(this.#reached, to);
  }

  #openGap(): Gap | undefined {
    return this.#gaps.find((gap) => gap.lastVersion > this.#reached);
  }

  #keeps({ firstVersion, lastVersion }: Gap): ReadonlySet<number> {
    const { kind, sampleEvery } = this.#asked.policy;
    const matching = this.#matching(firstVersion - 1, lastVersion);
    switch (kind) {
      case "LATEST":
        return newestOfKeys(matching);
      case "SAMPLE":
        return new Set(
          matching.filter((_, i) => (matching.length - 1 - i) % sampleEvery === 0).map(({ version }) => version),
        );
      default:
        return new Set();
    }
  }

  #matching(after: number, to: number): readonly Event[] {
    return this.#history.events.slice(after, to).filter(({ topic }) => this.#asked.wanted.includes(topic));
  }

  #isTickEnd(version: number): boolean {
    return version === 0 || this.#history.ticks.some((tick) => tickEnd(tick) === version);
  }

  #object(what: string): void {
    this.objections.push(what);
  }
}

/** As whoever applies all of them in turn finds it: what a later one has put out of date goes. */
function newestOfKeys(events: readonly Event[]): ReadonlySet<number> {
  const byPlace = new Map<string, number>();
  const kept = new Set<number>();
  const replace = (place: string, version: number | undefined) => {
    kept.delete(byPlace.get(place) ?? -1);
    byPlace.delete(place);
    if (version !== undefined) {
      byPlace.set(place, version);
      kept.add(version);
    }
  };
  for (const { version, topic, key, operation } of events) {
    if (operation === "TRUNCATE") {
      for (const place of [...byPlace.keys()].filter((each) => each.startsWith(`${topic}/`))) {
        replace(place, undefined);
      }
      replace(`${topic}/`, version);
    } else if (key === undefined) {
      kept.add(version);
    } else {
      replace(`${topic}/${key}`, version);
    }
  }
  return kept;
}

function isSame(a: Event, b: Event | undefined): boolean {
  return a.version === b?.version && a.topic === b.topic && a.key === b.key && a.operation === b.operation;
}

function within(version: number, after: number, to: number): boolean {
  return version > after && version <= to;
}
