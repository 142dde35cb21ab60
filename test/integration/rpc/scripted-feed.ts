import { decodeCursor, encodeCursor } from "../../../src/core/cursor.ts";
import { FeedError } from "../../../src/core/errors.ts";
import { NO_STATS } from "../../../src/core/feed/feed-stats.ts";
import type { Feed, FeedStatus, OpenStream, StreamRequest, StreamUpdate } from "../../../src/core/feed.ts";
import type { Frame } from "../../../src/core/frame.ts";
import type { Outlet } from "../../../src/core/outlet.ts";
import type { Publication } from "../../../src/core/ports.ts";

/** What the feed does, for tests of what the wire makes of it. */
export interface Script {
  frames?(request: StreamRequest, signal: AbortSignal): AsyncIterable<Frame>;
  update?(request: StreamUpdate): Promise<number>;
  publish?(request: Publication): Promise<Awaited<ReturnType<Feed["publish"]>>>;
  status?(): Partial<FeedStatus>;
}

export const epoch = "0b61a2d6-7c0c-4b5e-9d52-4c1f3d0e7a11";

export const opened: Frame = {
  kind: "opened",
  epoch,
  version: 7,
  cursor: { epoch, version: 7, fingerprint: 99, snapshot: undefined },
  head: 7,
  oldest: 3,
  streamId: "s".repeat(34),
};

/** A feed that follows a script and counts its streams. The core's own feed is tested beside its stores. */
export function createScriptedFeed(script: Script): Feed {
  let streams = 0;
  return {
    start: async () => undefined,
    stop: async () => undefined,
    drain: async () => undefined,
    status: () => ({
      epoch,
      state: "LIVE",
      head: 7,
      oldest: 3,
      settledAgeMs: 5,
      settledAtMicros: 1_763_689_000_123_456,
      streams,
      logBytes: 1024,
      logEvents: 5,
      logOldest: 3,
      failure: undefined,
      ...script.status?.(),
    }),
    stats: () => NO_STATS,
    update: async (request) => (await script.update?.(request)) ?? 1,
    check: () => undefined,
    locate: async () => opened.cursor,
    recognise: async (cursor) => decodeCursor(cursor),
    async *subscribe(request, signal) {
      streams++;
      try {
        yield* script.frames?.(request, signal) ?? [opened];
      } finally {
        streams--;
      }
    },
    async open(request, signal) {
      streams++;
      const ending = new AbortController();
      const onAbort = () => ending.abort(signal.reason);
      signal.addEventListener("abort", onAbort);
      try {
        const frames = (script.frames?.(request, ending.signal) ?? playOpened())[Symbol.asyncIterator]();
        const first = await frames.next();
        if (first.done === true) throw new Error("the script has no frame");
        return openStream(first.value, frames, ending, () => streams--);
      } catch (error) {
        streams--;
        throw error;
      } finally {
        signal.removeEventListener("abort", onAbort);
      }
    },
    publish: async (request) => script.publish?.(request) ?? { xid: "42", duplicate: false, version: 8 },
  };
}

async function* playOpened(): AsyncGenerator<Frame> {
  yield opened;
}

/** Plays the frames after the first as fast as the outlet takes them. */
function openStream(
  first: Frame,
  frames: AsyncIterator<Frame>,
  ending: AbortController,
  onEnd: () => void,
): OpenStream {
  let ready = Promise.withResolvers<void>();
  let ended = false;
  let outlet: Outlet | undefined;
  let last = first;
  const finish = (error: unknown): void => {
    if (ended) return;
    ended = true;
    ending.abort(error);
    onEnd();
    outlet?.end(withCursor(error, last));
  };
  const play = async (to: Outlet): Promise<void> => {
    try {
      for (let next = await frames.next(); next.done !== true; next = await frames.next()) {
        while (!to.ready) await ready.promise;
        if (ended) return;
        last = next.value;
        to.write(last);
      }
      finish(undefined);
    } catch (error) {
      finish(error);
    }
  };
  return {
    opened: first,
    maxBytes: 1024 * 1024,
    attach(to) {
      outlet = to;
      void play(to);
      return {
        resume() {
          ready.resolve();
          ready = Promise.withResolvers();
        },
        cancel: finish,
      };
    },
    close: () => finish(undefined),
  };
}

/** As the core does. */
function withCursor(error: unknown, last: Frame): unknown {
  return error instanceof FeedError && error.code === "DRAINING"
    ? new FeedError(error.code, error.message, error.action, { ...error.detail, cursor: encodeCursor(last.cursor) })
    : error;
}

/** Pending until the signal aborts, as a stream that has nothing to say. */
export function untilAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
    }
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
