import { createPostgresStore } from "../../../src/postgres/store.ts";

/**
 * A replica in a process of its own, to be stopped and killed: advances for ever and says on stdout when it sleeps as the
 * waiter.
 */
const signal = new AbortController().signal;
const store = createPostgresStore({
  url: process.argv[2] ?? "",
  signals: { onSleeping: () => process.stdout.write("sleeping\n") },
});
await store.start(signal);
let after = (await store.bounds(signal)).head;
for (;;) {
  const page = await store.advance(after, signal);
  after += page?.events.length ?? 0;
  await store.wakeUp.wait(page !== undefined, signal);
}
