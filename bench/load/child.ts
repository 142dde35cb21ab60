import { type Publish, startPublisher } from "./publisher.ts";

/** What a server of these benchmarks is started with, as its only argument. */
export interface ChildOptions {
  /** Events published at a time. */
  readonly burst: number;
  readonly [option: string]: unknown;
}

export function childOptions(): ChildOptions {
  return { burst: 1, ...JSON.parse(process.argv[2] ?? "{}") };
}

/** Says where the server listens, and ends with the benchmark that started it. */
export async function ready(port: number, publish: Publish, burst: number): Promise<void> {
  process.stdin.resume().on("end", () => process.exit());
  // So that a profile is written.
  process.once("SIGTERM", () => process.exit());
  const control = await startPublisher(publish, burst);
  process.stdout.write(`${JSON.stringify({ port, control })}\n`);
}
