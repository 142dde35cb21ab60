import {
  type Compilable,
  DummyDriver,
  Kysely,
  PostgresAdapter,
  PostgresIntrospector,
  PostgresQueryCompiler,
} from "kysely";
import type pg from "pg";

/** Tables that are listed or looked things up in, with the columns that are asked for, as the driver answers them. */
export interface Catalog {
  readonly "millrace.migration": {
    readonly number: number;
    readonly name: string;
    readonly sha256: string;
  };
  readonly "millrace.source": {
    readonly id: number;
    readonly relid: number;
    readonly name: string;
    readonly topic: string;
    readonly topic_columns: readonly string[];
    readonly key_columns: readonly string[];
    readonly included_columns: readonly string[] | null;
    readonly excluded_columns: readonly string[];
    readonly before_values: boolean;
    readonly capture_truncate: boolean;
    readonly capture: "trigger" | "strict" | "poll";
    readonly created_at: Date;
  };
  readonly "millrace.tick": {
    readonly tick: string;
    readonly time: Date;
  };
  readonly "pg_catalog.pg_class": {
    readonly oid: number;
    readonly relname: string;
    readonly relnamespace: number;
  };
  readonly "pg_catalog.pg_namespace": {
    readonly oid: number;
    readonly nspname: string;
    readonly nspowner: number;
  };
  readonly "pg_catalog.pg_roles": {
    readonly oid: number;
    readonly rolname: string;
    readonly rolsuper: boolean;
    readonly rolcanlogin: boolean;
  };
}

/**
 * Builds lists and lookups, checked against `Catalog`; `rowsOf` runs them. It has no connection of its own, because most of
 * them run inside somebody's transaction. What is fast or clever is SQL under `statements/`, with its argument above it.
 */
export const catalog = new Kysely<Catalog>({
  dialect: {
    createAdapter: () => new PostgresAdapter(),
    createDriver: () => new DummyDriver(),
    createIntrospector: (database) => new PostgresIntrospector(database),
    createQueryCompiler: () => new PostgresQueryCompiler(),
  },
});

/** Runs a query of `catalog` on this connection. */
export async function rowsOf<R extends pg.QueryResultRow>(
  client: pg.ClientBase,
  query: Compilable<R>,
): Promise<readonly R[]> {
  const { sql, parameters } = query.compile();
  return (await client.query<R>(sql, [...parameters])).rows;
}
