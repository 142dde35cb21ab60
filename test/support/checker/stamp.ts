import { nameOfChange } from "./ledger.ts";
import type { SeenEvent } from "./seen.ts";

/** What a writer stamped into a row or message. */
export interface Stamp {
  readonly life: string;
  readonly counter: number;
}

function stampOfImage(image: string | undefined): Stamp | undefined {
  if (image === undefined) return undefined;
  const parsed: unknown = JSON.parse(image);
  if (typeof parsed !== "object" || parsed === null) return undefined;
  const life = "life" in parsed ? parsed.life : undefined;
  const counter = "counter" in parsed ? parsed.counter : undefined;
  return typeof life === "string" && typeof counter === "number" ? { life, counter } : undefined;
}

/** The stamp that the event's own change left: of the row after it, or of the row that a DELETE took. */
export function stampOf(event: SeenEvent): Stamp | undefined {
  return stampOfImage(event.operation === "DELETE" ? event.before : event.after);
}

/** The stamp of the row before the change. */
export function stampBefore(event: SeenEvent): Stamp | undefined {
  return stampOfImage(event.before);
}

/** The name of the change that an event claims to be, as `nameOfChange` gives it; `undefined` when it bears no stamp. */
export function nameOfEvent(event: SeenEvent): string | undefined {
  const stamp = stampOf(event);
  if (stamp === undefined || event.key === undefined) return undefined;
  return nameOfChange({
    topic: event.topic,
    key: event.key,
    operation: operationOf(event.operation),
    life: stamp.life,
    counter: stamp.counter,
  });
}

function operationOf(text: string): "INSERT" | "UPDATE" | "DELETE" | "MESSAGE" {
  if (text === "INSERT" || text === "UPDATE" || text === "DELETE" || text === "MESSAGE") return text;
  throw new Error(`The workload makes no ${text}.`);
}
