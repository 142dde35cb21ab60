import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { connect, createServer } from "node:net";
import { homedir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { promisify } from "node:util";
import { serverCpu } from "./sink.ts";

const run = promisify(execFile);
const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "millrace-bench");

/** A nats-server on its own core, with nothing kept on disk. */
export interface NatsServer extends AsyncDisposable {
  readonly version: string;
  readonly pid: number;
  readonly port: number;
}

/** Its reason, where NATS cannot be had: the benchmark goes on without. */
export type NatsMissing = { readonly missing: string };

/** From the path, or built from its source by Go into a cache outside the repository. */
export async function startNats(): Promise<NatsServer | NatsMissing> {
  const binary = await findNats();
  if (typeof binary !== "string") return binary;
  const { stdout } = await run(binary, ["--version"]);
  const port = await freePort();
  const child = spawn("taskset", ["-c", String(serverCpu), binary, "-a", "127.0.0.1", "-p", String(port)], {
    stdio: "ignore",
    // One core, like the others.
    env: { ...process.env, GOMAXPROCS: "1" },
  });
  const ended = once(child, "exit");
  await reachable(port);
  return {
    version: stdout.trim(),
    pid: child.pid ?? 0,
    port,
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await ended;
    },
  };
}

async function findNats(): Promise<string | NatsMissing> {
  const built = join(cache, "bin", "nats-server");
  if (existsSync(built)) return built;
  const installed = await run("nats-server", ["--version"]).then(
    () => true,
    () => false,
  );
  if (installed) return "nats-server";
  const go = ["/usr/local/go/bin/go", "/usr/bin/go"].find(existsSync);
  if (go === undefined) return { missing: "neither nats-server nor Go is installed" };
  try {
    await run(go, ["install", "github.com/nats-io/nats-server/v2@latest"], {
      env: { ...process.env, GOBIN: join(cache, "bin"), GOFLAGS: "-modcacherw" },
      timeout: 600_000,
    });
    return built;
  } catch (error) {
    const reason = error instanceof Error ? error.message.trim().split("\n").at(-1) : String(error);
    return { missing: `Go could not build nats-server: ${reason}` };
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  return typeof address === "object" && address !== null ? address.port : 0;
}

async function reachable(port: number): Promise<void> {
  for (let i = 0; i < 100; i += 1) {
    const socket = connect(port, "127.0.0.1");
    const open = await Promise.race([
      once(socket, "connect").then(
        () => true,
        () => false,
      ),
      once(socket, "close").then(() => false),
    ]);
    socket.destroy();
    if (open) return;
    await pause(100);
  }
  throw new Error("nats-server does not answer.");
}
