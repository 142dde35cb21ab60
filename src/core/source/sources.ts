/** What to watch and how. Of a table that is watched already, what is not given stays as it was. */
export interface SourceRequest {
  /** As SQL names it. */
  readonly table: string;
  /** A topic, or a template over columns. Default: the table's name. */
  readonly topic?: string;
  /** Default: the primary key, or the columns of the index that is the replica identity. */
  readonly keyColumns?: readonly string[];
  /** The only columns in images; those of the key and the topic always are. Default: all. */
  readonly include?: readonly string[];
  /** Columns that stay out of images. Default: none. */
  readonly exclude?: readonly string[];
  /** Whether UPDATE and DELETE carry the old row. Default true. Means nothing with `polling`, as the next three do not. */
  readonly beforeValues?: boolean;
  /** Whether TRUNCATE is an event. Default true. */
  readonly captureTruncate?: boolean;
  /** `strict`: in the order of the changes, whatever other triggers do. Default `trigger`. */
  readonly capture?: "trigger" | "strict";
  /** Whether what is not given becomes the default, also where it was set before. Default false. */
  readonly reset?: boolean;
  /** Without triggers, by looking from time to time. */
  readonly polling?: SourcePolling;
}

/** How a table is polled. */
export interface SourcePolling {
  /** Rises with every change. */
  readonly column: string;
  /** True, or not null, in rows that are deleted softly. Default: deletions go unseen. */
  readonly deletedColumn?: string;
  /** Milliseconds between looks. Default 1,000. */
  readonly everyMs?: number;
  /** Longest time between a transaction's now() and its first write, in milliseconds. Default 60,000. */
  readonly overlapMs?: number;
}

/** A watched table: how it is captured, and whether it is. */
export interface Source {
  /** As it is called now, with its schema; `undefined` when it is gone. */
  readonly table: string | undefined;
  /** As it was called when it was watched. */
  readonly watchedAs: string;
  /** A topic, or a template over columns. */
  readonly topic: string;
  readonly keyColumns: readonly string[];
  /** `undefined` for all but the excluded ones. */
  readonly includedColumns: readonly string[] | undefined;
  readonly excludedColumns: readonly string[];
  readonly beforeValues: boolean;
  readonly captureTruncate: boolean;
  readonly capture: "trigger" | "strict" | "poll";
  readonly polling:
    | {
        readonly column: string;
        readonly deletedColumn: string | null;
        readonly everyMs: number;
        readonly overlapMs: number;
      }
    | undefined;
  readonly createdAt: Date;
  /** OFF: its changes are not captured. DEGRADED: they are, but not all, not whole, or may yet be lost. */
  readonly state: "OK" | "DEGRADED" | "OFF";
  readonly problems: readonly { readonly kind: string; readonly message: string; readonly action: string }[];
}

/** What came of watching a table. */
export interface WatchedSource {
  readonly source: Source;
  /** What works but deserves a look, and what to do, empty when nothing is known. */
  readonly warnings: readonly { readonly message: string; readonly action: string }[];
}

/**
 * The watched tables of a database, changed while it is at work.
 *
 * Every method rejects with TOPIC_FORBIDDEN when this role lacks the rights, and says who has them; with DATABASE_UNAVAILABLE
 * when the table's lock was not to be had within some seconds, and names the sessions in the way.
 */
export interface Sources {
  /** Rejects with INVALID_REQUEST for a table that cannot be watched, or not like this. */
  watch(request: SourceRequest, signal: AbortSignal): Promise<WatchedSource>;
  /** Rejects with SOURCE_NOT_FOUND when it is not watched. */
  unwatch(table: string, signal: AbortSignal): Promise<void>;
  /** By name. */
  list(signal: AbortSignal): Promise<readonly Source[]>;
}
