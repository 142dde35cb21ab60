import type { Logger } from "pino";
import type { FeedError } from "../core/errors.ts";
import type { Sources } from "../core/source/sources.ts";
import { type ConnectionOptions, createPool } from "../postgres/database.ts";
import { createSourceControl } from "../postgres/source/source-control.ts";
import type { Problem } from "../rpc/status.ts";
import type { FollowedConfig } from "./config-file/followed-config.ts";
import type { ConfigFile } from "./config-file/read-config.ts";
import { createDeclaredSources } from "./declared-sources.ts";
import { FeedRebuilt } from "./feed-rebuilt.ts";

/** For those who change sources: one may wait for a table's lock. */
const CONNECTIONS = 2;
const IDLE_MS = 1_000;

/** What opening them takes. */
export interface OpenSourcesOptions {
  readonly databaseUrl: string;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly declared: FollowedConfig | undefined;
  /** As it was when the feed began to be opened. */
  readonly file: ConfigFile | undefined;
  /** Told when the feed is to be opened anew, with other builders. */
  readonly onOver: (reason: FeedError) => void;
  readonly sessions: ConnectionOptions["watch"];
}

/** The watched tables, as they are declared. */
export interface OpenedSources {
  readonly control: Sources;
  /** What is declared and not so. */
  readonly problems: () => readonly Problem[];
}

/** Brings the declared sources about as far as this role may, now and whenever the configuration changes. */
export async function openSources(
  opening: AsyncDisposableStack,
  { databaseUrl, log, signal, declared, file, onOver, sessions }: OpenSourcesOptions,
): Promise<OpenedSources> {
  const pool = createPool({ url: databaseUrl, max: CONNECTIONS, idleMs: IDLE_MS, watch: sessions });
  opening.defer(() => pool.end());
  const control = createSourceControl({ pool });
  if (declared === undefined || file === undefined) return { control, problems: () => [] };
  const bringing = createDeclaredSources({ declarations: file.sources, sources: control, log });
  opening.defer(() => bringing.stop());
  await bringing.start(signal);
  const change = (next: ConfigFile): void => {
    bringing.declare(next.sources);
    // What a builder is can only be told by running it. A feed shows one version of an event to everybody: so another is opened.
    if (isBuilt(file) || isBuilt(next)) onOver(new FeedRebuilt());
  };
  opening.defer(declared.onChange(change));
  if (declared.current !== file) change(declared.current);
  return { control, problems: bringing.problems };
}

function isBuilt({ built, states }: ConfigFile): boolean {
  return built.length > 0 || states.length > 0;
}
