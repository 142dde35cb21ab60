import type { SubscriptionStore } from "../../../src/core/subscription/subscription-store.ts";
import type { PostgresStore } from "../../../src/postgres/store.ts";
import { commit, openStage, tick } from "../../integration/ordering/stage.ts";
import { never, type SubscriptionWorld } from "./world.ts";

/** Two stores over one database, as a role that may do what a server may, and no more. */
export async function openPostgresWorld(): Promise<SubscriptionWorld> {
  const stage = await openStage();
  const admin = await stage.session();
  const url = new URL(stage.url);
  url.username = `subs_${process.pid}`;
  await admin.query(`do $$ begin create role ${url.username} login; exception when duplicate_object then null; end $$`);
  await admin.query(`select millrace.allow('${url.username}', 'server')`);
  const open = () => stage.store({ url: url.href, directUrl: url.href });
  let stores: readonly [PostgresStore, PostgresStore] = [await open(), await open()];
  return {
    get a(): SubscriptionStore {
      return stores[0].subscriptions;
    },
    get b(): SubscriptionStore {
      return stores[1].subscriptions;
    },
    get epoch() {
      return stores[0].epoch;
    },
    settle: async (events) => {
      let head = (await stores[0].bounds(never)).head;
      for (let n = 0; n < events; n++) {
        await commit(admin, `${n}`);
        head = (await tick(admin)).head;
      }
      return head;
    },
    // As `millrace.forget` does it, whatever claims and caps say.
    retainFrom: async (version) => {
      await admin.query(
        `with kept as (select tick from millrace.tick where first_version + count = $1::bigint order by tick limit 1),
           gone as (delete from millrace.tick t using kept where t.tick < kept.tick)
         update millrace.retention r set first_tick = kept.tick from kept`,
        [version],
      );
    },
    pass: async (ms) => {
      await admin.query(
        `update millrace.subscription s set last_used_at = s.last_used_at - p, held_until = s.held_until - p
         from (select $1::float8 * interval '1 millisecond' as p) x`,
        [ms],
      );
      await admin.query("begin isolation level read committed; select millrace.keep_subscriptions(1000); commit");
    },
    // Says that a tick was read that is not here: what a server says of a disk that was rolled back.
    fork: async (version) => {
      const { rowCount } = await admin.query(
        `select millrace.begin_epoch($1::uuid, l.tick, l.first_version, l.count, 1, f.tick)
         from (select * from millrace.tick order by tick desc limit 1) l,
           (select * from millrace.tick where first_version + count - 1 = $2::bigint order by tick limit 1) f`,
        [stores[0].epoch, version],
      );
      if (rowCount !== 1) throw new Error(`no tick ends with version ${version}`);
      stores = [await open(), await open()];
    },
    [Symbol.asyncDispose]: () => stage[Symbol.asyncDispose](),
  };
}
