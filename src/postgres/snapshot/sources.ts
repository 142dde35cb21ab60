import { createHash } from "node:crypto";
import pg from "pg";
import { FeedError } from "../../core/errors.ts";
import { isSameTable } from "../../core/source/table-name.ts";
import type { Lease } from "../lease.ts";
import type { KeyType } from "./key-text.ts";
import { snapshotSources } from "./snapshot-sources.ts";

/** A watched table and how its rows become events. */
export interface SnapshotSource {
  readonly id: number;
  readonly relid: string;
  /** A topic, or a template. */
  readonly topic: string;
  /** Matches every topic that the template yields; `null` when it is a topic. */
  readonly topicPattern: string | null;
  readonly topicColumns: readonly string[];
  readonly keyColumns: readonly string[];
  /** `null` for all but the excluded ones. */
  readonly includedColumns: readonly string[] | null;
  readonly excludedColumns: readonly string[];
  readonly schema: string;
  readonly table: string;
  readonly partitioned: boolean;
  /** All of the table, in its order. */
  readonly columns: readonly string[];
  /** One key column, of a type whose JSON is its text. */
  readonly plainKey: boolean;
  /** The primary key; the event's key where there is none. Says how rows are sorted, not that it tells them apart. */
  readonly sortColumns: readonly string[];
  /** Of the key's columns, in its order; those that are gone are left out. */
  readonly keyTypes: readonly KeyType[];
  /** Columns of a unique index over nothing but key columns, in its order: see `orderOf`. */
  readonly uniqueColumns: readonly string[] | null;
  /** Digest of all that DDL can change about the rows without an event. */
  readonly structure: string;
  /** All columns are of types that Postgres comes with, or domains over them. */
  readonly plainTypes: boolean;
  /** The database's encoding is UTF8. */
  readonly utf8: boolean;
  /** Of a polled source: true, or not null, in rows that are deleted. */
  readonly deletedColumn: string | null;
  /** A SELECT whose rows are copied instead of the table's. */
  readonly initialState?: StatedSource;
}

/** A SELECT that stands for the rows of a table in snapshots. */
export interface StatedSource {
  /** With its schema, as SQL names it. */
  readonly table: string;
  readonly sql: string;
}

interface ListedSource extends SnapshotSource {
  readonly mayUse: boolean;
  readonly mayRead: boolean;
  readonly rowsHidden: boolean;
  readonly role: string;
}

/**
 * The sources that are wanted, as this connection sees them. A source whose table is gone has no rows and is left out.
 *
 * @throws FeedError TOPIC_FORBIDDEN when this role may not read one of them whole, with the statement that changes that.
 */
export async function wantedSources(
  lease: Lease,
  wantsSource: (topic: string) => boolean,
  states: readonly StatedSource[] = [],
): Promise<readonly SnapshotSource[]> {
  const listed = await lease.rows<ListedSource>(snapshotSources);
  return listed
    .filter(({ topic }) => wantsSource(topic))
    .map((source) => {
      const refused = refusal(source);
      if (refused !== undefined) throw refused;
      const { mayUse, mayRead, rowsHidden, role, ...rest } = source;
      return withState(rest, states);
    });
}

/** What a query yields has no order that anything is known of. */
function withState(source: SnapshotSource, states: readonly StatedSource[]): SnapshotSource {
  const state = states.length === 0 ? undefined : states.find(({ table }) => isSameTable(table, nameOf(source)));
  return state === undefined ? source : { ...source, uniqueColumns: null, initialState: state };
}

/** As SQL names it, with its schema. */
function nameOf({ schema, table }: SnapshotSource): string {
  return `${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(table)}`;
}

/** A watched table, and why this role cannot take a snapshot of it. */
export interface ReadableSource {
  readonly topic: string;
  readonly refusal: FeedError | undefined;
}

/** Of every watched table that there is, whether this role could take a snapshot of it. */
export async function sourceRights(lease: Lease): Promise<readonly ReadableSource[]> {
  const listed = await lease.rows<ListedSource>(snapshotSources);
  return listed.map((source) => ({ topic: source.topic, refusal: refusal(source) }));
}

/** Whether these are the same tables, called and captured the same. */
export function sameSources(some: readonly SnapshotSource[], others: readonly SnapshotSource[]): boolean {
  return JSON.stringify(some) === JSON.stringify(others);
}

/** The columns that images show, in the table's order. */
export function shownColumns(source: SnapshotSource): readonly string[] {
  const { columns, includedColumns, excludedColumns, keyColumns, topicColumns } = source;
  // An excluded column that is not there may have another name now, and would show: key and topic are all that is shown.
  const drifted = excludedColumns.some((column) => !columns.includes(column));
  return drifted
    ? columns.filter((column) => keyColumns.includes(column) || topicColumns.includes(column))
    : columns.filter((column) => !excludedColumns.includes(column) && (includedColumns?.includes(column) ?? true));
}

/** What a place in a snapshot rests on: these tables in this order, captured like this, and what is asked of them. */
export function shapeOf(sources: readonly SnapshotSource[], selection: string | undefined): number {
  return createHash("sha256")
    .update(JSON.stringify([selection ?? "", sources]))
    .digest()
    .readUInt32BE();
}

function refusal(source: ListedSource): FeedError | undefined {
  const { topic, schema, table, mayUse, mayRead, rowsHidden, role } = source;
  const name = `${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(table)}`;
  const grantee = pg.escapeIdentifier(role);
  if (!mayUse || !mayRead) {
    const grants = [
      ...(mayUse ? [] : [`grant usage on schema ${pg.escapeIdentifier(schema)} to ${grantee}`]),
      ...(mayRead ? [] : [`grant select on ${name} to ${grantee}`]),
    ];
    return new FeedError(
      "TOPIC_FORBIDDEN",
      `Role ${role} may not read ${name}, the table of topic "${topic}".`,
      `Run \`${grants.join("; ")}\`, or leave the topic out of the snapshot.`,
    );
  }
  if (rowsHidden) {
    return new FeedError(
      "TOPIC_FORBIDDEN",
      `Row security hides rows of ${name}, the table of topic "${topic}", from role ${role}.`,
      `Run \`alter role ${grantee} bypassrls\` as a superuser, or leave the topic out of the snapshot.`,
    );
  }
  return undefined;
}
