import type { Feed, OpenStream } from "../feed.ts";
import type { Clock, Timers } from "../ports.ts";
import { ConsumerStream, type EndedByOthers } from "./consumer-stream.ts";
import type { HeldStream, Holding } from "./holding.ts";
import { inTermsOf } from "./subscription-failures.ts";
import type { SubscriptionRecord } from "./subscription-store.ts";
import type { SubscriptionTerms } from "./subscriptions.ts";

/** What streams of holdings are opened with. */
export interface OpeningContext {
  readonly feed: Pick<Feed, "open">;
  readonly clock: Clock;
  readonly timers: Timers;
  /** The holding has deliveries that the database does not know of. */
  delivered(holding: Holding): void;
  /** Its stream has ended. */
  rest(holding: Holding): void;
  /** An event was delivered again. */
  onRedelivered(): void;
}

/**
 * Opens the stream of a holding, after what is acknowledged. Whoever ends the holding while the stream is being opened ends the
 * stream once it is open.
 */
export async function openHolding(
  holding: Holding,
  record: SubscriptionRecord,
  { request }: SubscriptionTerms,
  context: OpeningContext,
  signal: AbortSignal,
): Promise<OpenStream> {
  holding.begin(record.position, context.clock.monotonic());
  let endedWith: EndedByOthers | undefined;
  let held: HeldStream = { endWith: (reason) => (endedWith ??= reason) };
  const ended = (): void => {
    if (holding.stream === held) {
      holding.stream = undefined;
    }
    context.rest(holding);
  };
  holding.stream = held;
  try {
    const start = { kind: "cursor", cursor: record.position.cursor } as const;
    const opened = await context.feed.open({ ...request, start, afterTransaction: undefined }, signal);
    const stream = new ConsumerStream(consumerContext(holding, context, ended), {
      stream: opened,
      lease: {
        subscriptionId: holding.id,
        generation: holding.generation,
        member: undefined,
        maxInFlight: undefined,
      },
      measure: (event) => request.codec.measure(event),
      maxBatchBytes: request.maxBatchBytes,
    });
    if (endedWith === undefined) {
      held = stream;
      holding.stream = stream;
    } else {
      stream.endWith(endedWith);
    }
    return stream;
  } catch (error) {
    ended();
    throw inTermsOf(holding.id, error);
  }
}

function consumerContext(holding: Holding, context: OpeningContext, ended: () => void) {
  return {
    timers: context.timers,
    ended,
    repeats: holding.repeats.bind(holding),
    marked(event: Parameters<Holding["marked"]>[0]) {
      const marked = holding.marked(event);
      if (marked !== event) {
        context.onRedelivered();
      }
      return marked;
    },
    saw(frame: Parameters<Holding["saw"]>[0]) {
      holding.saw(frame);
      if (holding.untold) {
        context.delivered(holding);
      }
    },
  };
}
