import pg from "pg";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { migrate } from "../../../src/postgres/migrate.ts";
import { createPostgresStore, type PostgresStore } from "../../../src/postgres/store.ts";
import { sharedCluster } from "../../support/cluster.ts";

const signal = new AbortController().signal;
const bytes = (text: string) => new TextEncoder().encode(text);
const text = (answer: Uint8Array | undefined) => answer && new TextDecoder().decode(answer);

let url: string;
let admin: pg.Client;

beforeAll(async () => {
  url = await (await sharedCluster()).createDatabase();
  await migrate(url);
  admin = new pg.Client({ connectionString: url });
  await admin.connect();
});

afterAll(async () => {
  await admin.end();
});

async function replica(options: { readonly directUrl?: false; readonly mailTimeoutMs?: number } = {}) {
  const store = createPostgresStore({ url, mailTimeoutMs: 300, ...options });
  await store.start(signal);
  return Object.assign(store, { [Symbol.asyncDispose]: () => store.stop() });
}

async function letters(): Promise<number> {
  const { rows } = await admin.query<{ n: number }>("select count(*)::int as n from millrace.stream_mail");
  return rows[0]?.n ?? -1;
}

/** Answers every letter with itself; remembers how often. */
function echo(store: PostgresStore, name: string): string[] {
  const taken: string[] = [];
  store.mail.receive(name, async (letter) => {
    taken.push(text(letter) ?? "");
    return letter;
  });
  return taken;
}

describe("mail between replicas", () => {
  it("is taken once by whom it is for, answered to who sent it, and leaves nothing behind", async () => {
    await using a = await replica();
    await using b = await replica();
    await using c = await replica();
    const [takenByA, takenByB] = [echo(a, "a"), echo(b, "b")];
    const sent = Array.from({ length: 20 }, (_, n) => c.mail.send(n % 2 === 0 ? "a" : "b", bytes(`${n}`), signal));
    expect((await Promise.all(sent)).map(text)).toEqual(Array.from({ length: 20 }, (_, n) => `${n}`));
    expect(takenByA.length).toBe(10);
    expect(takenByB.length).toBe(10);
    expect(await letters()).toBe(0);
  });

  it("reaches a replica that hears no notifications", async () => {
    await using deaf = await replica({ directUrl: false });
    await using sender = await replica({ mailTimeoutMs: 20_000 });
    echo(deaf, "deaf");
    expect(text(await sender.mail.send("deaf", bytes("hello"), signal))).toBe("hello");
  });

  it("that nobody takes in time is withdrawn, and never taken", async () => {
    await using sender = await replica();
    expect(await sender.mail.send("late", bytes("too late"), signal)).toBeUndefined();
    expect(await letters()).toBe(0);
    await using late = await replica();
    const taken = echo(late, "late");
    await using other = await replica();
    expect(text(await other.mail.send("late", bytes("in time"), signal))).toBe("in time");
    expect(taken).toEqual(["in time"]);
  });

  it("that was taken and is not answered says that the outcome is unknown", async () => {
    await using silent = await replica();
    await using sender = await replica();
    silent.mail.receive("silent", () => new Promise(() => undefined));
    const error = await sender.mail.send("silent", bytes("?"), signal).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "DATABASE_UNAVAILABLE", message: expect.stringContaining("does not answer") });
    expect(await letters()).toBe(0);
  });

  it("is given up when the caller goes, and taken along when it is an hour old", async () => {
    await using sender = await replica({ mailTimeoutMs: 60_000 });
    const leaving = new AbortController();
    const sending = sender.mail.send("nobody", bytes("?"), leaving.signal);
    await vi.waitUntil(async () => (await letters()) === 1);
    leaving.abort(new Error("gone"));
    await expect(sending).rejects.toThrow("gone");
    expect(await letters()).toBe(1);
    await admin.query("update millrace.stream_mail set expires_at = clock_timestamp() - interval '61 minutes'");
    await using other = await replica();
    expect(await other.mail.send("nobody", bytes("?"), signal)).toBeUndefined();
    expect(await letters()).toBe(0);
  });
});
