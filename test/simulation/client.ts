import { decodeCursor } from "../../src/core/cursor.ts";
import { FeedError } from "../../src/core/errors.ts";
import type { OpenStream, Start, StreamRequest } from "../../src/core/feed.ts";
import type { Frame } from "../../src/core/frame.ts";
import type { Complaint, SeenFrame } from "../support/checker/seen.ts";
import { type Standing, StoryJudge, standingAt, type Terms } from "../support/checker/story.ts";
import { cursorText, seenFrameOf } from "./frame-seen.ts";
import { type Appetite, FAST, SeededOutlet } from "./outlet.ts";
import type { Replica } from "./replica.ts";
import { SnapshotStory } from "./snapshot-story.ts";
import type { Tally } from "./tally.ts";
import type { VirtualTime } from "./virtual-time.ts";
import type { Want } from "./wants.ts";

/** What the frames of a client go through on their way to the judge: faults are planted here. */
export type FrameFilter = (frame: Frame) => readonly Frame[];

/** What a client is made of. */
export interface ClientOptions {
  readonly name: string;
  readonly number: number;
  readonly time: VirtualTime;
  readonly tally: Tally;
  readonly want: Want;
  readonly request: Omit<StreamRequest, "start">;
  readonly terms: Terms;
  readonly inline: boolean;
  readonly spoil: FrameFilter | undefined;
  /** The oldest version that the database keeps. */
  readonly oldest: () => number;
}

/** What a client held after a frame. */
interface Mark {
  readonly standing: Standing;
  readonly frame: Frame;
}

interface Call {
  readonly replica: Replica;
  readonly judge: StoryJudge;
  readonly opening: AbortController;
  outlet: SeededOutlet | undefined;
  stream: OpenStream | undefined;
  sinceMs: number;
  lastFrameAtMs: number;
  closing: boolean;
  ended: boolean;
  cutByClient: boolean;
}

/** Where a client begins when nothing is left to go on from. */
export type NewStart = Exclude<Start, { kind: "cursor" }>;

/** One client and its story: calls, each of which goes on from a cursor of those before. */
export class Client {
  readonly options: ClientOptions;
  appetite: Appetite = FAST;
  /** No call of it is open or being opened. */
  #call: Call | undefined;
  #marks: Mark[] = [];
  #standing: Standing | undefined;
  #snapshot: SnapshotStory | undefined;
  #begun: NewStart | undefined;
  /** The newest version that was settled when it began. */
  #headThen = 0;
  #hurries = false;
  /** It must begin anew: what it holds leads nowhere. */
  #lost = true;

  constructor(options: ClientOptions) {
    this.options = options;
  }

  get idle(): boolean {
    return this.#call === undefined;
  }

  get replica(): Replica | undefined {
    return this.#call?.replica;
  }

  get lost(): boolean {
    return this.#lost;
  }

  get opened(): boolean {
    return this.#call?.stream !== undefined && !this.#call.ended;
  }

  get standing(): Standing | undefined {
    return this.#standing;
  }

  get inSnapshot(): boolean {
    return this.#snapshot !== undefined;
  }

  /** Virtual milliseconds for which its client would have taken a frame and none came; 0 when it would not have. */
  get hungryForMs(): number {
    const { outlet, sinceMs, lastFrameAtMs, ended } = this.#call ?? {};
    if (outlet === undefined || ended !== false) {
      return 0;
    }
    const since = Math.max(outlet.readySinceMs, sinceMs ?? 0, lastFrameAtMs ?? 0);
    return Math.max(0, this.options.time.nowMs - since);
  }

  /** What is owed to it of what was settled up to a version. */
  owed(version: number): number | undefined {
    const { judge } = this.#call ?? {};
    const standing = this.#standing;
    return judge === undefined || standing === undefined ? undefined : judge.owes(standing, version)?.version;
  }

  /** Begins a story. */
  begin(replica: Replica, start: NewStart): void {
    this.#marks = [];
    this.#standing = undefined;
    this.#snapshot = undefined;
    this.#lost = false;
    this.#begun = start;
    this.#open(replica, start);
  }

  /** Goes on from the last cursor, or so many frames before it. */
  resume(replica: Replica, framesBack: number): void {
    const back = this.#snapshot === undefined ? framesBack : 0;
    const at = Math.max(0, this.#marks.length - 1 - back);
    const mark = this.#marks[at];
    if (mark === undefined) {
      this.#open(replica, this.#begun ?? { kind: "now" });
      return;
    }
    this.#marks = this.#marks.slice(0, at + 1);
    this.#standing = mark.standing;
    if (mark.frame.cursor.epoch !== replica.truth.epoch) {
      // What was left out of the rest of a piece may be another thing now: all of it is delivered, and so not counted.
      this.#standing = { ...mark.standing, piece: undefined, dropped: Number.NaN, gapped: true };
    }
    this.#open(replica, { kind: "cursor", cursor: cursorText(mark.frame) });
  }

  /** Whoever is at the other end is gone, all at once. */
  cut(): void {
    const call = this.#call;
    if (call === undefined) {
      return;
    }
    call.cutByClient = true;
    this.#call = undefined;
    call.opening.abort(new Error("cut"));
    if (call.outlet?.control !== undefined) {
      call.outlet.control.cancel(new Error("cut"));
    } else {
      call.stream?.close();
    }
  }

  setAppetite(appetite: Appetite): void {
    this.appetite = appetite;
    if (this.#call?.outlet !== undefined) {
      this.#call.outlet.appetite = appetite;
    }
  }

  /** From the next call on it does not limit its rate any more. */
  hurry(): void {
    this.#hurries = true;
    if (this.options.request.maxEventsPerSecond !== undefined) {
      this.cut();
    }
  }

  /** Told again that it may go on, although it never stopped. */
  nudge(): void {
    this.#call?.outlet?.control?.resume();
  }

  #open(replica: Replica, start: Start): void {
    const { time, terms, name, tally } = this.options;
    const { maxEventsPerSecond: limit, ...rest } = this.options.request;
    const request = { ...rest, maxEventsPerSecond: this.#hurries ? undefined : limit };
    const call: Call = {
      replica,
      judge: new StoryJudge(replica.truth, terms, name),
      opening: new AbortController(),
      outlet: undefined,
      stream: undefined,
      sinceMs: time.nowMs,
      lastFrameAtMs: time.nowMs,
      closing: false,
      ended: false,
      cutByClient: false,
    };
    this.#call = call;
    this.#headThen = replica.feed.status().head;
    tally.count("calls");
    replica.feed.open({ ...request, start }, call.opening.signal).then(
      (stream) => this.#opened(call, stream, start),
      (error: unknown) => this.#refused(call, error, start),
    );
  }

  #opened(call: Call, stream: OpenStream, start: Start): void {
    const { time, inline } = this.options;
    if (call.cutByClient) {
      stream.close();
      return;
    }
    call.stream = stream;
    call.sinceMs = time.nowMs;
    const consumer = {
      take: (frame: Frame) => this.#take(call, frame),
      ended: (error: unknown) => this.#ended(call, error),
      object: (text: string) => this.#object("G9", text),
    };
    this.#checkStart(call, stream.opened, start);
    this.#take(call, stream.opened);
    call.outlet = new SeededOutlet(time, consumer, { inline, appetite: this.appetite });
    const control = stream.attach(call.outlet);
    call.outlet.control = control;
  }

  #checkStart(call: Call, frame: Frame, start: Start): void {
    const version = frame.kind === "opened" ? frame.version : Number.NaN;
    const { truth, heads } = call.replica;
    const head = Math.max(...heads);
    if (start.kind === "now" && (version < this.#headThen || version > head)) {
      this.#object("G8", `"now" began after v${version}, when v${this.#headThen} to v${head} were the newest`);
    }
    if (start.kind === "version" && version !== start.version) {
      this.#object("G8", `a start after v${start.version} began after v${version}`);
    }
    if (start.kind === "time") {
      const next = truth.boundaryAfter(version);
      const tick = next === undefined ? undefined : truth.tickOf(next);
      if (!truth.isBoundary(version) || (tick !== undefined && tick.timeMicros <= start.timeMicros)) {
        this.#object("G8", `a start at a time began after v${version}`);
      }
    }
    if (start.kind === "cursor" && this.#snapshot === undefined) {
      const cursor = decodeCursor(start.cursor);
      if (cursor.snapshot === undefined && cursor.version !== version) {
        this.#object("G8", `the cursor of v${cursor.version} went on after v${version}`);
      }
    }
  }

  #take(call: Call, frame: Frame): void {
    const frames = this.options.spoil?.(frame) ?? [frame];
    for (const each of frames) {
      this.#hear(call, each);
    }
  }

  #hear(call: Call, frame: Frame): void {
    const { time, tally, number } = this.options;
    call.lastFrameAtMs = time.nowMs;
    const seen = seenFrameOf(frame);
    tally.count(frame.kind);
    const size = seen.kind === "events" ? seen.events.length : 0;
    tally.count("events delivered", size);
    tally.mix([number, time.nowMs * 1000, frame.kind.length, frame.cursor.version, size]);
    if (call !== this.#call || call.closing) {
      this.#object("G8", `a ${frame.kind} frame came after the end`);
      return;
    }
    call.closing = frame.kind === "closing";
    if (this.#snapshot !== undefined || frame.cursor.snapshot !== undefined) {
      this.#hearSnapshot(call, seen, frame);
      return;
    }
    if (frame.kind === "checkpoint" && frame.state === "SNAPSHOT") {
      this.#object("G5", "a checkpoint says that there is a snapshot, and there is none");
    }
    const around = { cursorVersion: frame.cursor.version, heads: call.replica.heads, nowMs: time.now() };
    const before = this.#standing ?? standingAt(seen.kind === "opened" ? seen.version : 0);
    this.#standing = call.judge.hear(before, seen, around);
    this.#collect(call);
    this.#mark(frame);
  }

  #hearSnapshot(call: Call, seen: SeenFrame, frame: Frame): void {
    const { want } = this.options;
    this.#snapshot ??= new SnapshotStory((text) => this.#object("G7", text));
    if (seen.kind === "snapshot_started") {
      this.#snapshot.started(seen);
    } else if (seen.kind === "events") {
      this.#snapshot.apply(seen.events);
      if (seen.complete) {
        this.#object("G5", "a batch of a snapshot says that it is complete");
      }
    } else if (seen.kind === "checkpoint" && seen.state !== "SNAPSHOT") {
      this.#object("G5", `a checkpoint in a snapshot says ${seen.state}`);
    } else if (seen.kind === "snapshot_complete") {
      this.#snapshot.complete(seen.version, call.replica.truth.events, want);
      this.#snapshot = undefined;
      this.#standing = standingAt(seen.version);
    }
    this.#mark(frame);
  }

  #mark(frame: Frame): void {
    const standing = this.#standing ?? standingAt(frame.cursor.version);
    if (this.#snapshot !== undefined || frame.kind === "snapshot_complete") {
      this.#marks = [];
    }
    this.#marks.push({ standing, frame });
  }

  #collect({ judge }: Call): void {
    for (const { guarantee, text } of judge.complaints.splice(0)) {
      this.#object(guarantee, text);
    }
  }

  #ended(call: Call, error: unknown): void {
    call.ended = true;
    if (call.cutByClient || call !== this.#call) {
      return;
    }
    this.#call = undefined;
    const { tally, time } = this.options;
    if (error === undefined) {
      tally.count("closings");
      if (!call.closing) {
        this.#object("G8", "a stream ended without a word");
      }
      return;
    }
    const code = error instanceof FeedError ? error.code : "not an error of a feed";
    tally.count(`ended with ${code}`);
    const { cursor } = error instanceof FeedError ? error.detail : {};
    if (cursor !== undefined && this.#snapshot === undefined && this.#standing !== undefined) {
      const cursorVersion = decodeCursor(cursor).version;
      const around = { cursorVersion, heads: call.replica.heads, nowMs: time.now() };
      call.judge.hear(this.#standing, { kind: "closing", cursor: "" }, around);
      this.#collect(call);
    }
    this.#excuse(call, code, error);
  }

  /** Whether a stream may end with this. */
  #excuse(call: Call, code: string, error: unknown): void {
    const { request } = this.options;
    const { replica } = call;
    const stuck = call.outlet?.ready === false;
    const excused =
      (code === "SLOW_CONSUMER" && (request.policy?.kind === "DISCONNECT" || stuck)) ||
      code === replica.overWith ||
      (code === "HISTORY_LOST" && this.#isForgotten(error)) ||
      (code === "DRAINING" && replica.state !== "up") ||
      (code === "DATABASE_UNAVAILABLE" && this.#snapshot !== undefined);
    if (!excused) {
      this.#object("G8", `a stream ended with ${code}: ${String(error)}`);
    }
    this.#lost = code === "HISTORY_LOST" || code === "EPOCH_CHANGED";
    if (code === "EPOCH_CHANGED") {
      this.#goBackTo(error instanceof FeedError ? error.detail.forkVersion : undefined);
    }
  }

  #refused(call: Call, error: unknown, start: Start): void {
    call.ended = true;
    if (call.cutByClient || call !== this.#call) {
      return;
    }
    this.#call = undefined;
    const code = error instanceof FeedError ? error.code : "not an error of a feed";
    this.options.tally.count(`refused with ${code}`);
    const passing = ["DATABASE_UNAVAILABLE", "DRAINING", "LIMIT_EXCEEDED"].includes(code);
    const excused =
      passing ||
      code === "EPOCH_CHANGED" ||
      (code === "HISTORY_LOST" && this.#isForgotten(error, start)) ||
      (code === "CURSOR_INVALID" && start.kind === "version" && start.version > this.#headThen);
    if (!excused) {
      this.#object("G8", `a start from ${start.kind} was refused with ${code}: ${String(error)}`);
    }
    this.#lost = !passing;
    if (code === "EPOCH_CHANGED") {
      this.#goBackTo(error instanceof FeedError ? error.detail.forkVersion : undefined);
    }
  }

  /** What came after the fork is void. */
  #goBackTo(fork: number | undefined): void {
    const shared = fork ?? -1;
    const at = this.#marks.findLastIndex(({ standing, frame }) => {
      return standing.reached <= shared && frame.cursor.version <= shared;
    });
    this.#lost = at < 0 || this.#snapshot !== undefined;
    this.#marks = this.#marks.slice(0, at + 1);
  }

  /** The next version for this client is older than what the error says is kept, and that is what is kept. */
  #isForgotten(error: unknown, start?: Start): boolean {
    const oldest = error instanceof FeedError ? (error.detail.oldestVersion ?? 0) : 0;
    const next = start?.kind === "version" ? start.version + 1 : (this.#standing?.reached ?? 0) + 1;
    return oldest <= this.options.oldest() && (oldest > next || (start?.kind === "time" && oldest > 1));
  }

  #object(guarantee: Complaint["guarantee"], text: string): void {
    this.options.tally.object(guarantee, this.options.name, text);
  }
}
