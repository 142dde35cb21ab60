import type { Source, SourceRequest } from "./sources.ts";
import { isSameTable } from "./table-name.ts";

/** How a table is to be watched. What is not given stays as it is. */
export type DeclaredSettings = Omit<SourceRequest, "table" | "reset">;

/** What a configuration says of one table. */
export interface SourceDeclaration {
  /** With its schema, as SQL names it. */
  readonly table: string;
  /** How it is to be watched; `undefined` when it is not to be. */
  readonly settings: DeclaredSettings | undefined;
}

/** What is to be done so that a table is as declared. */
export type Step =
  | { readonly kind: "watch"; readonly request: SourceRequest }
  | { readonly kind: "unwatch"; readonly table: string };

/** The declared table among those that are watched. */
export function watchedAs(table: string, sources: readonly Source[]): Source | undefined {
  return sources.find((source) => isSameTable(source.table ?? source.watchedAs, table));
}

/** What is to be done so that this table is as declared; `undefined` when it is already. */
export function stepTowards({ table, settings }: SourceDeclaration, sources: readonly Source[]): Step | undefined {
  const source = watchedAs(table, sources);
  if (settings === undefined) {
    return source === undefined ? undefined : { kind: "unwatch", table };
  }
  if (source?.table !== undefined && source.state !== "OFF" && isAsDeclared(settings, source)) {
    return undefined;
  }
  return { kind: "watch", request: { table, ...settings } };
}

function isAsDeclared(settings: DeclaredSettings, source: Source): boolean {
  const { topic, keyColumns, include, exclude, polling } = settings;
  const same =
    (topic === undefined || topic === source.topic) &&
    (keyColumns === undefined || isSameList(keyColumns, source.keyColumns)) &&
    (include === undefined || isIncluded(include, exclude ?? [], source)) &&
    (exclude === undefined || include !== undefined || isSameSet(exclude, source.excludedColumns));
  return same && (polling === undefined ? isCapturedAs(settings, source) : isPolledAs(polling, source));
}

function isCapturedAs(settings: DeclaredSettings, source: Source): boolean {
  const { beforeValues, captureTruncate, capture } = settings;
  return (
    source.capture !== "poll" &&
    (beforeValues ?? source.beforeValues) === source.beforeValues &&
    (captureTruncate ?? source.captureTruncate) === source.captureTruncate &&
    (capture ?? source.capture) === source.capture
  );
}

function isPolledAs(polling: NonNullable<SourceRequest["polling"]>, { polling: found }: Source): boolean {
  const { column, deletedColumn, everyMs = 1_000, overlapMs = 60_000 } = polling;
  return (
    found !== undefined &&
    found.column === column &&
    (found.deletedColumn ?? undefined) === deletedColumn &&
    found.everyMs === everyMs &&
    found.overlapMs === overlapMs
  );
}

/** Columns of key and topic are always among those that are kept, in the table's order. */
function isIncluded(include: readonly string[], exclude: readonly string[], source: Source): boolean {
  const { includedColumns, keyColumns, topic } = source;
  const always = [...keyColumns, ...[...topic.matchAll(/\{([^{}]+)\}/g)].map(([, column]) => column ?? "")];
  const wanted = [...include, ...always].filter((column) => !exclude.includes(column));
  return includedColumns !== undefined && isSameSet(wanted, includedColumns);
}

function isSameList(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && one.every((text, at) => text === other[at]);
}

function isSameSet(one: readonly string[], other: readonly string[]): boolean {
  return isSameList([...new Set(one)].sort(), [...new Set(other)].sort());
}
