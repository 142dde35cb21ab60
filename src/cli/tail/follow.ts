import { setTimeout as delay } from "node:timers/promises";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorDetailSchema } from "../../../gen/millrace/v1/error_pb.js";
import {
  ClosingReason,
  PolicyKind,
  type SubscribeRequest,
  type SubscribeResponse,
} from "../../../gen/millrace/v1/feed_service_pb.js";
import type { FeedErrorCode } from "../../core/errors.ts";
import { exitCode } from "../exit-code.ts";
import { Failure, feedErrorCodeOf } from "../failure.ts";
import { connectFeed } from "../feed-client.ts";
import { resumeAt, type StartPosition } from "./start-position.ts";

/** What to follow, and where to. */
export interface FollowOptions {
  readonly url: string;
  readonly start: StartPosition;
  readonly request: Pick<SubscribeRequest, "selectors" | "payloadForm" | "delivery" | "member">;
  readonly signal: AbortSignal;
  /** Told in a sentence when the stream is cut and when it goes on. */
  readonly note: (sentence: string) => void;
}

/** Failures that the same request meets again, however often it is repeated. */
const final: ReadonlySet<FeedErrorCode> = new Set<FeedErrorCode>([
  "HISTORY_LOST",
  "EPOCH_CHANGED",
  "CURSOR_INVALID",
  "TOPIC_FORBIDDEN",
  "SOURCE_NOT_FOUND",
  "SUBSCRIPTION_NOT_FOUND",
  "SUBSCRIPTION_PAUSED",
  "INVALID_REQUEST",
  "INTERNAL",
]);

const endings: ReadonlyMap<ClosingReason, ConstructorParameters<typeof Failure>> = new Map([
  [
    ClosingReason.TAKEN_OVER,
    [
      "SUBSCRIPTION_FENCED",
      exitCode.failure,
      "another consumer has taken the subscription over.",
      "Start again to take it back; what was not acknowledged comes again.",
    ],
  ],
  [
    ClosingReason.PAUSED,
    [
      "SUBSCRIPTION_PAUSED",
      exitCode.failure,
      "the subscription was paused.",
      "Resume it: `millrace subscription resume NAME`.",
    ],
  ],
  [
    ClosingReason.DELETED,
    ["SUBSCRIPTION_NOT_FOUND", exitCode.failure, "the subscription was deleted.", "Create it anew."],
  ],
]);

const firstBackOffMs = 200;
const longestBackOffMs = 10_000;
/** Until `opened` says what was agreed: a snapshot may be prepared first. */
const silenceBeforeOpenedMs = 40_000;
/** Checkpoints come within an interval and a tenth of jitter: two may be missed. */
const silentIntervals = 2.4;

/**
 * Every frame of a subscription, across as many connections as it takes: after a network failure, a server restart or
 * `closing` it goes on exactly after the last frame that carried a cursor, so nothing is lost and nothing comes twice.
 * (A snapshot that was cut goes on, after a `snapshot_started` that says `resumed`; where it cannot, its rows come again, after
 * one that says `restart`.) `closing` is not passed on.
 *
 * By subscription it goes on after what was acknowledged, and ends when somebody else takes that, pauses or deletes it.
 *
 * When the database has begun a new epoch, the cursor is asked for once more: at or below the fork it goes on there.
 *
 * The first connection must succeed: what fails before its `opened` is thrown, as is what no repetition can mend.
 */
export async function* follow(options: FollowOptions): AsyncGenerator<SubscribeResponse> {
  const position = new Position(options.start);
  for (let failures = 0; ; failures += 1) {
    const progress = position.frames;
    let pauseMs: number;
    try {
      pauseMs = yield* connection(options, position);
      if (position.closing !== ClosingReason.MAX_AGE) {
        options.note("the server closed the stream; going on where it ended");
      }
    } catch (error) {
      options.signal.throwIfAborted();
      // Of an open stream it says that its epoch has ended; of one that was to be opened, that its position is no good.
      const ended = feedErrorOf(error) === "EPOCH_CHANGED" && position.frames > progress;
      if (!position.opened || !(ended || mayPass(error)) || isAskedFor(error, options)) throw error;
      const cut = ended
        ? `the epoch of the stream has ended (${reason(error)}); asking for what comes after version ${position.version}`
        : `the stream was cut (${reason(error)}); going on after version ${position.version}`;
      // An outage is told once for each of its reasons, not with each attempt.
      if (cut !== position.cut) options.note(cut);
      position.cut = cut;
      pauseMs = retryAfterMs(error);
    }
    if (position.frames > progress) failures = 0;
    const backOff = Math.min(firstBackOffMs * 2 ** failures, longestBackOffMs);
    await delay(Math.max(pauseMs, backOff) * (0.5 + Math.random()), undefined, { signal: options.signal });
  }
}

/** One connection, until it ends; returns how long to wait before the next. */
async function* connection(options: FollowOptions, position: Position): AsyncGenerator<SubscribeResponse, number> {
  const call = new AbortController();
  const { client, close } = connectFeed(options.url);
  try {
    const member = position.member || options.request.member;
    const request = { ...options.request, start: position.start, member };
    const frames = client.subscribe(request, { signal: AbortSignal.any([options.signal, call.signal]) });
    const iterator = frames[Symbol.asyncIterator]();
    let silenceMs = silenceBeforeOpenedMs;
    for (;;) {
      const { done, value } = await unlessSilent(iterator.next(), silenceMs);
      if (done === true) return 0;
      if (value.frame.case === "closing") {
        position.pass(value);
        const { retryAfter, reason } = value.frame.value;
        position.closing = reason;
        assertMayComeAgain(reason);
        return reason === ClosingReason.DEADLINE || retryAfter === undefined ? 0 : durationMs(retryAfter);
      }
      if (value.frame.case === "opened" && position.cut !== undefined) {
        options.note(backIn(position.epoch, value.frame.value.epoch));
        position.cut = undefined;
      }
      if (value.frame.case === "opened") silenceMs = agreedSilenceMs(value) ?? silenceMs;
      position.pass(value);
      yield value;
    }
  } finally {
    call.abort();
    close();
  }
}

function backIn(before: string, epoch: string): string {
  return before === epoch || before === "" ? "the stream is back" : `the stream is back, in epoch ${epoch}`;
}

/** The time that the consumer takes over a frame does not count: only the wait for the next one is the server's. */
async function unlessSilent<T>(next: Promise<T>, limitMs: number): Promise<T> {
  const watchdog = new AbortController();
  const silence = delay(limitMs, undefined, { signal: watchdog.signal }).then(() => {
    throw new ConnectError(`nothing was heard for ${Math.round(limitMs / 100) / 10} s`, Code.Unavailable);
  });
  try {
    return await Promise.race([next, silence]);
  } catch (error) {
    next.catch(() => undefined);
    throw error;
  } finally {
    silence.catch(() => undefined);
    watchdog.abort();
  }
}

function agreedSilenceMs({ frame }: SubscribeResponse): number | undefined {
  if (frame.case !== "opened" || frame.value.checkpointInterval === undefined) return undefined;
  return silentIntervals * durationMs(frame.value.checkpointInterval);
}

/** Whoever has taken, paused or deleted a subscription meant it: to come again at once would be to fight. */
function assertMayComeAgain(reason: ClosingReason): void {
  const told = endings.get(reason);
  if (told !== undefined) throw new Failure(...told);
}

/** Where the next connection starts. */
class Position {
  start: StartPosition;
  opened = false;
  /** What was told of the outage that is not over. */
  cut: string | undefined;
  frames = 0;
  /** Why the last connection ended, if the server closed it. */
  closing: ClosingReason | undefined;
  version = 0n;
  epoch = "";
  /** In a group: whom it was taken for, so that it is the same one when it comes again. */
  member = "";

  constructor(start: StartPosition) {
    this.start = start;
  }

  pass({ frame }: SubscribeResponse): void {
    this.frames += 1;
    if (frame.case === "opened") {
      this.opened = true;
      this.epoch = frame.value.epoch;
      this.member = frame.value.lease?.member ?? "";
    }
    if (frame.case === "opened" || frame.case === "checkpoint") this.version = frame.value.version;
    if (frame.case === "events") this.version = frame.value.events.at(-1)?.version ?? this.version;
    // A subscription knows better where it goes on.
    if (this.start.case === "subscriptionId") return;
    if (frame.value !== undefined && "cursor" in frame.value && frame.value.cursor !== "") {
      this.start = resumeAt(frame.value.cursor);
    }
  }
}

function mayPass(error: unknown): boolean {
  if (!(error instanceof ConnectError)) return false;
  const code = feedErrorOf(error);
  return code === undefined || !final.has(code);
}

/** Whoever chose to be disconnected rather than to lag is told when that happens. */
function isAskedFor(error: unknown, { request }: FollowOptions): boolean {
  return feedErrorOf(error) === "SLOW_CONSUMER" && request.delivery?.policy?.kind === PolicyKind.DISCONNECT;
}

function feedErrorOf(error: unknown): FeedErrorCode | undefined {
  return error instanceof ConnectError ? feedErrorCodeOf(error) : undefined;
}

function retryAfterMs(error: unknown): number {
  const retryAfter = error instanceof ConnectError ? error.findDetails(ErrorDetailSchema)[0]?.retryAfter : undefined;
  return retryAfter === undefined ? 0 : durationMs(retryAfter);
}

/** What happened, without what to do: that is being done. */
function reason(error: unknown): string {
  if (!(error instanceof ConnectError)) return String(error);
  const action = error.findDetails(ErrorDetailSchema)[0]?.action ?? "";
  const told = action === "" ? error.rawMessage : error.rawMessage.replace(` ${action}`, "");
  return told.replace(/[.\s]+$/, "");
}
