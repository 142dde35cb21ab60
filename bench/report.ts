import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

/** One measured line beside what it is compared with, from the same run. */
export interface Measurement {
  readonly what: string;
  readonly value: number;
  readonly unit: string;
  /** What a user would pick instead, and how it fared. */
  readonly baseline?: { readonly what: string; readonly value: number };
  /** What to reach, in words. */
  readonly target?: string;
  readonly met?: boolean;
}

/** Options that every benchmark takes. */
export interface BenchOptions {
  /** How long each measured phase lasts, about. */
  readonly seconds: number;
}

/** `--seconds N`. */
export function benchOptions(defaultSeconds: number): BenchOptions {
  const { values } = parseArgs({ options: { seconds: { type: "string" } } });
  const seconds = Number(values.seconds ?? defaultSeconds);
  if (!(seconds > 0 && seconds <= 3600)) throw new Error("--seconds must be between 1 and 3600");
  return { seconds };
}

const out = fileURLToPath(new URL("./out/", import.meta.url));

/** Prints the lines as a markdown table and keeps them as `bench/out/<name>.json`. */
export function report(name: string, measurements: readonly Measurement[], conditions: string): void {
  mkdirSync(out, { recursive: true });
  const machine = { cores: cpus().length, cpu: cpus()[0]?.model ?? "", node: process.versions.node };
  const kept = { name, at: new Date().toISOString(), commit: commit(), machine, conditions, measurements };
  writeFileSync(`${out}${name}.json`, `${JSON.stringify(kept, undefined, 2)}\n`);
  process.stdout.write(`\n### ${name}\n${machine.cores} cores, Node ${machine.node}; ${conditions}\n\n`);
  printTable(measurements);
}

/** What these benchmarks last printed that has something to reach, in one table. */
export function summarize(names: readonly string[]): void {
  const lines = names.flatMap((name): readonly Measurement[] => {
    try {
      const kept: { readonly measurements: readonly Measurement[] } = JSON.parse(
        readFileSync(`${out}${name}.json`, "utf8"),
      );
      return kept.measurements.filter((line) => line.target !== undefined);
    } catch {
      return [{ what: `${name}: no figures`, value: Number.NaN, unit: "" }];
    }
  });
  const { length: cores, 0: cpu } = cpus();
  process.stdout.write(`\n## What is to be reached\n${cores} cores (${cpu?.model}), Node ${process.versions.node}, `);
  process.stdout.write(`${commit()}, npm run bench\n\n`);
  printTable(lines);
}

function printTable(lines: readonly Measurement[]): void {
  process.stdout.write("| what | measured | baseline | ratio | target |\n|---|---|---|---|---|\n");
  for (const line of lines) process.stdout.write(`${row(line)}\n`);
}

/** With a plus where files differ from it. */
function commit(): string {
  try {
    const git = (...args: string[]) =>
      execFileSync("git", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    return `${git("rev-parse", "--short", "HEAD").trim()}${git("status", "--porcelain", "src").trim() === "" ? "" : "+"}`;
  } catch {
    return "no commit";
  }
}

function row({ what, value, unit, baseline, target, met }: Measurement): string {
  const beside = baseline === undefined ? "" : `${format(baseline.value)} ${unit}, ${baseline.what}`;
  const ratio = baseline === undefined || baseline.value === 0 ? "" : (value / baseline.value).toFixed(2);
  const goal = target === undefined ? "" : `${target}${met === undefined ? "" : met ? ": met" : ": **missed**"}`;
  return `| ${what} | ${format(value)} ${unit} | ${beside} | ${ratio} | ${goal} |`;
}

function format(value: number): string {
  if (Number.isNaN(value)) return "";
  // Infinity comes back from JSON as null.
  if (!Number.isFinite(value)) return "without end";
  if (value >= 10_000) return `${Math.round(value / 1000).toLocaleString("en")} k`;
  return value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

/** The value below which this share of the sorted samples lies. */
export function percentile(samples: readonly number[], share: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}
