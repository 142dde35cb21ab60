import pg from "pg";
import { createPool } from "../../../src/postgres/database.ts";
import { migrate } from "../../../src/postgres/migrate.ts";
import { keepOutbox } from "../../../src/postgres/retention/upkeep.ts";
import { unwatchTable, watchTable } from "../../../src/postgres/sources.ts";

/** Does one thing that takes locks, to be frozen amid it. Run by `frozen.test.ts`. */
const [, , what = "", url = ""] = process.argv;
process.stdin.resume().on("end", () => process.exit(1));

async function withClient(use: (client: pg.Client) => Promise<unknown>): Promise<void> {
  const client = new pg.Client({ connectionString: url, application_name: "to be frozen" });
  await client.connect();
  await use(client);
  await client.end();
}

if (what === "watch") await withClient((client) => watchTable(client, { table: "t" }, { lockAttempts: 50 }));
else if (what === "unwatch") await withClient((client) => unwatchTable(client, "t", { lockAttempts: 50 }));
else if (what === "migrate")
  await migrate({ connectionString: url, application_name: "to be frozen" }, { lockAttempts: 50 });
else {
  const pool = createPool({ url: `${url}?application_name=to%20be%20frozen`, max: 1, idleMs: 1000 });
  while ((await keepOutbox(pool, new AbortController().signal)).waitsFor !== undefined);
  await pool.end();
}
process.exit();
