import type { WireEvent } from "./wire-reader.ts";

/** pgbench's tables as a stream tells them: balances, sums of the deltas in history, and every break in the story. */
export class TpcbTally {
  readonly accounts = new Map<number, number>();
  readonly tellers = new Map<number, number>();
  readonly branches = new Map<number, number>();
  /** Sums of `pgbench_history.delta`, by account, teller and branch. */
  readonly deltas = { aid: new Map<number, number>(), tid: new Map<number, number>(), bid: new Map<number, number>() };
  readonly faults: string[] = [];
  history = 0;
  events = 0;
  #version = 0;

  /** `after` is where the stream began. */
  constructor(after: number) {
    this.#version = after;
  }

  take(event: WireEvent): void {
    this.events += 1;
    if (event.version !== this.#version + 1) this.faults.push(`v${event.version} follows v${this.#version}`);
    this.#version = event.version;
    const before = parse(event.before);
    const after = parse(event.after);
    if (event.topic === "pgbench_accounts") this.#balance(this.accounts, "aid", "abalance", before, after, event);
    else if (event.topic === "pgbench_tellers") this.#balance(this.tellers, "tid", "tbalance", before, after, event);
    else if (event.topic === "pgbench_branches") this.#balance(this.branches, "bid", "bbalance", before, after, event);
    else if (event.topic === "pgbench_history") this.#entry(after);
  }

  #balance(
    balances: Map<number, number>,
    key: string,
    column: string,
    before: Row,
    after: Row,
    event: WireEvent,
  ): void {
    const id = after[key] ?? 0;
    const known = balances.get(id) ?? 0;
    if (known !== before[column]) {
      this.faults.push(`v${event.version}: ${event.topic} ${id} goes from ${before[column]}, but had ${known}`);
    }
    balances.set(id, after[column] ?? Number.NaN);
  }

  #entry(row: Row): void {
    this.history += 1;
    for (const column of ["aid", "tid", "bid"] as const) {
      const id = row[column] ?? 0;
      this.deltas[column].set(id, (this.deltas[column].get(id) ?? 0) + (row.delta ?? Number.NaN));
    }
  }
}

type Row = Readonly<Record<string, number>>;

function parse(image: Uint8Array | undefined): Row {
  if (image === undefined) return {};
  return JSON.parse(Buffer.from(image.buffer, image.byteOffset, image.byteLength).toString());
}

/** Differences between what was summed and what the table holds; zero and absent are the same. */
export function differences(
  what: string,
  sums: ReadonlyMap<number, number>,
  table: ReadonlyMap<number, number>,
): string[] {
  const wrong: string[] = [];
  for (const id of new Set([...sums.keys(), ...table.keys()])) {
    const [sum, held] = [sums.get(id) ?? 0, table.get(id) ?? 0];
    if (sum !== held) wrong.push(`${what} ${id}: the stream says ${sum}, the table ${held}`);
  }
  return wrong;
}
