import { expect, it } from "vitest";
import { VersionBook } from "../../support/checker/order.ts";
import { checkResume } from "../../support/checker/resume.ts";
import { checkSnapshot } from "../../support/checker/snapshot.ts";
import { checkFullStory, checkStream, verdict } from "../../support/checker/verdict.ts";
import { startWorkload } from "../../support/workload/workload.ts";
import { Stage, soak, testMs, untilLast } from "./stage.ts";

const rounds = soak ? 40 : 3;

it(
  "G1, G2, G3, G4, G5, G8 kill -9 of the server, again and again: clients resume by their cursor and miss nothing",
  async () => {
    await using stage = await Stage.open();
    let server = await stage.server();
    const port = () => server.port;
    const workload = await startWorkload(stage.url);
    const oldest = await stage.client({ client: "oldest", port, start: { oldest: {} } });
    const live = await stage.client({ client: "live", port, start: { now: {} } });
    for (let round = 0; round < rounds; round += 1) {
      await workload.untilCommitted(200);
      await server.kill9();
      server = await stage.server();
    }
    await workload.untilCommitted(100);
    const { ledger, failures } = await workload.finish();
    await Promise.all([oldest, live].map(untilLast));
    const fresh = await stage.client({ client: "fresh", port, start: { oldest: {} } });
    await untilLast(fresh);

    expect(failures).toEqual([]);
    expect(oldest.recording.calls.length).toBeGreaterThan(rounds);
    const book = new VersionBook();
    expect(
      verdict([
        ...checkFullStory(oldest.recording, ledger),
        ...checkStream(live.recording, { dense: true }),
        ...checkFullStory(fresh.recording, ledger),
        ...checkResume(oldest.recording, fresh.recording),
        ...checkResume(live.recording, fresh.recording),
        ...[oldest, live, fresh].flatMap((one) => book.note(one.recording, "G3")),
      ]),
    ).toBe("");
  },
  testMs,
);

it(
  "G8 a cursor goes on at another replica, back and forth",
  async () => {
    await using stage = await Stage.open();
    const servers = [await stage.server(), await stage.server()];
    let turn = 0;
    const port = () => servers[turn % 2]?.port ?? 0;
    const workload = await startWorkload(stage.url);
    const steady = await stage.client({ client: "steady", port: () => servers[0]?.port ?? 0, start: { oldest: {} } });
    const wanderer = await stage.client({ client: "wanderer", port, start: { oldest: {} } });
    for (let round = 0; round < (soak ? 100 : 8); round += 1) {
      await workload.untilCommitted(40);
      turn += 1;
      wanderer.cut();
    }
    const { ledger } = await workload.finish();
    await Promise.all([steady, wanderer].map(untilLast));
    expect(wanderer.recording.calls.length).toBeGreaterThan(6);
    expect(
      verdict([...checkFullStory(wanderer.recording, ledger), ...checkResume(wanderer.recording, steady.recording)]),
    ).toBe("");
  },
  testMs,
);

it(
  "G7, G8 kill -9 of the server amid a large snapshot: it goes on, each row once, and the events after it follow",
  async () => {
    await using stage = await Stage.open();
    let server = await stage.server();
    const port = () => server.port;
    const workload = await startWorkload(stage.url, { writers: 4 });
    await stage.sql(
      `insert into orders select i, 'bulk.' || i, 1, repeat('x', 200) from generate_series(10001, 40000) i`,
    );
    let rows = 0;
    const snapshot = await stage.client({
      client: "snapshot",
      port,
      start: { snapshot: {} },
      onFrame: (frame) => {
        if (frame.kind === "events") rows += frame.events.length;
      },
    });
    if (rows < 1000) await snapshot.until(() => rows >= 1000);
    await server.kill9();
    server = await stage.server();
    await workload.untilCommitted(100);
    const { ledger } = await workload.finish();
    await untilLast(snapshot);
    const starts = snapshot.recording.calls.flatMap(({ frames }) => frames.filter(isSnapshotStart));
    expect(starts.slice(1)).toEqual(
      starts.slice(1).map(() => expect.objectContaining({ resumed: true, restart: false })),
    );
    expect(starts.length).toBeGreaterThan(1);
    expect(
      verdict([...checkSnapshot(snapshot.recording, ledger), ...checkStream(snapshot.recording, { dense: true })]),
    ).toBe("");
  },
  testMs,
);

function isSnapshotStart({ kind }: { readonly kind: string }): boolean {
  return kind === "snapshot_started";
}
