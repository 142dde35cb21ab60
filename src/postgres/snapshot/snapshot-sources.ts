/*
 * Which tables there are to copy, and in which order their rows can come.
 *
 * Rows come in a total order of their keys when some unique index says that no two rows compare equal: unique at once and
 * for all rows (valid, no predicate, not deferrable), over key columns alone, none of which may be null (Postgres 18 knows
 * NOT NULL constraints that old rows need not obey), each with the column's own collation and its type's usual comparison,
 * so that ORDER BY, a comparison in WHERE and the index mean the same; ascending all or descending all, so that one walk
 * through the index is that order. Of a partitioned table it is the index of the whole, over every partition.
 *
 * And the key must come back from the text that an event carries: `key::type` must equal the row's value. So only types
 * whose JSON is the text of one value, comparable by operators of pg_catalog (those of an extension are found by the search
 * path): no floats (a bound on either side of what rounding does), no intervals, no arrays, no citext. Enums unless somebody
 * made them a cast to json. Domains are their base types.
 */

const orderedTypes = `'{int2,int4,int8,oid,numeric,bool,text,varchar,bpchar,uuid,date,time,timestamp,timestamptz,bytea,inet}'`;

/** Base types of the key's columns, in its order. */
const keyTypes = `
  select coalesce(json_agg(json_build_object(
      'column', k.name,
      'type', pg_catalog.format('%I.%I', tn.nspname, t.typname),
      'name', t.typname,
      'collation', case when a.attcollation <> 0 then
        (select pg_catalog.format('%I.%I', cn.nspname, co.collname) from pg_catalog.pg_collation co
          join pg_catalog.pg_namespace cn on cn.oid = co.collnamespace where co.oid = a.attcollation) end,
      'labels', case when t.typtype = 'e' then
        (select json_agg(e.enumlabel order by e.enumsortorder) from pg_catalog.pg_enum e where e.enumtypid = t.oid) end,
      'exact', t.oid = any (${orderedTypes}::pg_catalog.regtype[])
        or t.typtype = 'e' and not exists (select from pg_catalog.pg_cast x
          where x.castsource = t.oid and x.casttarget in ('json'::pg_catalog.regtype, 'jsonb'::pg_catalog.regtype)),
      'notNull', a.attnotnull and not exists (select from pg_catalog.pg_constraint x
        where x.conrelid = a.attrelid and x.contype = 'n' and not x.convalidated and x.conkey = array[a.attnum])
    ) order by k.n), '[]')
  from unnest(s.key_columns) with ordinality k(name, n)
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attname = k.name and not a.attisdropped
    cross join lateral (
      with recursive base(oid) as (
        select a.atttypid
        union all
        select d.typbasetype from base join pg_catalog.pg_type d on d.oid = base.oid where d.typtype = 'd'
      )
      select b.* from base join pg_catalog.pg_type b on b.oid = base.oid where b.typtype <> 'd'
    ) t
    join pg_catalog.pg_namespace tn on tn.oid = t.typnamespace`;

/** Columns of the unique index that orders the rows, as far as the index itself goes: see `keyTypes` for the rest. */
const uniqueColumns = `
  select u.columns
  from pg_catalog.pg_index i
    join pg_catalog.pg_class x on x.oid = i.indexrelid
    join pg_catalog.pg_am m on m.oid = x.relam and m.amname = 'btree'
    cross join lateral (
      select array_agg(a.attname::text order by k.n) as columns, count(*) as fit, count(distinct k.direction) as directions
      from unnest(i.indkey::int2[], i.indcollation::oid[], i.indclass::oid[], i.indoption::int2[])
          with ordinality k(attnum, coll, opclass, direction, n)
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum and a.attcollation = k.coll
        join pg_catalog.pg_opclass o on o.oid = k.opclass and o.opcdefault
      where k.n <= i.indnkeyatts and a.attname = any (s.key_columns) and k.direction in (0, 3)
    ) u
  where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indislive and i.indimmediate
    and i.indpred is null and i.indexprs is null
    and u.fit = i.indnkeyatts and u.directions = 1
  order by i.indisprimary desc, i.indnkeyatts, i.indexrelid
  limit 1`;

/**
 * All that DDL can change of the rows without an event. By the xmin of catalog rows: what was altered and altered back has
 * another one, while vacuum, statistics, grants and indexes leave them as they were. Of partitions the files too: TRUNCATE of
 * one of them, unlike that of the whole table, is no event that could be applied.
 */
const structure = `
  select encode(sha256(convert_to(concat_ws(';',
    (select string_agg(concat_ws(',', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attisdropped, a.xmin), ';' order by a.attnum)
     from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0),
    (select string_agg(concat_ws(',', e.oid, e.xmin), ';' order by e.oid)
     from pg_catalog.pg_enum e where e.enumtypid in (
       select unnest(array[t.oid, t.typelem, t.typbasetype]) from pg_catalog.pg_attribute a
         join pg_catalog.pg_type t on t.oid = a.atttypid where a.attrelid = c.oid and a.attnum > 0)),
    (select string_agg(concat_ws(',', i.inhrelid, i.inhparent, i.xmin, l.relfilenode), ';' order by i.inhrelid, i.inhparent)
     from pg_catalog.pg_partition_tree(c.oid) p join pg_catalog.pg_inherits i on i.inhrelid = p.relid
       join pg_catalog.pg_class l on l.oid = p.relid)
  ), 'UTF8')), 'hex')`;

/** Watched tables as they are now, and what the present role may do with them. For the reader too, inside its snapshot. */
export const snapshotSources = `
  select s.id, s.relid::text as relid, s.topic, s.topic_pattern as "topicPattern", s.topic_columns as "topicColumns",
    s.key_columns as "keyColumns", s.included_columns as "includedColumns", s.excluded_columns as "excludedColumns",
    n.nspname as schema, c.relname as table, c.relkind = 'p' as partitioned,
    array(
      select a.attname::text from pg_catalog.pg_attribute a
      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum
    ) as columns,
    cardinality(s.key_columns) = 1 and exists (
      select from pg_catalog.pg_attribute a
      where a.attrelid = c.oid and a.attname = s.key_columns[1] and not a.attisdropped and a.atttypid = any (
        '{int2,int4,int8,text,varchar,uuid}'::pg_catalog.regtype[])
    ) as "plainKey",
    coalesce((
      select array_agg(a.attname::text order by k.n)
      from pg_catalog.pg_index i
        cross join lateral unnest(i.indkey::int2[]) with ordinality as k(attnum, n)
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
      where i.indrelid = c.oid and i.indisprimary and k.n <= i.indnkeyatts
    ), (
      select array_agg(k.name order by k.n) from unnest(s.key_columns) with ordinality as k(name, n)
      where exists (select from pg_catalog.pg_attribute a
                    where a.attrelid = c.oid and a.attname = k.name and not a.attisdropped)
    ), '{}') as "sortColumns",
    (${keyTypes}) as "keyTypes",
    (${uniqueColumns}) as "uniqueColumns",
    (${structure}) as structure,
    not exists (
      select from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        and a.atttypid >= 16384 and not (t.typtype = 'd' and t.typbasetype < 16384)
    ) as "plainTypes",
    current_setting('server_encoding') = 'UTF8' as utf8,
    millrace.polling(s.id) ->> 'deletedColumn' as "deletedColumn",
    pg_catalog.has_schema_privilege(n.oid, 'USAGE') as "mayUse",
    pg_catalog.has_table_privilege(c.oid, 'SELECT') as "mayRead",
    pg_catalog.row_security_active(c.oid) as "rowsHidden",
    current_user::text as role
  from millrace.source s
    join pg_catalog.pg_class c on c.oid = s.relid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  order by s.id`;

/**
 * The image of a row `s.t` of table $1 with the columns $2, as an expression. Where types of users' own are concerned: a cast to
 * json that somebody made for one must not run with the rights of this role, and does not run in capture either.
 */
export const imageExpression = `
  select e.image
  from (
      select array_agg(a.attname::text order by a.attnum) as names, array_agg(a.atttypid order by a.attnum) as types
      from pg_catalog.pg_attribute a where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped
    ) c,
    millrace.row_expression(c.names, c.types, $2::text[], '(s.t)', true) e`;

/**
 * About how many rows each table has: the density that the last VACUUM or ANALYZE found, or one of the columns' widths,
 * times the pages that there are. For the reader, which has the tables locked: asking for the size of one that is being
 * rewritten would wait.
 */
export const estimateRows = `
  select s.id, round(coalesce(sum(
    pg_catalog.pg_relation_size(c.oid)::float8 / current_setting('block_size')::int *
    case when c.relpages > 0 and c.reltuples >= 0 then c.reltuples / c.relpages
      else current_setting('block_size')::int / (28.0 + (
        select sum(case when a.attlen > 0 then a.attlen else 32 end)
        from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)) end), 0)) as rows
  from millrace.source s
    cross join lateral (select s.relid union select t.relid from pg_catalog.pg_partition_tree(s.relid) t) p
    join pg_catalog.pg_class c on c.oid = p.relid and c.relkind = 'r'
  where s.id = any ($1)
  group by s.id`;
