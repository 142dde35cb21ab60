import { encodeCursor } from "../core/cursor.ts";
import type { Event } from "../core/event.ts";
import { cursorAfter } from "../core/event-cursor.ts";
import type { EventsFrame } from "../core/frame.ts";
import type { LaneCodec } from "../core/lane/lane.ts";
import { eventBytes } from "../core/page.ts";
import type { Thinned } from "../core/policy/policy.ts";
import { eventMembers, type PayloadChoice, readableEvent } from "./event-text.ts";
import { frameFields, type OtherFrame, type ToldTerms } from "./frame-text.ts";
import type { TextForm } from "./text-form.ts";

/** What streams have in common that want the same bytes. */
export interface TextEncoderTerms {
  readonly form: TextForm;
  /** Whether events have their payloads. */
  readonly payloads: boolean;
  /** An event that is larger goes without them, and says so. */
  readonly maxMessageBytes: number;
}

/** How the events of streams become text. */
export interface FrameTextEncoder extends TextEncoderTerms {
  readonly codec: LaneCodec;
  /**
   * The frame's bytes, made once for all streams of a lane.
   *
   * @param thinned - as `cursorAfter` has it
   */
  events(frame: EventsFrame, thinned: Thinned | undefined): Uint8Array;
  /** Those of its first events alone. */
  firstEvents(frame: EventsFrame, count: number, thinned: Thinned | undefined): Uint8Array;
  /** Anything else that the feed says. */
  other(frame: OtherFrame, told: ToldTerms): string;
}

/** A cursor outside of snapshots, the names of the members, and what is around an event. */
const AROUND_EVENT_BYTES = 300;

/** Encodes each event by itself, with a cursor of its own. */
export function createFrameTextEncoder(terms: TextEncoderTerms): FrameTextEncoder {
  const { form, payloads, maxMessageBytes } = terms;
  const choose = (event: Event): PayloadChoice => {
    if (!payloads) {
      return "none";
    }
    return eventBytes(event) > maxMessageBytes ? "omitted" : "whole";
  };
  const measure = (event: Event): number => {
    const { before, after } = event;
    const left = choose(event) === "whole" ? 0 : (before?.length ?? 0) + (after?.length ?? 0);
    // In snapshots cursors hold the key.
    return eventBytes(event) + AROUND_EVENT_BYTES + 2 * (event.key?.length ?? 0) - left;
  };
  const encode = (frame: EventsFrame, count: number, thinned: Thinned | undefined): Uint8Array => {
    let text = "";
    for (let index = 0; index < count; index += 1) {
      const event = frame.events[index];
      if (event !== undefined) {
        const complete = frame.complete && index === frame.events.length - 1;
        const members = eventMembers(readableEvent(event, choose(event), complete));
        text += form.change(members, encodeCursor(cursorAfter(frame, index, thinned)));
      }
    }
    return Buffer.from(text);
  };
  return {
    ...terms,
    codec: { identity: `${form.name} ${payloads} ${maxMessageBytes}`, measure, wantsTicks: true },
    events(frame, thinned) {
      const { shared } = frame;
      // What lanes share was thinned for nobody.
      if (shared === undefined) {
        return encode(frame, frame.events.length, thinned);
      }
      shared.bytes ??= encode(frame, frame.events.length, undefined);
      return shared.bytes;
    },
    firstEvents: encode,
    other: (frame, told) => form.other(frame.kind, frameFields(frame, told), encodeCursor(frame.cursor)),
  };
}
