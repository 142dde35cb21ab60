import { createCluster } from "../../support/cluster.ts";

/** A program that stands in for a test process: has a cluster until it is ended. */
const cluster = await createCluster();
console.log(JSON.stringify({ pid: cluster.postmasterPid, dataDir: cluster.dataDir }));
for await (const _ of process.stdin);
