import type { EventBatch, SubscribeResponse } from "../../../gen/millrace/v1/feed_service_pb.js";
import { type Cursor, decodeCursor, encodeCursor } from "../../core/cursor.ts";
import { cursorAfter } from "../../core/event-cursor.ts";
import type { Thinned } from "../../core/policy/policy.ts";
import { operationFromWire } from "../../rpc/event-fields.ts";

/** Gives each event of a stream a cursor of its own, from those of its batches. Is to see every frame. */
export class EventCursors {
  #thinned: Thinned | undefined;

  /**
   * Each resumes exactly after its event. Only the last has one in a snapshot, where the server alone knows the row's own key,
   * and where the batch's cursor is of a form that this version does not know.
   */
  of({ events, cursor: text, complete }: EventBatch): readonly (string | undefined)[] {
    const cursor = known(text);
    if (cursor === undefined || cursor.snapshot !== undefined)
      return events.map((_, index) => (index === events.length - 1 ? text : undefined));
    const placed = events.map(({ version, operation, key }) => ({
      version: Number(version),
      operation: operationFromWire(operation) ?? ("MESSAGE" as const),
      key,
    }));
    const frame = { events: placed, cursor, complete, ticks: undefined };
    const last = events.length - 1;
    return placed.map((_, index) => (index === last ? text : encodeCursor(cursorAfter(frame, index, this.#thinned))));
  }

  /** Remembers what a policy has said that it leaves out. */
  pass({ frame }: SubscribeResponse): void {
    if (frame.value === undefined || !("cursor" in frame.value)) return;
    this.#thinned = known(frame.value.cursor)?.thinned ?? this.#thinned;
  }
}

function known(text: string): Cursor | undefined {
  try {
    return decodeCursor(text);
  } catch {
    return undefined;
  }
}
