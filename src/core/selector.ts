import type { Operation } from "./event.ts";

/** Which events a stream wants. An event passes when it passes every field that is not empty. */
export interface Selector {
  /** Topic patterns: `orders`, `orders.*`, `orders.>`. */
  readonly topics: readonly string[];
  readonly keys: readonly string[];
  readonly operations: readonly Operation[];
}
