import { describe, expect, it } from "vitest";
import { VersionBook } from "../../support/checker/order.ts";
import { checkResume } from "../../support/checker/resume.ts";
import { checkSnapshot } from "../../support/checker/snapshot.ts";
import { checkFullStory, checkStream, verdict } from "../../support/checker/verdict.ts";
import { startWorkload } from "../../support/workload/workload.ts";
import { clusters, Stage, soak, testMs, untilLast } from "./stage.ts";

const commits = soak ? 20_000 : 1500;
const longTransaction = soak ? { holdMs: 30_000, holdCommits: 5000 } : { holdMs: 0, holdCommits: 1000 };

describe.each(clusters)("16 writers on hot keys and a long transaction, on $name", ({ options }) => {
  it(
    "G1, G2, G3, G4, G5, G6, G7, G8, G11 every client sees the writers' ledger",
    async () => {
      await using stage = await Stage.open(options);
      const server = await stage.server();
      const workload = await startWorkload(stage.url, { longTransaction });
      const port = () => server.port;
      const oldest = await stage.client({ client: "oldest", port, start: { oldest: {} } });
      await workload.untilCommitted(commits / 5);
      const live = await stage.client({ client: "live", port, start: { now: {} } });
      const snapshot = await stage.client({ client: "snapshot", port, start: { snapshot: {} } });
      const topic = { selectors: [{ topics: ["orders"] }] };
      const selected = await stage.client({ client: "selected", port, start: { oldest: {} }, request: topic });
      const cut = await stage.client({ client: "cut", port, start: { oldest: {} } });
      const cutSnapshot = await stage.client({ client: "cut snapshot", port, start: { snapshot: {} } });
      const again = [];
      for (let round = 1; round <= 5; round += 1) {
        await workload.untilCommitted(commits / 10);
        cut.cut();
        cutSnapshot.cut();
        const reached = oldest.version;
        const rereader = await stage.client({ client: `reread ${round}`, port, start: { oldest: {} } });
        await rereader.untilVersion(reached);
        again.push(await rereader.stop());
      }
      const { ledger, failures, acknowledgedAndLost } = await workload.finish();
      await Promise.all([oldest, live, snapshot, cut, cutSnapshot].map(untilLast));
      await selected.untilVersion(oldest.version);

      expect(failures).toEqual([]);
      expect(acknowledgedAndLost).toEqual([]);
      expect(ledger.rolledBack.size).toBeGreaterThan(100);
      const reference = oldest.recording;
      const book = new VersionBook();
      expect(cut.recording.calls.length).toBeGreaterThan(3);
      expect(
        verdict([
          ...checkFullStory(reference, ledger),
          ...checkFullStory(cut.recording, ledger),
          ...checkStream(live.recording, { dense: true }),
          ...checkStream(snapshot.recording, { dense: true }),
          ...checkStream(selected.recording, { dense: false }),
          ...checkSnapshot(snapshot.recording, ledger, reference),
          ...checkSnapshot(cutSnapshot.recording, ledger, reference),
          ...[reference, live.recording, snapshot.recording, cut.recording].flatMap((one) => book.note(one, "G3")),
          ...again.flatMap((one) => book.note(one, "G6")),
          ...again.flatMap((one) => checkStream(one, { dense: true })),
          ...[live, cut, snapshot, cutSnapshot].flatMap((one) => checkResume(one.recording, reference)),
          ...checkResume(selected.recording, reference, (name) => name === "orders"),
        ]),
      ).toBe("");
    },
    testMs,
  );
});
