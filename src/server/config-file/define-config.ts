import type { Builder } from "../../core/builder/builder.ts";
import type { InitialState } from "../../core/source/initial-state.ts";
import type { ConfigInput } from "../config.ts";

/** How one table is watched, as `millrace watch` has it. What is not given stays as it is, or is the default of a new source. */
export interface SourceConfig {
  /** A topic, or a template over columns: `orders.{region}`. Default: the table's name. */
  readonly topic?: string | undefined;
  /** Default: the primary key. */
  readonly key?: readonly string[] | undefined;
  /** The only columns in images, beside those of key and topic. Default: all. */
  readonly include?: readonly string[] | undefined;
  /** Columns that stay out of images. Default: none. */
  readonly exclude?: readonly string[] | undefined;
  /** Whether UPDATE and DELETE carry the old row. Default true. */
  readonly before?: boolean | undefined;
  /** Whether TRUNCATE is an event. Default true. */
  readonly truncate?: boolean | undefined;
  /** Default `default`. */
  readonly order?: "default" | "strict" | undefined;
  /** Without triggers, by looking from time to time for rows in which this column has risen. */
  readonly poll?: PollConfig | undefined;
  /** Makes events of its changes: see `Builder` for what it must keep to. Default: the rows themselves. */
  readonly build?: Builder | undefined;
  /** Patterns of the topics that `build` may answer with. Default: any, so that every snapshot has to run it. */
  readonly topics?: readonly string[] | undefined;
  /** A SELECT that a snapshot of this source runs instead of copying the table. */
  readonly initialState?: InitialState | undefined;
}

/** How a table is polled. */
export interface PollConfig {
  /** Rises with every change. */
  readonly column: string;
  /** True, or not null, in rows that are deleted. Default: deletions go unseen. */
  readonly deletedColumn?: string | undefined;
  /** Milliseconds between looks. Default 1,000. */
  readonly everyMs?: number | undefined;
  /** Longest time between a transaction's now() and its first write, in milliseconds. Default 60,000. */
  readonly overlapMs?: number | undefined;
}

/** What `millrace.config.ts` says: options of the server by their names in camel case, and sources. */
export interface MillraceConfig extends Partial<ConfigInput> {
  /** By table, with its schema, as SQL names it: `public.orders`. `false`: it is not to be watched. */
  readonly sources?: Readonly<Record<string, SourceConfig | false>> | undefined;
}

/** Gives a configuration its type. For the default export of `millrace.config.ts`. */
export function defineConfig(config: MillraceConfig): MillraceConfig {
  return config;
}
