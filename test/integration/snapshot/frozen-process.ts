import pg from "pg";
import { openSnapshot } from "../../../src/postgres/snapshot/snapshot.ts";

/** Opens a snapshot and freezes, as a machine does that swaps or is suspended. Run by `spooling.test.ts`. */
const [, , url, epoch = "", deadlineMs] = process.argv;
const pool = new pg.Pool({ connectionString: url });
const limits = { deadlineMs: Number(deadlineMs) };
await openSnapshot(pool, epoch, { wantsSource: () => true }, limits, new AbortController().signal);
process.stdout.write("open\n");
process.kill(process.pid, "SIGSTOP");
