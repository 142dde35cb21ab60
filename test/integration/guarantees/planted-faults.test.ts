import { expect, it } from "vitest";
import { VersionBook } from "../../support/checker/order.ts";
import { checkResume } from "../../support/checker/resume.ts";
import type { Recording, SeenEvent, SeenFrame } from "../../support/checker/seen.ts";
import { checkFullStory, verdict } from "../../support/checker/verdict.ts";
import { eventually } from "../../support/deadline.ts";
import { createRandom, type Random } from "../../support/workload/random.ts";
import { startWorkload } from "../../support/workload/workload.ts";
import { Stage, testMs, untilLast } from "./stage.ts";

/**
 * The same end to end run as under load, on a database whose Millrace is broken on purpose: the checker must see it through
 * the whole of server, wire and client. Each fault is a trigger, so that no code under test has to be changed for it.
 */
const faults: readonly { readonly name: string; readonly guarantee: string; readonly sql: string }[] = [
  {
    name: "a tick that looks only beyond the last seq it settled, as `seq > cursor` does",
    guarantee: "G1",
    sql: onTick("new.base_seq := coalesce(new.max_seq, new.base_seq);"),
  },
  {
    name: "one event in a hundred lost",
    guarantee: "G1",
    sql: onOutbox(`if new.seq % 100 = 0 then return null; end if;`),
  },
  {
    name: "one event in a hundred doubled",
    guarantee: "G3",
    sql: onOutbox(
      `if new.seq % 100 = 0 and pg_trigger_depth() < 3 then
         insert into millrace.outbox (topic, key, operation, before, after, source_id)
         values (new.topic, new.key, new.operation, new.before, new.after, new.source_id);
       end if;`,
    ),
  },
  {
    name: "an event under an xid that did not commit",
    guarantee: "G2",
    sql: onOutbox(`if new.seq % 100 = 0 then new.xid := (new.xid::text::bigint - 1)::text::xid8; end if;`),
  },
  {
    name: "neighbours in each other's place",
    guarantee: "G4",
    sql: onOutbox(`new.seq := new.seq # 1;`),
  },
  {
    name: "a stale image",
    guarantee: "G4",
    sql: onOutbox(`if new.seq % 100 = 0 and new.operation = 'U' then new.after := new.before; end if;`),
  },
];

it.each(faults)(
  "G1, G2, G3, G4 the checker sees $guarantee broken by $name",
  async ({ guarantee, sql }) => {
    await using stage = await Stage.open();
    await stage.sql(sql);
    const server = await stage.server();
    const workload = await startWorkload(stage.url);
    const client = await stage.client({ client: "oldest", port: () => server.port, start: { oldest: {} } });
    await workload.untilCommitted(300);
    const { ledger } = await workload.finish();
    // The fault may have swallowed the last event: then the feed has come to rest where the ticks have.
    await Promise.race([
      untilLast(client),
      eventually(async () => {
        const [tick] = await stage.sql<{ head: string }>(
          "select max(first_version + count - 1)::text as head from millrace.tick",
        );
        return client.version >= Number(tick?.head) && client.version > 0;
      }),
    ]);
    const seen = new Set(checkFullStory(client.recording, ledger).map((complaint) => complaint.guarantee));
    expect([...seen]).toContain(guarantee);
  },
  testMs,
);

/** What a faulty server, wire or client would make of a sound stream, somewhere at random. `undefined` where it does not apply. */
const spoilers: Readonly<Record<string, (frames: readonly SeenFrame[], random: Random) => SeenFrame[] | undefined>> = {
  lost: (frames, random) => spoilEvents(frames, random, (events, at) => events.toSpliced(at, 1)),
  doubled: (frames, random) =>
    spoilEvents(frames, random, (events, at) => events.toSpliced(at, 0, ...events.slice(at, at + 1))),
  swapped: (frames, random) =>
    spoilEvents(frames, random, (events, at) => {
      const [one, other] = [events[at], events[at + 1]];
      if (one === undefined || other === undefined) return undefined;
      return events.toSpliced(at, 2, { ...other, version: one.version }, { ...one, version: other.version });
    }),
  stale: (frames, random) =>
    spoilEvents(frames, random, (events, at) => {
      const event = events[at];
      return event?.operation === "UPDATE" ? events.toSpliced(at, 1, { ...event, after: event.before }) : undefined;
    }),
  split: (frames, random) => {
    const index = random.below(frames.length);
    const frame = frames[index];
    if (frame?.kind !== "events") return undefined;
    const at = frame.events.findIndex((event, i) => event.transaction === frame.events[i + 1]?.transaction) + 1;
    if (at === 0) return undefined;
    const first = { ...frame, events: frame.events.slice(0, at), complete: true };
    return frames.toSpliced(index, 1, first, { ...frame, events: frame.events.slice(at) });
  },
};

function spoilEvents(
  frames: readonly SeenFrame[],
  random: Random,
  spoil: (events: readonly SeenEvent[], at: number) => readonly SeenEvent[] | undefined,
): SeenFrame[] | undefined {
  const index = random.below(frames.length);
  const frame = frames[index];
  if (frame?.kind !== "events") return undefined;
  const events = spoil(frame.events, random.below(frame.events.length));
  return events === undefined ? undefined : frames.toSpliced(index, 1, { ...frame, events });
}

it(
  "G1, G3, G4, G5, G8 the checker sees a real stream spoiled anywhere: one event lost, doubled, swapped, stale, a transaction split",
  async () => {
    await using stage = await Stage.open();
    const server = await stage.server();
    const workload = await startWorkload(stage.url);
    const client = await stage.client({ client: "oldest", port: () => server.port, start: { oldest: {} } });
    await workload.untilCommitted(300);
    const { ledger } = await workload.finish();
    await untilLast(client);
    const sound = client.recording;
    const frames = sound.calls.flatMap((call) => call.frames);
    const random = createRandom(workload.seed);
    const judge = (recording: Recording) => {
      const book = new VersionBook();
      return [
        ...checkFullStory(recording, ledger),
        ...checkResume(recording, sound),
        ...book.note(sound, "G3"),
        ...book.note(recording, "G3"),
      ];
    };
    expect(verdict(judge(sound))).toBe("");
    for (const [name, spoil] of Object.entries(spoilers)) {
      let planted = 0;
      for (let attempt = 0; attempt < 5000 && planted < 10; attempt += 1) {
        const spoiled = spoil(frames, random);
        if (spoiled === undefined) continue;
        planted += 1;
        const complaints = judge({ client: name, calls: [{ from: undefined, frames: spoiled }] });
        expect(complaints, `${name}, planted for the ${planted}th time`).not.toEqual([]);
      }
      expect(planted, `${name} could be planted`).toBe(10);
    }
  },
  testMs,
);

function onTick(body: string): string {
  return trigger("millrace.tick", body);
}

function onOutbox(body: string): string {
  return trigger("millrace.outbox", body);
}

function trigger(table: string, body: string): string {
  return `
    create function public.fault() returns trigger language plpgsql as $$ begin ${body} return new; end $$;
    create trigger fault before insert on ${table} for each row execute function public.fault();
    alter table ${table} enable always trigger fault`;
}
