import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { resolveConfig } from "../../src/server/config.ts";
import { startServer } from "../../src/server/server.ts";
import { createCluster } from "../support/cluster.ts";
import { query, templateCopy } from "../support/restores.ts";
import { startMillrace } from "./millrace-command.ts";

const PATIENCE = { timeout: 30_000 };

describe("millrace tail while the database is restored", () => {
  it("G8 goes on by itself below the fork, and above it ends with 5 and says where to go on", async () => {
    await using cluster = await createCluster();
    const url = await cluster.createDatabase("shop");
    const server = await startServer(resolveConfig({ flags: { databaseUrl: url, port: 0, logLevel: "silent" } }));
    const directory = await mkdtemp(join(tmpdir(), "millrace-epochs-"));
    const tail = startMillrace(["tail", "--from", "oldest", "--ndjson", "--url", server.url], { directory });
    try {
      const emits = async (key: string) => {
        await query(url, "select millrace.emit('notes', $1, '{}')", [key]);
        return JSON.parse(await tail.line((line) => line.includes(`"key":"${key}"`))).version;
      };
      expect(await emits("a")).toBe(1);
      const restoreNothing = await templateCopy(cluster, "shop");
      await restoreNothing();
      await vi.waitUntil(() => tail.stderr().includes("the stream is back, in epoch"), PATIENCE);
      expect(tail.stderr().trimEnd().split("\n").at(-1)).toBe(
        `millrace: the stream is back, in epoch ${server.feed.status().epoch}`,
      );
      expect(await emits("b")).toBe(2);
      const restore = await templateCopy(cluster, "shop");
      await vi.waitUntil(() => server.feed.status().state === "LIVE", PATIENCE);
      expect(await emits("c")).toBe(3);
      await restore();
      await vi.waitUntil(() => !alive(tail.pid), PATIENCE);
      expect(await tail.end("SIGINT")).toBe(5);
      const said = tail.stderr().trimEnd().split("\n");
      expect(said.at(-3)).toMatch(
        /^millrace: the epoch of the stream has ended \(Epoch \S+ has ended: .* same up to version 2 and differs after it\); asking for what comes after version 3$/,
      );
      expect(said.at(-2)).toBe("millrace: go on with --from version:2");
      expect(JSON.parse(said.at(-1) ?? "")).toMatchObject({
        error: {
          code: "EPOCH_CHANGED",
          message: expect.stringMatching(/^Version 3 of epoch \S+ is no part of the history in force/),
          action: "Discard what came after version 2 and go on from there, or start again from `snapshot`.",
          exitCode: 5,
        },
      });
    } finally {
      await server.stop(0);
      await rm(directory, { recursive: true });
    }
  });
});

function alive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
