import { join } from "node:path";

/**
 * What the data directory of an embedded Postgres holds. Deleting the whole starts afresh.
 *
 * | name | what |
 * |---|---|
 * | `cluster/` | the data directory in Postgres's own sense, owned by whom it runs as |
 * | `password` | of the superuser `postgres`; readable by the owner only |
 * | `port` | the TCP port it had last and takes again when it is free |
 * | `postgres.log`, `postgres.log.1` | what Postgres said, and said before that |
 * | `claims/` | which process runs it |
 * | `initdb-…/` | a cluster being made; renamed to `cluster` when it is whole |
 * | `incomplete-…/` | a cluster that turned out not to be whole, set aside |
 */
export interface Layout {
  readonly home: string;
  readonly cluster: string;
  readonly password: string;
  readonly port: string;
  readonly log: string;
  readonly olderLog: string;
  readonly claims: string;
}

/** The layout below an absolute path. */
export function layoutOf(home: string): Layout {
  return {
    home,
    cluster: join(home, "cluster"),
    password: join(home, "password"),
    port: join(home, "port"),
    log: join(home, "postgres.log"),
    olderLog: join(home, "postgres.log.1"),
    claims: join(home, "claims"),
  };
}
