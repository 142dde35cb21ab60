import { Code, ConnectError } from "@connectrpc/connect";
import type { Lease } from "../../../gen/millrace/v1/feed_service_pb.js";
import { feedErrorCodeOf } from "../failure.ts";
import { connectSubscriptions } from "../subscription/subscription-client.ts";

/** What is left of a stream that another consumer has taken over is not ours to acknowledge. */
const notOurs = new Set(["SUBSCRIPTION_FENCED", "SUBSCRIPTION_NOT_FOUND"]);

/** Up to where everything is printed, and under which lease: one of a stream before says nothing of this one's deliveries. */
interface Printed {
  readonly cursor: string;
  readonly lease: Lease | undefined;
}

/**
 * Acknowledges what was printed, one call after the other: while one is under way, everything that is printed goes into the
 * next.
 */
export class Acknowledger {
  readonly #url: string;
  readonly #connection: ReturnType<typeof connectSubscriptions>;
  #lease: Lease | undefined;
  #printed: Printed | undefined;
  #calling: Promise<void> | undefined;
  /** Everything up to here is acknowledged. */
  version: bigint | undefined;

  constructor(url: string) {
    this.#url = url;
    this.#connection = connectSubscriptions(this.#url);
  }

  /** A stream has begun: what it prints is said under its generation. */
  opened(lease: Lease | undefined): void {
    this.#lease = lease;
    this.#printed = undefined;
  }

  /** Everything up to this cursor is printed. */
  printed(cursor: string): void {
    this.#printed = { cursor, lease: this.#lease };
    this.#calling ??= this.#call();
  }

  /**
   * Says the rest. Before the stream ends, where that can be: what a group's member has not acknowledged by then is given to
   * others.
   *
   * @throws what the call failed with
   */
  async flush(): Promise<void> {
    await this.#calling;
    const printed = this.#printed;
    this.#printed = undefined;
    if (printed === undefined) return;
    try {
      await this.#say(printed);
    } catch (error) {
      this.#sayLater(printed);
      throw error;
    }
  }

  /** Says the rest, and hangs up. @throws what the last call failed with */
  async end(): Promise<void> {
    try {
      await this.flush();
    } finally {
      this.#connection.close();
    }
  }

  /** What fails is said again with the next, or at the end. */
  async #call(): Promise<void> {
    for (let failed = false; this.#printed !== undefined && !failed; ) {
      const printed = this.#printed;
      this.#printed = undefined;
      try {
        await this.#say(printed);
      } catch {
        this.#sayLater(printed);
        failed = true;
      }
    }
    this.#calling = undefined;
  }

  /** Unless another stream has begun, or more was printed. */
  #sayLater(printed: Printed): void {
    if (printed.lease === this.#lease) this.#printed ??= printed;
  }

  async #say({ cursor, lease }: Printed): Promise<void> {
    if (lease === undefined) return;
    const { subscriptionId, generation, member } = lease;
    try {
      const { version } = await this.#connection.client.acknowledge({ subscriptionId, generation, member, cursor });
      this.version = version;
    } catch (error) {
      const code = error instanceof ConnectError ? feedErrorCodeOf(error) : undefined;
      if (code === undefined || !notOurs.has(code)) throw error;
      if (error instanceof ConnectError && error.code === Code.Aborted && lease === this.#lease)
        this.#lease = undefined;
    }
  }
}
