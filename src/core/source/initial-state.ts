/** A query with values for its $1, $2, …: what kysely's `compile()` gives, and the tag `sql`. */
export interface SqlQuery {
  readonly sql: string;
  readonly parameters: readonly unknown[];
}

/** A template of SQL whose values become parameters. */
export type SqlTag = (texts: TemplateStringsArray, ...values: readonly unknown[]) => SqlQuery;

/** What a snapshot of a source holds instead of its table's rows: a SELECT, or what makes one. */
export type InitialState = string | SqlQuery | ((sql: SqlTag) => string | SqlQuery);

/** The tag that `InitialState` functions are given. */
export const sqlTag: SqlTag = (texts, ...values) => ({
  sql: texts.reduce((text, next, at) => `${text}$${at}${next}`),
  parameters: values,
});

/** The query that this means. */
export function queryOf(state: InitialState): SqlQuery {
  const query = typeof state === "function" ? state(sqlTag) : state;
  return typeof query === "string" ? { sql: query, parameters: [] } : query;
}
