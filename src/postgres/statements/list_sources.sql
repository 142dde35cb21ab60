-- Watched tables as they are now. Health is judged by the catalog: each table and each of its partitions must carry the row
-- trigger with the source's own function, ENABLE ALWAYS, without a condition; the table itself the one for TRUNCATE too,
-- where that is captured. (pg_partition_tree is empty for a table that has no partitions and is none.)
select s.id, s.relid as oid, s.name as "watchedAs",
  (select format('%I.%I', n.nspname, c.relname) from pg_catalog.pg_class c
   join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = s.relid) as "table",
  s.topic, s.key_columns as "keyColumns", s.included_columns as "includedColumns", s.excluded_columns as "excludedColumns",
  s.before_values as "beforeValues", s.capture_truncate as "captureTruncate", s.created_at as "createdAt",
  array(select format('%I.%I', n.nspname, c.relname)
    from (select s.relid, 0 as level union select t.relid, t.level from pg_catalog.pg_partition_tree(s.relid) t) p
    join pg_catalog.pg_class c on c.oid = p.relid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where not exists (select from pg_catalog.pg_trigger t where t.tgrelid = p.relid and t.tgname = '!millrace_row'
      and t.tgfoid = pg_catalog.to_regproc('millrace.capture_' || s.relid)
      and t.tgtype = 29 and t.tgqual is null and t.tgattr = '')
    order by p.level, c.relname) as "withoutTrigger",
  array(select format('%I.%I', n.nspname, c.relname)
    from (select s.relid, 0 as level union select t.relid, t.level from pg_catalog.pg_partition_tree(s.relid) t) p
    join pg_catalog.pg_class c on c.oid = p.relid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_trigger t on t.tgrelid = p.relid and t.tgname = '!millrace_row'
    where t.tgenabled <> 'A' order by p.level, c.relname) as "switchedOff",
  not s.capture_truncate or exists (select from pg_catalog.pg_trigger t
    where t.tgrelid = s.relid and t.tgname = '!millrace_truncate'
      and t.tgfoid = pg_catalog.to_regproc('millrace.capture_' || s.relid)
      and t.tgtype = 32 and t.tgenabled = 'A') as "truncateSeen",
  array(select k from unnest(s.key_columns || s.topic_columns || s.excluded_columns) k
    where not exists (select from pg_catalog.pg_attribute a
      where a.attrelid = s.relid and a.attname = k and not a.attisdropped)) as "goneColumns"
from millrace.source s
order by s.name
