import { expect, it } from "vitest";
import { checkResume } from "../../support/checker/resume.ts";
import { checkFullStory, checkStream, verdict } from "../../support/checker/verdict.ts";
import { eventually, hold } from "../../support/deadline.ts";
import { startWorkload } from "../../support/workload/workload.ts";
import { Stage, soak, testMs, untilLast } from "./stage.ts";

/** Commits that need not be durable, in transactions that fail rather than disagree: as a role's default. */
const roleDefaults = ["synchronous_commit = off", "default_transaction_isolation = 'serializable'"];

const crashes = [
  { defaults: [], name: "with Postgres' own defaults" },
  { defaults: roleDefaults, name: "with synchronous_commit = off and serializable as the role's defaults" },
];

it.each(crashes)(
  "G1, G2, G3, G4, G5, G6 kill -9 of Postgres amid the load $name: nothing delivered is ever undone",
  async (given) => {
    // Long enough that what nobody flushed on purpose is lost with the crash.
    await using stage = await Stage.open({ settings: { wal_writer_delay: "10000" } }, given.defaults);
    const server = await stage.server();
    const port = () => server.port;
    const workload = await startWorkload(stage.url);
    const oldest = await stage.client({ client: "oldest", port, start: { oldest: {} } });
    const live = await stage.client({ client: "live", port, start: { now: {} } });
    for (let round = 0; round < (soak ? 20 : 2); round += 1) {
      await workload.untilCommitted(250);
      await stage.cluster.kill9();
      await stage.cluster.start();
    }
    await workload.untilCommitted(100);
    const { ledger, failures, acknowledgedAndLost } = await workload.finish();
    await Promise.all([oldest, live].map(untilLast));
    const fresh = await stage.client({ client: "fresh", port, start: { oldest: {} } });
    await untilLast(fresh);

    expect(failures).toEqual([]);
    if (given.defaults.length === 0) expect(acknowledgedAndLost).toEqual([]);
    expect(
      verdict([
        ...checkFullStory(oldest.recording, ledger),
        ...checkFullStory(fresh.recording, ledger),
        ...checkStream(live.recording, { dense: true }),
        ...checkResume(live.recording, fresh.recording),
      ]),
    ).toBe("");
  },
  testMs,
);

it(
  "G1 Postgres goes away during streams: they say STALE, stay open, and go on",
  async () => {
    await using stage = await Stage.open();
    const server = await stage.server();
    const port = () => server.port;
    const workload = await startWorkload(stage.url);
    const oldest = await stage.client({ client: "oldest", port, start: { oldest: {} } });
    await workload.untilCommitted(200);
    const stale = oldest.until((frame) => frame.kind === "checkpoint" && frame.state === "STALE");
    await stage.cluster.stop();
    await Promise.all([stale, soak ? hold(10_000) : undefined]);
    const lively = oldest.until((frame) => frame.kind === "checkpoint" && frame.state === "LIVE");
    await stage.cluster.start();
    await workload.untilCommitted(200);
    const { ledger } = await workload.finish();
    await Promise.all([untilLast(oldest), lively]);
    expect(oldest.recording.calls.length).toBe(1);
    expect(verdict(checkFullStory(oldest.recording, ledger))).toBe("");
  },
  testMs,
);

it(
  "G11 with every Millrace process down writers go on, and nothing is lost",
  async () => {
    await using stage = await Stage.open();
    let server = await stage.server();
    const port = () => server.port;
    const workload = await startWorkload(stage.url);
    const oldest = await stage.client({ client: "oldest", port, start: { oldest: {} } });
    await workload.untilCommitted(100);
    await server.kill9();
    await workload.untilCommitted(soak ? 20_000 : 500);
    const settled = await stage.sql<{ head: string }>(
      "select max(first_version + count - 1)::text as head from millrace.tick",
    );
    server = await stage.server();
    const { ledger, failures } = await workload.finish();
    await untilLast(oldest);
    expect(failures).toEqual([]);
    expect(oldest.version - Number(settled[0]?.head)).toBeGreaterThan(500);
    expect(verdict(checkFullStory(oldest.recording, ledger))).toBe("");
  },
  testMs,
);

it(
  "G11 a frozen server holds up neither writers nor another server",
  async () => {
    await using stage = await Stage.open();
    const frozen = await stage.server();
    const server = await stage.server();
    const workload = await startWorkload(stage.url);
    const oldest = await stage.client({ client: "oldest", port: () => server.port, start: { oldest: {} } });
    for (let round = 0; round < (soak ? 50 : 5); round += 1) {
      await workload.untilCommitted(20);
      frozen.freeze();
      const before = oldest.version;
      await workload.untilCommitted(100);
      await eventually(async () => oldest.version > before);
      frozen.thaw();
    }
    const { ledger, failures } = await workload.finish();
    await untilLast(oldest);
    expect(failures).toEqual([]);
    expect(verdict(checkFullStory(oldest.recording, ledger))).toBe("");
  },
  testMs,
);
