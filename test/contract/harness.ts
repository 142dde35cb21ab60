import type { FeedStore, WakeUp } from "../../src/core/ports.ts";
import type { StreamMail } from "../../src/core/stream/stream-mail.ts";
import type { SubscriptionStore } from "../../src/core/subscription/subscription-store.ts";

/** What an adapter can be made to do; a test that needs more than it declares is not part of its contract. */
export type Capability =
  /** Transactions can be prepared. */
  | "two_phase"
  /** `retainFrom` drops old versions. */
  | "retention"
  /** `outage` takes the database away. */
  | "outage"
  /** `pageEvents` is obeyed to the event. */
  | "page_size"
  /** `cutSnapshots` is obeyed. */
  | "snapshot_cut"
  /** `backup` works: the database can be put back to an earlier moment. */
  | "restore";

/** One adapter under contract. */
export interface ContractHarness {
  readonly capabilities: ReadonlySet<Capability>;
  /** A fresh, empty database with the sources `orders` and `parcels.{region}`. */
  open(options?: WorldOptions): Promise<World>;
}

/** Of a world. */
export interface WorldOptions {
  /** The test takes the database away: it must not be anybody else's. */
  readonly outage?: boolean;
  /** Events per page of history, as far as the adapter can be told. */
  readonly pageEvents?: number;
  /** Snapshots of more than a few rows end early by themselves. Needs "snapshot_cut". */
  readonly cutSnapshots?: boolean;
}

/** A database, those who write to it, and any number of replicas of the feed. */
export interface World extends AsyncDisposable {
  /** For questions; feeds run on replicas. Of the epoch that was in force when it was asked for. */
  readonly store: FeedStore;
  /** What one more process would read through. Ends with the world. */
  replica(): Promise<{
    readonly store: FeedStore;
    readonly wakeUp: WakeUp;
    readonly mail: StreamMail;
    readonly subscriptions: SubscriptionStore;
  }>;
  /** A session of its own: what it does inside a transaction nobody else sees. */
  writer(): Promise<Writer>;
  /** Two-phase: ends a prepared transaction from any session. */
  commitPrepared(name: string): Promise<void>;
  retainFrom(version: number): Promise<void>;
  /** Makes a source of the table `returns`, or none again. */
  watchReturns(watched: boolean): Promise<void>;
  readonly outage: { begin(): Promise<void>; end(): Promise<void> };
  /** Remembers the database as it is, everything settled. Whatever is connected is cut off once, and writers for good. */
  backup(): Promise<Backup>;
}

/** A database as it was at one moment. */
export interface Backup {
  /** Puts it in the place of the database. Writers from before are cut off; stores that are open meet another epoch. */
  restore(): Promise<void>;
}

/** A writer's session, one transaction after another, each step said by the test. */
export interface Writer {
  begin(): Promise<void>;
  /** The transaction's xid; assigns it, so that it is older than those that begin later. */
  xid(): Promise<string>;
  /** An application's own event. */
  emit(topic: string, key: string | undefined, n: number): Promise<void>;
  /**
   * Inserts or updates the row of a source, or moves it to another region. `topic` is `orders`, `parcels.<region>` or, while
   * that is watched, `returns`.
   */
  put(topic: string, key: string, n: number): Promise<void>;
  remove(topic: string, key: string): Promise<void>;
  truncate(source: "orders" | "parcels.{region}"): Promise<void>;
  commit(): Promise<void>;
  rollback(): Promise<void>;
  prepare(name: string): Promise<void>;
}

/** Begins, does, commits; answers the xid. */
export async function transact(writer: Writer, work: (writer: Writer) => Promise<void>): Promise<string> {
  await writer.begin();
  const xid = await writer.xid();
  await work(writer);
  await writer.commit();
  return xid;
}
