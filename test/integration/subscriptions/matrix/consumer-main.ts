// A consumer as a process of its own: goes on until it is killed, and writes each thing that it does or sees to standard output
// before it does the next, so that nothing of it is forgotten by a SIGKILL.
import { writeSync } from "node:fs";
import { createInterface } from "node:readline";
import { type Client, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import pg from "pg";
import { ErrorCode, ErrorDetailSchema } from "../../../../gen/millrace/v1/error_pb.js";
import type { Event } from "../../../../gen/millrace/v1/event_pb.js";
import { type EventBatch, FeedService } from "../../../../gen/millrace/v1/feed_service_pb.js";
import { SubscriptionService } from "../../../../gen/millrace/v1/subscription_service_pb.js";
import { hold } from "../../../support/deadline.ts";
import type { ConsumerOptions, Order, Step } from "./consumer-process.ts";

const options: ConsumerOptions = JSON.parse(process.argv[2] ?? "{}");
const { subscription: subscriptionId, ports, member, ledgerUrl } = options;
const isGroup = member !== undefined;
const PAUSE_MS = 30;

function say(note: Readonly<Record<string, unknown>>): void {
  writeSync(1, `${JSON.stringify({ at: Date.now(), who: options.who, ...note })}\n`);
}

/** Where its parent may have it wait, and be killed. */
let armed: Step | undefined;
let goOn: (() => void) | undefined;

function obey(order: Order): void {
  if (order.kind === "arm") armed = order.step;
  else goOn?.();
}

async function step(name: Step): Promise<void> {
  if (armed !== name) return;
  armed = undefined;
  const { promise, resolve } = Promise.withResolvers<void>();
  goOn = resolve;
  say({ what: "at", step: name });
  await promise;
}

process.stdin.on("end", () => process.exit());
createInterface(process.stdin).on("line", (line) => obey(JSON.parse(line)));

const markOf = (event: Event) => {
  const form = event.after?.form;
  if (form?.case !== "json") return `truncated by ${event.transaction}`;
  const { mark }: { readonly mark: string } = JSON.parse(form.value);
  return mark;
};

const keyOf = ({ topic, key }: Event) => `${topic}/${key}`;

let calls = 0;

/** One connection and one stream, until either ends. */
class Life {
  readonly #sessions: Http2SessionManager;
  readonly #feed: Client<typeof FeedService>;
  readonly #service: Client<typeof SubscriptionService>;
  readonly #batches: EventBatch[] = [];
  /** Keys of which an event was rejected: later ones of them that were on their way by then come again behind it. */
  readonly #back = new Map<string, { readonly version: bigint; until: EventBatch | undefined }>();
  #wake: () => void = () => undefined;
  #over = false;
  #generation = 0n;

  constructor(port: number) {
    const baseUrl = `http://127.0.0.1:${port}`;
    this.#sessions = new Http2SessionManager(baseUrl, { idleConnectionTimeoutMs: 600_000 });
    const transport = createGrpcTransport({ baseUrl, sessionManager: this.#sessions });
    this.#feed = createClient(FeedService, transport);
    this.#service = createClient(SubscriptionService, transport);
  }

  async run(): Promise<void> {
    try {
      // Acknowledging anew what is in its own data is the first thing that a consumer with one does.
      await using ledger = ledgerUrl === undefined ? undefined : await Ledger.open(ledgerUrl);
      if (ledger !== undefined && ledger.cursor !== "") {
        for (const version of ledger.versions) this.#process(version);
        await this.#acknowledge(0n, ledger.cursor, ledger.versions, []);
      }
      const reading = this.#read();
      await Promise.all([reading, this.#work(ledger)]);
    } finally {
      this.#sessions.abort();
    }
  }

  /** Takes frames as soon as they come, whatever becomes of them: what it was given is known at once. */
  async #read(): Promise<void> {
    let why = "end";
    const askedAt = Date.now();
    try {
      const start = { case: "subscriptionId" as const, value: subscriptionId };
      for await (const { frame } of this.#feed.subscribe({ start, member: member ?? "" })) {
        if (frame.case === "opened") {
          const { lease, version } = frame.value;
          this.#generation = lease?.generation ?? 0n;
          say({ what: "opened", generation: Number(this.#generation), version: Number(version), askedAt });
          await step("opened");
        } else if (frame.case === "events") {
          this.#take(frame.value);
        } else if (frame.case === "closing") {
          why = `closing ${frame.value.reason}`;
          break;
        }
      }
    } catch (error) {
      why = codeOf(error);
    }
    say({ what: "ended", generation: Number(this.#generation), why });
    this.#over = true;
    this.#wake();
  }

  #take(batch: EventBatch): void {
    const events = batch.events.map((event) => ({
      version: Number(event.version),
      mark: markOf(event),
      attempt: Math.max(1, event.attempt),
    }));
    say({ what: "delivered", generation: Number(this.#generation), events });
    this.#batches.push(batch);
    this.#wake();
  }

  async #work(ledger: Ledger | undefined): Promise<void> {
    while (!this.#over) {
      const batch = this.#batches.shift();
      if (batch === undefined) {
        const { promise, resolve } = Promise.withResolvers<void>();
        this.#wake = resolve;
        await promise;
        continue;
      }
      try {
        if (batch.events.some(({ attempt }) => attempt > 1)) await step("redelivered");
        if (armed === "redelivered" && !isGroup) throw new Error("comes again for it");
        await this.#consume(batch, ledger);
      } catch {
        // Whatever it was, another stream starts with what is not acknowledged.
        this.#sessions.abort();
        return;
      }
    }
  }

  async #consume(batch: EventBatch, ledger: Ledger | undefined): Promise<void> {
    await step("received");
    const { cursor } = batch;
    const events = batch.events.filter((event) => !this.#comesAgain(event));
    const rejected = this.#rejects(events);
    await ledger?.store(events, cursor);
    const versions = events.map(({ version }) => version).filter((version) => !rejected.has(version));
    for (const version of versions) this.#process(version);
    await step("processed");
    const rejections = [...rejected].map(([version, giveUp]) => ({ version, reason: "cannot be processed", giveUp }));
    const byVersion = isGroup && (rejections.length > 0 || events.length % 2 === 0);
    if (byVersion && versions.length + rejections.length === 0) return this.#forget(batch);
    const said = this.#acknowledge(this.#generation, byVersion ? "" : cursor, versions, rejections);
    said.catch(() => undefined);
    await step("acknowledging");
    if (rejections.some(({ giveUp }) => giveUp)) await step("burying");
    await said;
    for (const back of this.#back.values()) back.until ??= this.#batches.at(-1) ?? batch;
    this.#forget(batch);
    await step("acknowledged");
  }

  /** It was taken back with an earlier one of its key, before that was answered. */
  #comesAgain(event: Event): boolean {
    const back = this.#back.get(keyOf(event));
    if (back === undefined) return false;
    if (event.version > back.version) return true;
    this.#back.delete(keyOf(event));
    return false;
  }

  #forget(batch: EventBatch): void {
    for (const [key, { until }] of this.#back) {
      if (until === batch) this.#back.delete(key);
    }
  }

  /** Now and then, or when asked for it: one event, and what its key has behind it. */
  #rejects(events: readonly Event[]): ReadonlyMap<bigint, boolean> {
    const first = events[0];
    if (!isGroup || first === undefined) return new Map();
    const wanted = armed === "redelivered" || armed === "burying";
    if (!wanted && Math.random() > 0.02) return new Map();
    const giveUp = armed === "burying" || (!wanted && Math.random() < 0.2);
    const same = events.filter((event) => keyOf(event) === keyOf(first));
    if (first.key !== undefined) this.#back.set(keyOf(first), { version: first.version, until: undefined });
    return new Map(same.map(({ version }) => [version, giveUp && version === first.version]));
  }

  #process(version: bigint): void {
    say({ what: "processed", version: Number(version) });
  }

  async #acknowledge(
    generation: bigint,
    cursor: string,
    versions: readonly bigint[],
    rejections: readonly { readonly version: bigint; readonly reason: string; readonly giveUp: boolean }[],
  ): Promise<void> {
    calls += 1;
    const call = calls;
    const rejected = rejections.map(({ version }) => Number(version));
    say({ what: "acknowledging", call, generation: Number(generation), versions: versions.map(Number), rejected });
    const what = cursor === "" ? { versions: [...versions] } : { cursor };
    const who = isGroup ? { member } : {};
    try {
      const answer = await this.#service.acknowledge({
        subscriptionId,
        generation,
        ...who,
        ...what,
        rejections: [...rejections],
      });
      say({ what: "acknowledged", call, accepted: Number(answer.accepted) });
    } catch (error) {
      say({ what: "refused", call, code: codeOf(error) });
      throw error;
    }
  }
}

/** A database of the consumer's own: effects, and the cursor after them, in one transaction. */
class Ledger implements AsyncDisposable {
  readonly #client: pg.Client;
  cursor: string;
  readonly versions: readonly bigint[];

  private constructor(client: pg.Client, cursor: string, versions: readonly bigint[]) {
    this.#client = client;
    this.cursor = cursor;
    this.versions = versions;
  }

  static async open(url: string): Promise<Ledger> {
    const client = new pg.Client({ connectionString: url });
    client.on("error", () => undefined);
    await client.connect();
    const { rows } = await client.query<{ cursor: string }>("select cursor from consumer for update");
    const effects = await client.query<{ version: string }>("select version from effect order by id desc limit 2000");
    const versions = effects.rows.map(({ version }) => BigInt(version)).reverse();
    return new Ledger(client, rows[0]?.cursor ?? "", versions);
  }

  /** Only from where it believes to be: somebody killed may have a transaction that has yet to commit. */
  async store(events: readonly Event[], cursor: string): Promise<void> {
    await this.#client.query("begin");
    const moved = await this.#client.query("update consumer set cursor = $1 where cursor = $2", [cursor, this.cursor]);
    if (moved.rowCount !== 1) throw new Error("somebody else has gone on");
    for (const event of events) {
      await this.#client.query("insert into effect (version, mark) values ($1, $2)", [event.version, markOf(event)]);
    }
    await step("storing");
    await this.#client.query("commit");
    this.cursor = cursor;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.end().catch(() => undefined);
  }
}

function codeOf(error: unknown): string {
  const failure = ConnectError.from(error);
  const detail = failure.findDetails(ErrorDetailSchema)[0]?.code;
  return detail === undefined ? `${failure.code}: ${failure.rawMessage}` : ErrorCode[detail];
}

for (let life = options.turn; ; life += 1) {
  const port = ports[life % ports.length] ?? 0;
  await new Life(port).run().catch((error: unknown) => say({ what: "failed", why: String(error) }));
  await hold(PAUSE_MS);
}
