import type { Feed } from "../feed.ts";
import type { Clock, Timers } from "../ports.ts";
import type { SubscriptionStore } from "../subscription/subscription-store.ts";
import { LEASE_MS, SAFE_MS } from "./group-claims.ts";
import type { GroupForwarding } from "./group-forwarding.ts";
import type { GroupHost } from "./group-host.ts";

/** Held groups are looked after so often. */
const LOOK_MS = 250;
const RENEW_MS = LEASE_MS / 4;
const AUDIT_MS = 30_000;
/** A server that goes down is gone within about this, and another one may be there. */
const DRAIN_RETRY_MS = 1_000;

/** What held groups are kept with. */
export interface GroupKeeperOptions {
  readonly feed: Pick<Feed, "status">;
  readonly store: Pick<SubscriptionStore, "renew">;
  readonly clock: Clock;
  readonly timers: Timers;
  readonly signal: AbortSignal;
  readonly hosts: ReadonlyMap<string, GroupHost>;
  /** Streams that go to other replicas. */
  readonly forwarding: Pick<GroupForwarding, "streams" | "drain"> | undefined;
  readonly lost: (host: GroupHost) => void;
  /** To be compared with the database, in case nobody told that something was discarded elsewhere. */
  readonly audit: (host: GroupHost) => void;
  readonly report: (message: string, error?: unknown) => void;
}

/**
 * Renews the claims of all held groups, in one call. A claim that cannot be renewed may be over, and another replica may have
 * begun to deliver: until it is known to hold, nothing is given out here, for else two members could have one key at once.
 */
export class GroupKeeper {
  readonly #options: GroupKeeperOptions;
  #cancel: (() => void) | undefined;
  #renewing = false;
  #renewAtMs = 0;
  #auditAtMs = 0;
  #failing = false;

  constructor(options: GroupKeeperOptions) {
    this.#options = options;
  }

  /** There is a group to look after. */
  look(): void {
    const { timers, hosts, signal, forwarding } = this.#options;
    if (this.#cancel !== undefined || signal.aborted) {
      return;
    }
    this.#cancel = timers.after(LOOK_MS, () => {
      this.#cancel = undefined;
      this.#look();
      if (hosts.size > 0 || (forwarding?.streams ?? 0) > 0) {
        this.look();
      }
    });
  }

  /** Members are told that the server goes down. */
  drain(): void {
    const { clock, hosts, forwarding } = this.#options;
    const retryAfterMs = Math.round(DRAIN_RETRY_MS * clock.random());
    forwarding?.drain(retryAfterMs);
    for (const host of [...hosts.values()]) {
      host.drain(retryAfterMs);
      if (host.isDrained) {
        host.close("DRAINING");
      }
    }
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #look(): void {
    const { feed, clock, hosts, audit } = this.#options;
    const nowMs = clock.monotonic();
    if (feed.status().state === "DRAINING") {
      this.drain();
    }
    for (const host of hosts.values()) {
      if (nowMs - host.renewedAtMs >= SAFE_MS) {
        host.suspend(true);
      }
    }
    if (nowMs >= this.#auditAtMs) {
      this.#auditAtMs = nowMs + AUDIT_MS;
      for (const host of hosts.values()) {
        audit(host);
      }
    }
    if (!this.#renewing && nowMs >= this.#renewAtMs) {
      this.#renewing = true;
      void this.#renew(nowMs).finally(() => {
        this.#renewing = false;
      });
    }
  }

  async #renew(askedAtMs: number): Promise<void> {
    const { store, hosts, signal, lost, report } = this.#options;
    const asked = [...hosts.values()];
    try {
      const held = asked.map(({ id, generation }) => ({ id, generation }));
      const gone = new Set(await store.renew(held, LEASE_MS, signal));
      this.#renewAtMs = askedAtMs + RENEW_MS;
      this.#failing = false;
      for (const host of asked) {
        if (gone.has(host.id)) {
          lost(host);
        } else {
          host.renewed(askedAtMs);
        }
      }
    } catch (error) {
      if (!this.#failing && !signal.aborted) {
        report("The hold on groups could not be renewed; it is tried again.", error);
      }
      this.#failing = true;
    }
  }
}
