import fc from "fast-check";
import type pg from "pg";
import { expect, test } from "vitest";
import { migrate } from "../../../src/postgres/migrate.ts";
import { createCluster, debian15Available } from "../../support/cluster.ts";
import { advanceAll, keysOf, never, openStage, readAll, takeXid, tick, write } from "./stage.ts";

type Step =
  | {
      readonly kind: "xid" | "write" | "commit" | "rollback" | "savepoint" | "undo" | "prepare";
      readonly session: number;
    }
  | { readonly kind: "tick" | "settle_prepared" | "forget_prepared" | "snapshot_tick" };

const sessions = 5;
const session = fc.nat({ max: sessions - 1 });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant("write" as const), session }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("commit" as const), session }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        "xid" as const,
        "rollback" as const,
        "savepoint" as const,
        "undo" as const,
        "prepare" as const,
      ),
      session,
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        "tick" as const,
        "tick" as const,
        "settle_prepared" as const,
        "forget_prepared" as const,
        "snapshot_tick" as const,
      ),
    }),
  },
);

interface Row {
  readonly seq: number;
  readonly key: string;
}

/** What one session has in hand. */
interface Hand {
  readonly client: pg.Client;
  open: boolean;
  rows: Row[];
  /** How many rows there were at each savepoint. */
  savepoints: number[];
}

/** Does the steps on real sessions, and says by itself what must come of them: it knows of commits only. */
class Interleaving {
  readonly #hands: Hand[];
  readonly #ticker: pg.Client;
  #prepared: { readonly name: string; readonly rows: readonly Row[] }[] = [];
  #committed: Row[] = [];
  #names = 0;
  /** The keys in the order of their versions. */
  readonly settled: string[] = [];

  constructor(clients: readonly pg.Client[], ticker: pg.Client) {
    this.#hands = clients.map((client) => ({ client, open: false, rows: [], savepoints: [] }));
    this.#ticker = ticker;
  }

  async do(next: Step): Promise<void> {
    if ("session" in next) {
      const hand = this.#hands[next.session];
      if (hand !== undefined) await this.#inSession(next.kind, hand);
    } else if (next.kind === "tick") await this.#tick(() => tick(this.#ticker));
    else if (next.kind === "snapshot_tick") await this.#tick(() => this.#snapshotTick());
    else await this.#endPrepared(next.kind === "settle_prepared");
  }

  async end(): Promise<void> {
    for (const hand of this.#hands) await this.#inSession("rollback", hand);
    while (this.#prepared.length > 0) await this.#endPrepared(true);
    await this.#tick(() => tick(this.#ticker));
  }

  async #inSession(kind: Extract<Step, { session: number }>["kind"], hand: Hand): Promise<void> {
    const { client } = hand;
    if (!hand.open) {
      if (kind !== "write" && kind !== "xid") return;
      await client.query("begin");
      hand.open = true;
    }
    const finish = () => {
      const { rows } = hand;
      hand.open = false;
      hand.rows = [];
      hand.savepoints = [];
      return rows;
    };
    if (kind === "xid") await takeXid(client);
    else if (kind === "write") {
      const key = `k${this.#names++}`;
      hand.rows.push({ key, seq: await write(client, key) });
    } else if (kind === "savepoint") {
      await client.query(`savepoint s${hand.savepoints.length}`);
      hand.savepoints.push(hand.rows.length);
    } else if (kind === "undo") {
      const kept = hand.savepoints.pop();
      if (kept === undefined) return;
      await client.query(`rollback to savepoint s${hand.savepoints.length}`);
      hand.rows.length = kept;
    } else if (kind === "prepare") {
      const name = `p${this.#names++}`;
      await client.query(`prepare transaction '${name}'`);
      this.#prepared.push({ name, rows: finish() });
    } else {
      await client.query(kind);
      const rows = finish();
      if (kind === "commit") this.#committed.push(...rows);
    }
  }

  async #endPrepared(commit: boolean): Promise<void> {
    const first = this.#prepared.shift();
    if (first === undefined) return;
    await this.#ticker.query(`${commit ? "commit" : "rollback"} prepared '${first.name}'`);
    if (commit) this.#committed.push(...first.rows);
  }

  async #tick(settle: () => Promise<unknown>): Promise<void> {
    await settle();
    this.settled.push(...this.#committed.sort((a, b) => a.seq - b.seq).map(({ key }) => key));
    this.#committed = [];
  }

  async #snapshotTick(): Promise<void> {
    await this.#ticker.query("begin isolation level repeatable read; set local synchronous_commit = on");
    await this.#ticker.query("lock table millrace.tick_lock in share row exclusive mode");
    await this.#ticker.query("select * from millrace.snapshot_tick()");
    await this.#ticker.query("commit");
  }
}

const servers = ["embedded" as const, ...(debian15Available() ? ["debian-15" as const] : [])];

test.each(servers)(
  "G3 on %s, whatever sessions interleave, the versions are the commits between ticks in the order of seq",
  async (binaries) => {
    await using cluster = await createCluster({ binaries });
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 10, maxLength: 120 }),
        fc.integer({ min: 1, max: 12 }),
        async (steps, maxRows) => {
          const url = await cluster.createDatabase();
          await migrate(url);
          await using stage = await openStage(url);
          const clients = await Promise.all(Array.from({ length: sessions }, () => stage.session()));
          const interleaving = new Interleaving(clients, await stage.session());
          const live = await stage.store();
          const seen: (string | undefined)[] = [];
          for (const next of steps) {
            await interleaving.do(next);
            if ("session" in next) continue;
            // What was said once stays said.
            for (
              let page = await live.readAfter(seen.length, never);
              page;
              page = await live.readAfter(seen.length, never)
            ) {
              seen.push(...keysOf(page.events));
            }
            expect(seen).toEqual(interleaving.settled);
          }
          await interleaving.end();
          const store = await stage.store({ pages: { maxRows } });
          expect(keysOf(await readAll(store))).toEqual(interleaving.settled);
          expect(keysOf(await advanceAll(store))).toEqual(interleaving.settled);
        },
      ),
      { numRuns: 20, endOnFailure: true },
    );
  },
);
