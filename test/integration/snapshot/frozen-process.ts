import pg from "pg";
import { openSnapshot } from "../../../src/postgres/snapshot/snapshot.ts";

/** Freezes amid the copy of a snapshot, as a machine does that swaps or is suspended. Run by `spooling.test.ts`. */
const [, , url, epoch = "", deadlineMs] = process.argv;
const pool = new pg.Pool({ connectionString: url });
const limits = { deadlineMs: Number(deadlineMs) };
const reader = await openSnapshot(pool, epoch, { wantsSource: () => true }, limits, new AbortController().signal);
await reader.rows()[Symbol.asyncIterator]().next();
process.stdout.write("open\n");
process.kill(process.pid, "SIGSTOP");
