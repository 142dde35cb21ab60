import pg from "pg";

/** How long the transactions of some writers took, in milliseconds. */
export interface Paced {
  readonly transactions: number;
  readonly p99Ms: number;
  readonly longestMs: number;
}

/** Writers that never pause: each of their statements is a transaction. `end` says how long they took. */
export async function startWriters(
  url: string,
  statement: string,
  writers = 4,
): Promise<{ end(): Promise<Paced> } & AsyncDisposable> {
  const clients = Array.from({ length: writers }, () => new pg.Client({ connectionString: url }));
  await Promise.all(clients.map((client) => client.connect()));
  const took: number[] = [];
  let writing = true;
  const running = clients.map(async (client) => {
    while (writing) {
      const began = performance.now();
      await client.query(statement);
      took.push(performance.now() - began);
    }
  });
  const end = async (): Promise<Paced> => {
    writing = false;
    await Promise.all(running);
    await Promise.all(clients.map((client) => client.end()));
    const sorted = took.toSorted((a, b) => a - b);
    return {
      transactions: sorted.length,
      p99Ms: sorted[Math.ceil(sorted.length * 0.99) - 1] ?? 0,
      longestMs: sorted.at(-1) ?? 0,
    };
  };
  return {
    end,
    [Symbol.asyncDispose]: async () => {
      writing = false;
      await Promise.allSettled([...running, ...clients.map((client) => client.end())]);
    },
  };
}

/**
 * What the guarantee says: nobody waits for 2 s for a lock that Millrace asks for. It is a bound on waiting and not on speed:
 * what is in the way stays there for longer, and whoever queued behind a lock without a timeout would wait for all of it.
 */
export const boundMs = 2000;
