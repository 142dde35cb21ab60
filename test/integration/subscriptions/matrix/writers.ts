import pg from "pg";
import { hold } from "../../../support/deadline.ts";
import { createRandom, type Random } from "../../../support/workload/random.ts";

/** Topics of the matrix; nobody subscribes to the last. */
export const topics = ["a", "b", "notes", "item", "unread"] as const;

const KEYS = 16;
/** A consumer that waits for each answer keeps up with what comes of it, also on a busy machine. */
const PAUSE_MS = 50;

/** Write until they are told to stop, through anything: some keys, some topics, what has no key, and a TRUNCATE now and then. */
export class Writers {
  readonly #stopping = new AbortController();
  readonly #running: Promise<unknown>;

  constructor(url: string, seed: number, count: number) {
    const random = createRandom(seed);
    this.#running = Promise.all(Array.from({ length: count }, (_, id) => this.#write(url, id, random.fork(id))));
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #write(url: string, id: number, random: Random): Promise<void> {
    let client: pg.Client | undefined;
    let number = 0;
    while (!this.#stopping.signal.aborted) {
      try {
        client ??= await connect(url);
        number += 1;
        await transact(client, `${id}-${number}`, random);
      } catch {
        // Whether it has committed is asked of the outbox, at the end.
        await client?.end().catch(() => undefined);
        client = undefined;
      }
      await hold(PAUSE_MS);
    }
    await client?.end().catch(() => undefined);
  }
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

async function transact(client: pg.Client, name: string, random: Random): Promise<void> {
  await client.query("begin");
  const count = 1 + random.below(4);
  let truncated = false;
  for (let n = 0; n < count; n++) {
    const mark = `${name}.${n}`;
    const dice = random.next();
    if (dice < 0.04) await emit(client, "notes", null, mark);
    else if (dice < 0.045) {
      // Once: a TRUNCATE has no mark of its own, and is known by its transaction.
      if (!truncated) await client.query("truncate item");
      truncated = true;
    } else if (dice < 0.25) {
      const row = [random.below(KEYS), mark];
      await client.query("insert into item values ($1, $2) on conflict (id) do update set mark = excluded.mark", row);
    } else {
      const topic = random.chance(0.15) ? "unread" : random.chance(0.5) ? "a" : "b";
      await emit(client, topic, String(random.below(KEYS)), mark);
    }
  }
  await client.query(random.chance(0.1) ? "rollback" : "commit");
}

/** One event with a mark of its own. */
export async function emit(client: pg.Client, topic: string, key: string | null, mark: string): Promise<void> {
  await client.query("select millrace.emit($1, $2, $3)", [topic, key, JSON.stringify({ mark })]);
}
