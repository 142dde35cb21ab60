import { migrate } from "../../../src/postgres/migrate.ts";
import type { Recording, SeenFrame } from "../../support/checker/seen.ts";
import { type ClusterOptions, createCluster, debian15Available, type TestCluster } from "../../support/cluster.ts";
import { Recorder, type RecorderOptions } from "../../support/recorder/recorder.ts";
import { type ServerProcess, startServerProcess } from "../../support/server-process.ts";
import { lastKey, withClient } from "../../support/workload/workload.ts";

/** Far longer runs of the same tests, for a quiet machine and a free evening. */
export const soak = process.env.MILLRACE_SOAK === "1";

/** How long such a test may take, in milliseconds. */
export const testMs = soak ? 3_600_000 : 120_000;

/** Postgres servers to prove everything on, as far as they are installed. */
export const clusters: readonly { readonly name: string; readonly options: ClusterOptions }[] = [
  { name: "the embedded Postgres", options: {} },
  ...(debian15Available() ? [{ name: "Debian's Postgres 15", options: { binaries: "debian-15" } as const }] : []),
];

/** A cluster with one migrated database, and everything that a test starts on it. Disposing of it ends all. */
export class Stage implements AsyncDisposable {
  readonly cluster: TestCluster;
  readonly url: string;
  readonly #things = new AsyncDisposableStack();

  private constructor(cluster: TestCluster, url: string) {
    this.cluster = cluster;
    this.url = url;
    this.#things.use(cluster);
  }

  /** `roleDefaults` are settings of the role that everybody here connects as. */
  static async open(options: ClusterOptions = {}, roleDefaults: readonly string[] = []): Promise<Stage> {
    const cluster = await createCluster(options);
    const stage = new Stage(cluster, await cluster.createDatabase("shop"));
    await withClient(stage.url, async (client) => {
      for (const setting of roleDefaults) await client.query(`alter role postgres set ${setting}`);
    });
    await migrate(stage.url);
    return stage;
  }

  async server(config: Readonly<Record<string, unknown>> = {}): Promise<ServerProcess> {
    return this.#things.use(await startServerProcess({ databaseUrl: this.url, ...config }));
  }

  /** A client that is ended with the stage. */
  async client(options: RecorderOptions): Promise<Recorder> {
    const recorder = new Recorder({
      ...options,
      request: { delivery: { checkpoint_interval: { seconds: 0, nanos: 100_000_000 } }, ...options.request },
    });
    this.#things.defer(async () => void (await recorder.stop()));
    return recorder.start();
  }

  sql<T extends object>(text: string, values: readonly unknown[] = []): Promise<readonly T[]> {
    return withClient(this.url, async (client) => (await client.query<T>(text, [...values])).rows);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#things.disposeAsync();
  }
}

/** Resolves once the workload's last event, and with it everything, has arrived and its tick is whole. */
export async function untilLast(recorder: Recorder): Promise<void> {
  const isLast = (frame: SeenFrame) => frame.kind === "events" && frame.events.some(({ key }) => key === lastKey);
  const version = () => {
    for (const call of recorder.recording.calls) {
      for (const frame of call.frames) {
        if (frame.kind === "events" && isLast(frame)) return frame.events.find(({ key }) => key === lastKey)?.version;
      }
    }
    return undefined;
  };
  if (version() === undefined) await recorder.until(isLast);
  await recorder.untilVersion(version() ?? 0);
}

/** The version of the workload's last event. */
export function lastVersionOf(recording: Recording): number {
  return Math.max(0, ...recording.calls.flatMap(({ frames }) => frames.flatMap(versionsOf)));
}

function versionsOf(frame: SeenFrame): readonly number[] {
  return frame.kind === "events" ? frame.events.map(({ version }) => version) : [];
}
