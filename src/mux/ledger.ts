import type { MuxedBody } from "./body.ts";
import { INITIAL_WINDOW } from "./frame.ts";
import type { Outflow } from "./outflow.ts";
import { ConnectionWindow, StreamWindow } from "./window.ts";

/** What is known of one connection from the frames that passed in either direction. */
export class Ledger {
  readonly connection = new ConnectionWindow();
  /** Streams that the server has not ended and nobody has reset. As many as the library lets the peer have open. */
  readonly streams = new Map<number, StreamWindow>();
  /** Those whose DATA frames are written here. */
  readonly bodies = new Map<number, MuxedBody>();
  readonly outflow: Outflow;
  /** The peer's SETTINGS_INITIAL_WINDOW_SIZE. */
  initialWindow = INITIAL_WINDOW;
  /** The same, as the library was told: less where `libraryExcess` asks for it. */
  libraryInitialWindow = INITIAL_WINDOW;
  /** The last stream that the library will answer; it is silent about later ones once it has said so. */
  lastAnswered = Number.POSITIVE_INFINITY;
  /** The code of the last GOAWAY that the library sent. */
  goawayCode: number | undefined;
  /** The library has given the connection up: nothing may follow its GOAWAY. */
  dead = false;
  /** Has the connection look after its streams before this turn of the event loop ends. */
  readonly schedule: () => void;
  /** The last stream that the peer opened. */
  newest = 0;

  constructor(outflow: Outflow, schedule: () => void) {
    this.outflow = outflow;
    this.schedule = schedule;
  }

  /** The peer sent HEADERS: of a new stream, or trailers of an old one. */
  opened(id: number): void {
    if (id > this.newest && id <= this.lastAnswered && (id & 1) === 1) {
      this.newest = id;
      this.streams.set(id, new StreamWindow(id, this.initialWindow, this.libraryInitialWindow));
    }
  }

  /**
   * By how much the largest window of a body, as the library sees it, exceeds an initial one: what is sent beside the library
   * makes the true window smaller, but not that.
   */
  libraryExcess(): number {
    let excess = 0;
    for (const { window } of this.bodies.values()) {
      if (window.real < window.library) {
        excess = Math.max(excess, window.library - this.libraryInitialWindow);
      }
    }
    return excess;
  }

  /** Nothing may be sent for this stream any more. */
  closed(id: number): void {
    this.streams.delete(id);
    this.bodies.get(id)?.drop();
  }

  /** Nothing may be sent for any stream any more. */
  abandoned(): void {
    this.dead = true;
    for (const body of [...this.bodies.values()]) {
      body.drop();
    }
  }
}
