import { encodeCursor } from "../../src/core/cursor.ts";
import type { Frame } from "../../src/core/frame.ts";
import type { SeenFrame } from "../support/checker/seen.ts";
import { seenOf } from "./wants.ts";

/** A frame in the checker's words. Cursors are opaque to it: they go beside the frame. */
export function seenFrameOf(frame: Frame): SeenFrame {
  const cursor = "";
  switch (frame.kind) {
    case "opened":
      return { kind: frame.kind, epoch: frame.epoch, version: frame.version, cursor };
    case "events":
      return { kind: frame.kind, events: frame.events.map(seenOf), complete: frame.complete, cursor };
    case "checkpoint": {
      const { kind, version, state, lagVersions, lagMs } = frame;
      return { kind, version, state, lagVersions, lagMs, cursor };
    }
    case "gap": {
      const { kind, firstVersion, lastVersion, dropped, reason } = frame;
      return { kind, firstVersion, lastVersion, dropped, reason, cursor };
    }
    case "snapshot_started": {
      const { kind, version, restart, resumed } = frame;
      return { kind, version, restart, resumed, cursor };
    }
    case "snapshot_complete":
      return { kind: frame.kind, version: frame.version, rows: frame.rows, cursor };
    case "closing":
      return { kind: frame.kind, cursor };
    default:
      throw new Error(`The simulation knows no ${frame.kind} frame.`);
  }
}

/** What a client would hold of it: through the text, as on the wire. */
export function cursorText(frame: Frame): string {
  return encodeCursor(frame.cursor);
}
