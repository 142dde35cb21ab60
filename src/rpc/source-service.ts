import { create } from "@bufbuild/protobuf";
import { type Duration, durationFromMs, timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import {
  CaptureOrder,
  ListSourcesResponseSchema,
  SourceSchema,
  type SourceService,
  SourceState,
  UnwatchSourceResponseSchema,
  type WatchSourceRequest,
  WatchSourceResponseSchema,
  type Source as WireSource,
} from "../../gen/millrace/v1/source_service_pb.js";
import { FeedError } from "../core/errors.ts";
import type { Source, SourcePolling, SourceRequest, Sources } from "../core/source/sources.ts";

/** What SourceService stands on. */
export interface SourceServiceOptions {
  /** `undefined` as long as the database is waited for. */
  readonly sources: () => Sources | undefined;
  /** Whether callers may use it at all. */
  readonly enabled: boolean;
}

/** SourceService over the port. Requests have passed validation; whatever is thrown here, the interceptors translate. */
export function createSourceService({ sources, enabled }: SourceServiceOptions): ServiceImpl<typeof SourceService> {
  const present = (): Sources => {
    if (!enabled) throw switchedOff();
    const found = sources();
    if (found === undefined) throw notYet();
    return found;
  };
  return {
    watchSource: async (request, context) => {
      const { source, warnings } = await present().watch(requestFromWire(request), context.signal);
      return create(WatchSourceResponseSchema, {
        source: sourceMessage(source),
        warnings: warnings.map(({ message, action }) => ({ message, action })),
      });
    },
    unwatchSource: async ({ table }, context) => {
      await present().unwatch(table, context.signal);
      return create(UnwatchSourceResponseSchema);
    },
    listSources: async (_request, context) => {
      const listed = await present().list(context.signal);
      return create(ListSourcesResponseSchema, { sources: listed.map(sourceMessage) });
    },
  };
}

function requestFromWire(request: WatchSourceRequest): SourceRequest {
  const { table, topic, key, include, exclude, beforeValues, truncate, order, reset, polling } = request;
  return {
    table,
    ...(topic === undefined ? {} : { topic }),
    ...(key === undefined ? {} : { keyColumns: key.names }),
    ...(include === undefined ? {} : { include: include.names }),
    ...(exclude === undefined ? {} : { exclude: exclude.names }),
    ...(beforeValues === undefined ? {} : { beforeValues }),
    ...(truncate === undefined ? {} : { captureTruncate: truncate }),
    ...(order === CaptureOrder.UNSPECIFIED ? {} : { capture: order === CaptureOrder.STRICT ? "strict" : "trigger" }),
    ...(reset ? { reset } : {}),
    ...(polling === undefined ? {} : { polling: pollingFromWire(polling) }),
  };
}

function pollingFromWire(polling: NonNullable<WatchSourceRequest["polling"]>): SourcePolling {
  const { column, deletedColumn, every, overlap } = polling;
  return {
    column,
    ...(deletedColumn === undefined ? {} : { deletedColumn }),
    ...(every === undefined ? {} : { everyMs: milliseconds(every) }),
    ...(overlap === undefined ? {} : { overlapMs: milliseconds(overlap) }),
  };
}

function milliseconds({ seconds, nanos }: Duration): number {
  return Number(seconds) * 1_000 + nanos / 1e6;
}

const states: Readonly<Record<Source["state"], SourceState>> = {
  OK: SourceState.OK,
  DEGRADED: SourceState.DEGRADED,
  OFF: SourceState.OFF,
};

function sourceMessage(source: Source): WireSource {
  const { polling, includedColumns } = source;
  return create(SourceSchema, {
    table: source.table ?? "",
    watchedAs: source.watchedAs,
    topic: source.topic,
    key: [...source.keyColumns],
    exclude: [...source.excludedColumns],
    beforeValues: source.beforeValues,
    truncate: source.captureTruncate,
    order: source.capture === "strict" ? CaptureOrder.STRICT : CaptureOrder.DEFAULT,
    state: states[source.state],
    problems: source.problems.map(({ kind, message, action }) => ({ code: kind, message, action })),
    createdAt: timestampFromDate(source.createdAt),
    ...(includedColumns === undefined ? {} : { include: { names: [...includedColumns] } }),
    ...(polling === undefined ? {} : { polling: pollingMessage(polling) }),
  });
}

function pollingMessage({ column, deletedColumn, everyMs, overlapMs }: NonNullable<Source["polling"]>) {
  return {
    column,
    every: durationFromMs(everyMs),
    overlap: durationFromMs(overlapMs),
    ...(deletedColumn === null ? {} : { deletedColumn }),
  };
}

function switchedOff(): FeedError {
  return new FeedError(
    "TOPIC_FORBIDDEN",
    "This server does not let its callers see or change what is watched.",
    "Use `millrace watch`, `unwatch` and `sources` with DATABASE_URL; or start the server with `--sources-api on`, for everybody who reaches it.",
  );
}

function notYet(): FeedError {
  return new FeedError("DATABASE_UNAVAILABLE", "The database is not there yet.", "Try again in a moment.", {
    retryAfterMs: 1_000,
  });
}
