import { expect, it } from "vitest";
import { checkFullStory } from "../../support/checker/verdict.ts";
import { eventually } from "../../support/deadline.ts";
import { startWorkload } from "../../support/workload/workload.ts";
import { Stage, untilLast } from "./stage.ts";

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
  120_000,
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
