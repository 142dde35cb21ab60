/** The tick t in one text, for `tickFromText`: tick:first_version:count:microseconds:snapshot. */
export const tickRow = `pg_catalog.concat_ws(':', t.tick, t.first_version, t.count,
    (extract(epoch from t.time) operator(pg_catalog.*) 1000000)::bigint, t.snapshot)`;

/**
 * The oldest readable version and the last settled one. A batch needs its predecessor's snapshot, so that the first tick
 * that is kept only tells where the second begins. It is looked for from where retention has left off: the index may be full
 * of what was deleted before that. $1 the epoch.
 */
export const readBounds = `
  select (l.first_version + l.count - 1)::text as head,
    coalesce((
      select t.first_version from millrace.tick t
      where t.tick > (
        select f.tick from millrace.tick f where f.tick >= (select r.first_tick from millrace.retention r) order by f.tick limit 1
      ) and t.count > 0 order by t.tick limit 1
    ), l.first_version + l.count)::text as oldest
  from millrace.assert_epoch($1::uuid), (select * from millrace.tick order by tick desc limit 1) l`;

/**
 * The ticks that hold these versions, tick 0 for version 0: one row each, none for a version that no tick holds. Empty ticks
 * share their first_version with the next one and are never the answer. $1 the epoch, $2 the versions. OFFSET 0 keeps the
 * planner from joining the whole table instead of looking each of them up.
 */
export const readTicksOf = `
  select w.version::text as version, ${tickRow} as text
  from millrace.assert_epoch($1::uuid), pg_catalog.unnest($2::bigint[]) w(version), lateral (
    select * from millrace.tick where tick = case when w.version = 0 then 0 else (
      select f.tick from millrace.tick f where f.first_version <= w.version and f.count > 0
      order by f.first_version desc, f.tick desc limit 1
    ) end offset 0
  ) t
  where w.version < t.first_version + t.count`;

/** The last tick at or before a time, $2 in microseconds. Times never fall, so the index on time finds it. $1 the epoch. */
export const readTickAt = `
  select ${tickRow} as text
  from millrace.assert_epoch($1::uuid), (
    select * from millrace.tick
    where time <= timestamptz '1970-01-01 00:00:00+00' + ($2::bigint operator(pg_catalog.*) interval '1 microsecond')
    order by time desc, tick desc limit 1
  ) t`;
