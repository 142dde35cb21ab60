import pg from "pg";
import { expect } from "vitest";
import type { Event, Version } from "../../../src/core/event.ts";
import { createPostgresStore } from "../../../src/postgres/store.ts";
import { query } from "../../support/restores.ts";
import { advanceAll, never, readAll } from "../ordering/stage.ts";

/** An event as one text: what must never change once it has been read. */
export function textOf({
  version,
  topic,
  key,
  operation,
  before,
  after,
  headers,
  transaction,
  occurredAtMicros,
}: Event): string {
  const image = (bytes: Uint8Array | undefined) => (bytes === undefined ? "-" : Buffer.from(bytes).toString("utf8"));
  return [
    version,
    topic,
    key,
    operation,
    image(before),
    image(after),
    image(headers),
    transaction,
    occurredAtMicros,
  ].join("|");
}

/** A feed as one of its readers has seen it. */
export interface Reading {
  readonly epoch: string;
  readonly head: Version;
  /** The events of version 1 and later. */
  readonly texts: readonly string[];
  readonly events: readonly Event[];
}

/**
 * Opens the feed, which begins an epoch where one is due, settles what there is and reads it by the tail, by large pages
 * and by small ones.
 */
export async function readFeed(url: string): Promise<Reading> {
  const readings: Event[][] = [];
  let epoch = "";
  for (const maxRows of [20_000, 3, 1]) {
    const settling = readings.length === 0;
    const store = createPostgresStore({ url, directUrl: false, pages: { maxRows } });
    try {
      await store.start(never);
      // First as somebody who comes into the middle, of a batch perhaps, and knows nothing of what is before.
      const half = settling ? 0 : Math.floor((readings[0]?.length ?? 0) / 2);
      const rest = await readAll(store, half);
      if (!settling) expect(rest.map(textOf)).toEqual((readings[0] ?? []).slice(half).map(textOf));
      readings.push([...(await advanceAll(store))], [...(await readAll(store))]);
      epoch = store.epoch;
    } finally {
      await store.stop();
    }
  }
  const [events = [], ...others] = readings;
  const texts = events.map(textOf);
  for (const other of others) expect(other.map(textOf)).toEqual(texts);
  return { epoch, head: events.length, texts, events };
}

/**
 * The rule that knows nothing of ticks and seams: whatever row is in the outbox has committed, and is there once; so every
 * one of them has exactly one version, and what was read up to the fork is as it was. `n` in an image counts the changes of
 * its key.
 */
export async function judge(url: string, now: Reading, before: Reading | undefined, fork: Version): Promise<void> {
  expect(now.events.map(({ version }) => version)).toEqual(now.events.map((_, index) => index + 1));
  if (before !== undefined) expect(now.texts.slice(0, fork)).toEqual(before.texts.slice(0, fork));
  const rows = await query(
    url,
    "select topic, key, coalesce(after, before)::text, xid::text, (extract(epoch from occurred_at) * 1000000)::bigint::text from millrace.outbox",
  );
  const told = now.events.map(({ topic, key, before: old, after, transaction, occurredAtMicros }) =>
    [topic, key ?? "", Buffer.from(after ?? old ?? []).toString("utf8"), transaction, occurredAtMicros].join("|"),
  );
  expect(told.toSorted()).toEqual(rows.map((row) => row.map((value) => value ?? "").join("|")).toSorted());
  const counts = new Map<string, number>();
  for (const { topic, key, after } of now.events) {
    const image: unknown = after === undefined ? undefined : JSON.parse(Buffer.from(after).toString("utf8"));
    if (typeof image !== "object" || image === null || !("n" in image)) continue;
    const place = `${topic} ${key}`;
    expect(Number(image.n), `the order of ${place}`).toBeGreaterThan(counts.get(place) ?? 0);
    counts.set(place, Number(image.n));
  }
}

/** Writes the n-th change of a key. */
export async function change(session: pg.ClientBase, key: string, n: number): Promise<void> {
  await session.query("select millrace.emit('t', $1, json_build_object('n', $2::int))", [key, n]);
}

/** Sessions that are closed together. */
export class Sessions implements AsyncDisposable {
  readonly #open: pg.Client[] = [];

  async to(url: string): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: url });
    client.on("error", () => undefined);
    await client.connect();
    this.#open.push(client);
    return client;
  }

  async close(): Promise<void> {
    await Promise.all(this.#open.splice(0).map((client) => client.end().catch(() => undefined)));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** The epoch in force, as begin_epoch left it. */
export async function epochOf(url: string): Promise<Record<string, unknown>> {
  const [row] = await query(
    url,
    `select json_build_object('reason', reason, 'fork', fork_version, 'same', same_xids, 'unsettled', unsettled,
       'epochs', (select count(*) from millrace.epoch)) from millrace.epoch order by first_tick desc limit 1`,
  );
  return Object(row?.[0]);
}

/** Uses up transaction ids. */
export async function spend(url: string, count: number): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(
    `do $$ begin for i in 1..${count} loop perform pg_catalog.pg_current_xact_id(); commit; end loop; end $$`,
  );
  await client.end();
}
