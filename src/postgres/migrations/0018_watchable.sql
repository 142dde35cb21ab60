-- What cannot be watched says what to do instead, and a table says so whose partition is watched by itself.

create or replace function millrace.assert_watchable(target regclass) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  t pg_class;
  kind text;
  root text;
  partition regclass;
begin
  select c.* into t from pg_class c where c.oid = target;
  if not found then
    raise exception 'there is no table with oid %', target::oid
      using errcode = '42P01', hint = 'Name a table that exists.';
  end if;
  select format('%I.%I', n.nspname, c.relname) into root
  from pg_trigger g, pg_partition_ancestors(target) a join pg_class c on c.oid = a.relid
    join pg_namespace n on n.oid = c.relnamespace
  where g.tgrelid = target and g.tgname = '!millrace_row' and g.tgparentid <> 0
    and g.tgfoid = to_regproc('millrace.capture_' || a.relid::oid);
  select p.relid into partition
  from pg_partition_tree(target) p join pg_trigger g on g.tgrelid = p.relid
  where p.relid <> target and g.tgname = '!millrace_row' and g.tgparentid = 0
    and g.tgfoid = to_regproc('millrace.capture_' || p.relid::oid)
  order by p.level, p.relid limit 1;
  kind := case
    when t.oid < 16384 or t.relnamespace::regnamespace::text in ('pg_catalog', 'information_schema', 'pg_toast') then 'a system catalog'
    when t.relnamespace = to_regnamespace('millrace') then 'one of Millrace''s own'
    when t.relkind = 'v' then 'a view'
    when t.relkind = 'm' then 'a materialized view'
    when t.relkind = 'f' then 'a foreign table'
    when t.relkind = 'S' then 'a sequence'
    when t.relkind not in ('r', 'p') then 'not a table'
    when t.relpersistence = 't' then 'a temporary table'
    when t.relpersistence = 'u' then 'an unlogged table'
    when root is not null then 'a partition of a watched table'
    when exists (select from pg_partition_tree(t.oid) p join pg_class c on c.oid = p.relid
                 where c.relkind = 'f' or c.relpersistence <> 'p')
      then 'a table with a foreign or unlogged partition'
    when partition is not null then 'a table with a partition that is watched'
  end;
  if kind is not null then
    raise exception '% is %: it cannot be watched', target, kind
      using errcode = '42809', hint = case
        when root is not null then format('Its changes are told already, as those of %s: subscribe to the topic of that.', root)
        when partition is not null and kind like '% that is watched'
          then format('Unwatch %s first: its changes are then told as those of %s.', partition, target)
        else 'Watch an ordinary or partitioned table: changes are seen where rows are written and logged.'
      end;
  end if;
  if not pg_has_role(t.relowner, 'USAGE') then
    raise exception 'role "%" does not own %', current_user, target
      using errcode = '42501', hint = format('Watch it as its owner, %I, or as a superuser.', pg_get_userbyid(t.relowner));
  end if;
  select c.* into t from pg_partition_tree(target) p join pg_class c on c.oid = p.relid
  where not pg_has_role(c.relowner, 'USAGE') order by p.level, c.relname limit 1;
  if found then
    raise exception 'role "%" does not own %, a partition of %', current_user, t.oid::regclass, target
      using errcode = '42501', hint = format('Watch it as a role that owns all of its partitions, or run "alter table %s owner to %I".',
        t.oid::regclass, (select pg_get_userbyid(c.relowner) from pg_class c where c.oid = target));
  end if;
end $$;
