import type { Event } from "../../src/core/event.ts";
import type { Frame } from "../../src/core/frame.ts";

const decoder = new TextDecoder();

/**
 * A client that applies every frame to the rows it holds, and objects to whatever does not fit them: a row that it holds
 * already, a change of another image than it holds, an event that is not after the last. So an event too many is seen as it
 * comes, and one too few at the next change of its row or in the end.
 */
export class HeldState {
  readonly objections: string[] = [];
  /** Image by `topic/key`. */
  readonly rows = new Map<string, string>();
  /** Versions of messages, since the last `restart`. */
  readonly messages: number[] = [];
  /** Snapshots begun, and how. */
  readonly starts: ("anew" | "resumed" | "restart")[] = [];
  #snapshot: { readonly version: number; rowsCame: boolean } | undefined;
  #asOf = -1;
  #count = 0;

  take(frames: readonly Frame[]): this {
    for (const frame of frames) {
      this.#take(frame);
    }
    return this;
  }

  #take(frame: Frame): void {
    switch (frame.kind) {
      case "opened":
        if (this.#asOf < 0) {
          this.#asOf = frame.version;
        }
        break;
      case "selectors_changed":
        this.#count = 0;
        break;
      case "snapshot_started":
        this.#start(frame);
        break;
      case "events":
        for (const event of frame.events) {
          this.#event(event);
        }
        if (this.#snapshot !== undefined && frame.complete) {
          this.objections.push("a batch in a snapshot calls itself complete");
        }
        break;
      case "checkpoint":
        if ((frame.state === "SNAPSHOT") !== (this.#snapshot !== undefined)) {
          this.objections.push(`a checkpoint says ${frame.state}`);
        }
        if ((frame.progress?.rows ?? this.#count) !== this.#count) {
          this.objections.push(`a checkpoint says ${frame.progress?.rows} rows, ${this.#count} came`);
        }
        break;
      case "snapshot_complete":
        if (frame.version !== this.#snapshot?.version || frame.rows !== this.#count) {
          this.objections.push(`${frame.rows} rows at ${frame.version} are said to be all, ${this.#count} came`);
        }
        this.#asOf = frame.version;
        this.#snapshot = undefined;
        break;
      case "closing":
        break;
    }
  }

  #start({ version, restart, resumed }: Extract<Frame, { kind: "snapshot_started" }>): void {
    this.starts.push(restart ? "restart" : resumed ? "resumed" : "anew");
    if (resumed && (restart || this.#asOf < 0 || version < this.#asOf)) {
      this.objections.push(`a snapshot goes on at ${version}, and what is held is as of ${this.#asOf}`);
    }
    if (!resumed) {
      if (!restart && this.starts.length > 1) {
        this.objections.push("a snapshot begins again and does not say so");
      }
      this.rows.clear();
      this.messages.length = 0;
      this.#count = 0;
      this.#asOf = version;
    }
    this.#snapshot = { version, rowsCame: false };
  }

  #event(event: Event): void {
    const snapshot = this.#snapshot;
    if (event.operation === "SNAPSHOT") {
      const place = placeOf(event);
      if (event.version !== snapshot?.version || this.rows.has(place) || event.after === undefined) {
        this.objections.push(`${name(event)} is no row that is missing of ${snapshot?.version}`);
      }
      this.rows.set(place, textOf(event.after) ?? "");
      this.#count += 1;
      this.#asOf = event.version;
      if (snapshot !== undefined) {
        snapshot.rowsCame = true;
      }
      return;
    }
    if (event.version <= this.#asOf || (snapshot !== undefined && event.version > snapshot.version)) {
      this.objections.push(`${name(event)} comes when what is held is as of ${this.#asOf}`);
    }
    if (snapshot?.rowsCame === true) {
      this.objections.push(`${name(event)} comes among rows of ${snapshot.version}`);
    }
    this.#asOf = event.version;
    this.#apply(event);
  }

  #apply(event: Event): void {
    const place = placeOf(event);
    if (event.operation === "MESSAGE") {
      this.messages.push(event.version);
    } else if (event.operation === "TRUNCATE") {
      const [table] = event.topic.split(".");
      for (const held of this.rows.keys()) {
        if (held.startsWith(`${table}/`) || held.startsWith(`${table}.`)) {
          this.rows.delete(held);
        }
      }
    } else {
      const held = this.rows.get(place);
      if (held !== textOf(event.before) || (event.operation === "INSERT") !== (held === undefined)) {
        this.objections.push(`${name(event)} changes ${textOf(event.before)}, and ${held} is held`);
      }
      if (event.after === undefined) {
        this.rows.delete(place);
      } else {
        this.rows.set(place, textOf(event.after) ?? "");
      }
    }
  }
}

function placeOf({ topic, key }: Event): string {
  return `${topic}/${key ?? ""}`;
}

function textOf(image: Uint8Array | undefined): string | undefined {
  return image === undefined ? undefined : decoder.decode(image);
}

function name(event: Event): string {
  return `${event.version} ${event.operation} ${placeOf(event)}`;
}
