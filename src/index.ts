// What Node programs import: the feed in their own process (`docs/in-process.md`), and what `millrace.config.ts` is written
// with (`docs/sources.md`).
export type { Builder, BuiltEvent, Change, Row } from "./core/builder/builder.ts";
export type { Cursor } from "./core/cursor.ts";
export { compareCursors, decodeCursor, encodeCursor } from "./core/cursor.ts";
export { FeedError, type FeedErrorCode, type FeedErrorDetail } from "./core/errors.ts";
export type { Event, Image, Operation, Transition, Version } from "./core/event.ts";
export type { FeedStats } from "./core/feed/feed-stats.ts";
export type { FeedStatus } from "./core/feed.ts";
export type { EventsFrame, Frame, Lease, StreamState } from "./core/frame.ts";
export type { Policy, PolicyKind } from "./core/policy/policy.ts";
export type { NewEvent, Publication, Published } from "./core/ports.ts";
export type { Selector } from "./core/selector/selector.ts";
export type { InitialState, SqlQuery, SqlTag } from "./core/source/initial-state.ts";
export type { SubscriptionFilter, SubscriptionRecord } from "./core/subscription/subscription-store.ts";
export { ChangeFeed } from "./in-process/change-feed.ts";
export { FeedSubscriptions, type SubscriptionOptions } from "./in-process/feed-subscriptions.ts";
export type { Following } from "./in-process/following.ts";
export { type OpenFeedOptions, openFeed, openMemoryFeed } from "./in-process/open-feed.ts";
export type { FollowOptions, From } from "./in-process/request.ts";
export { createMemoryStore, type MemoryStore, type MemoryStoreOptions } from "./memory/store.ts";
export {
  defineConfig,
  type MillraceConfig,
  type PollConfig,
  type SourceConfig,
} from "./server/config-file/define-config.ts";
