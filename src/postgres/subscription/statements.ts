import { type Literal, withLiterals } from "../literal.ts";
import { pinned } from "../statements/look.ts";

/**
 * Writes to subscriptions: the whole transaction in ONE message, so that a process that freezes or dies holds no lock that other
 * replicas wait for.
 *
 * READ COMMITTED, as what is decided under a lock must be seen by a statement that begins after the lock is there;
 * synchronous_commit because what was acknowledged is told to be durable, and a generation that was given must not be given
 * again. The answers are those of the statements between the settings and the commit.
 */
export function writing(statements: readonly (readonly [statement: string, values: readonly Literal[]])[]): string {
  const written = statements.map(([statement, values]) => withLiterals(statement, values));
  return [
    `begin isolation level read committed read write;
    set local synchronous_commit = on;
    set local lock_timeout = '5s';
    set local statement_timeout = '30s';
    set local idle_in_transaction_session_timeout = '5s';
    ${pinned}`,
    ...written,
    "commit",
  ].join(";\n");
}

/** A record as `recordFromRow` reads it, of `r`. Times in milliseconds. */
const recordColumns = `
  r.id, r.definition, r.is_group as "isGroup", r.topics, r.owner, r.labels,
  (extract(epoch from r.expire_after) * 1000)::float8 as "expireAfterMs", r.state, r.cursor, r.epoch::text as epoch,
  r.version::float8 as version, r.generation::float8 as generation,
  (extract(epoch from r.created_at) * 1000)::float8 as "createdAtMs",
  (extract(epoch from r.last_used_at) * 1000)::float8 as "lastUsedAtMs",
  (extract(epoch from r.expires_at) * 1000)::float8 as "expiresAtMs", r.dead_letters::float8 as "deadLetters",
  r.oldest_version::float8 as "oldestVersion"`;

/** $1 the id. */
export const recordOf = `select ${recordColumns} from millrace.subscription_record r where r.id = $1`;

/** $1 the epoch, $2 ids. */
export const readRecords = `
  select ${recordColumns}
  from millrace.assert_epoch($1::uuid), millrace.subscription_record r where r.id = any ($2::text[])`;

/** $1 ids. What claimants go on with, or who holds them. */
export const claimedRecords = `
  select ${recordColumns}, r.delivered, r.progress, r.holder_replica as "holderReplica", r.holder_url as "holderUrl",
    (extract(epoch from r.held_until) * 1000)::float8 as "heldUntilMs"
  from millrace.subscription_record r where r.id = any ($1)`;

/**
 * A page, with how many there are in all in each row; one row without an id for an empty page. $1 the epoch, $2 a regular
 * expression for patterns (see `patternsOf`), $3 the owner, $4 labels, each null for any; $5 the id before the page, $6 its size.
 */
export const listRecords = `
  with passing as materialized (
    select s.id from millrace.assert_epoch($1::uuid), millrace.subscription s
    where ($2::text is null or s.topics = '{}' or exists (select from pg_catalog.unnest(s.topics) p where p ~ $2))
      and ($3::text is null or s.owner = $3)
      and ($4::jsonb is null or s.labels @> $4)
  )
  select t.total, p.* from (select count(*)::float8 as total from passing) t
    left join (
      select ${recordColumns} from millrace.subscription_record r
      where r.id in (
        select g.id from passing g where $5::text is null or g.id > $5 collate "C" order by g.id limit $6::int)
    ) p on true
  order by p.id`;

/** $1 the epoch, then what is created. */
export const createSubscription = `
  select millrace.create_subscription($1::uuid, $2, $3, $4, $5, $6, $7::jsonb, $8::float8 * interval '1 millisecond', $9::uuid,
    $10::bigint, $11::bigint, $12) as outcome`;

/** $1 the epoch, $2 the id. */
export const deleteSubscription = `select ${recordColumns} from millrace.delete_subscription($1::uuid, $2) r`;

/** $1 the epoch, $2 the id, $3 whether. */
export const pauseSubscription = "select millrace.pause_subscription($1::uuid, $2, $3)";

/** $1 the epoch, $2 the id, $3 to $6 the position. */
export const seekSubscription =
  "select millrace.seek_subscription($1::uuid, $2, $3::uuid, $4::bigint, $5::bigint, $6) as outcome";

/** $1 the epoch, $2 ids, $3 replicas, $4 their URLs, empty for none, $5 milliseconds. */
export const claimSubscriptions = `
  select c.id, c.outcome from millrace.claim_subscriptions($1::uuid, $2, $3,
    array(select nullif(u.url, '') from pg_catalog.unnest($4) with ordinality u(url, at) order by u.at),
    array(select l.ms::float8 * interval '1 millisecond' from pg_catalog.unnest($5) with ordinality l(ms, at) order by l.at)) c`;

/** $1 the epoch, $2 advances, $3 settled dead letters, $4 new ones, as `millrace.advance_subscriptions` takes them. */
export const advanceSubscriptions = `
  select a.id, a.outcome, a.generation::float8 as generation, a.epoch::text as epoch, a.version::float8 as version, a.cursor
  from millrace.advance_subscriptions($1::uuid, $2::json, $3::json, $4::json) a`;

/** $1 the epoch, $2 ids, $3 generations, $4 milliseconds. */
export const renewSubscriptions = `
  select r.id from millrace.renew_subscriptions($1::uuid, $2, $3::bigint[], $4::float8 * interval '1 millisecond') r(id)`;

/** $1 the epoch, $2 ids, $3 generations. */
export const releaseSubscriptions = "select millrace.release_subscriptions($1::uuid, $2, $3::bigint[])";

/** Of `d`. */
const deadLetterFilter = `
  d.subscription = $2 and ($3::bigint[] is null or d.version = any ($3)) and ($4::text is null or d.key = $4)`;

/**
 * A page, with how many there are in all and whether there is such a subscription in each row; one row without a version for
 * an empty page. $1 the epoch, $2 the id, $3 versions and $4 the key, null for any; $5 the version before the page, $6 its size.
 */
export const listDeadLetters = `
  select t.there, t.total, d.*
  from millrace.assert_epoch($1::uuid), (
    select exists (select from millrace.subscription s where s.id = $2) as there,
      (select count(*)::float8 from millrace.dead_letter d where ${deadLetterFilter}) as total
  ) t left join (
    select d.version::float8 as version, d.topic, d.key, d.operation, d.before::text as before, d.after::text as after,
      d.headers::text as headers, d.transaction, (extract(epoch from d.occurred_at) * 1000000)::float8 as "occurredAtMicros",
      d.transition, d.attempts, d.reason, (extract(epoch from d.dead_at) * 1000)::float8 as "deadAtMs"
    from millrace.dead_letter d
    where ${deadLetterFilter} and ($5::bigint is null or d.version > $5) order by d.version limit $6::int
  ) d on true
  order by d.version`;

/** $1 the epoch, $2 the id, $3 versions and $4 the key, null for any. */
export const discardDeadLetters = `
  select d.there, d.discarded::float8 as discarded, d.remaining::float8 as remaining
  from millrace.discard_dead_letters($1::uuid, $2, $3::bigint[], $4) d`;

/** $1 the epoch, $2 ids. */
export const readStates = `
  select r.id, r.state, r.generation::float8 as generation, r.moved_generation::float8 as "movedGeneration"
  from millrace.assert_epoch($1::uuid), millrace.subscription_record r where r.id = any ($2::text[])`;

/** $1 the epoch, $2 how many of the lost to name. */
export const readSummary = `
  select count(*) filter (where r.state = 'ACTIVE')::float8 as active,
    count(*) filter (where r.state = 'PAUSED')::float8 as paused,
    count(*) filter (where r.state = 'LOST')::float8 as "lostCount",
    (pg_catalog.array_agg(r.id order by r.id) filter (where r.state = 'LOST'))[1:$2::int] as lost,
    (select count(*)::float8 from millrace.dead_letter) as "deadLetters",
    min(r.version_in_force) filter (where r.state <> 'LOST')::float8 as "oldestVersion"
  from millrace.assert_epoch($1::uuid) left join millrace.subscription_record r on true`;

/**
 * A regular expression for the topic patterns that match a topic: `*` stands for one token, a final `>` for one or more. One
 * expression for all patterns, for it is compiled once.
 */
export function patternsOf(topic: string): string {
  const tokens = topic.split(".").map((token) => token.replaceAll(/[^A-Za-z0-9]/g, "\\$&"));
  const rest = tokens.reduceRight<string | undefined>(
    (after, token) => `(?:>|(?:\\*|${token})${after === undefined ? "" : `\\.${after}`})`,
    undefined,
  );
  return `^${rest ?? ""}$`;
}
