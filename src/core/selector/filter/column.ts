import { FAILED, type Value } from "./cel.ts";
import type { Row, Shape } from "./row.ts";

/** One filter's way to one column: it remembers where the column stood in the last row. */
export class Column {
  readonly #name: string;
  #shape: Shape | undefined;
  #place = -1;

  constructor(name: string) {
    this.#name = name;
  }

  /** The value; FAILED where there is no row, or no such column in it. */
  read(row: Row | undefined): Value {
    if (row === undefined) {
      return FAILED;
    }
    if (row.shape !== this.#shape) {
      this.#shape = row.shape;
      this.#place = row.shape.placeOf(this.#name);
    }
    return this.#place < 0 ? FAILED : row.at(this.#place);
  }
}
