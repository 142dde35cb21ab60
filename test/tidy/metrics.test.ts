import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { metrics } from "../../src/server/metric-names.ts";

const page = readFileSync(new URL("../../docs/metrics.md", import.meta.url), "utf8");

/** As Prometheus sees it. */
function prometheusName(name: string, { kind }: { readonly kind: string }): string {
  return `${name.replaceAll(".", "_")}${kind === "counter" ? "_total" : ""}`;
}

describe("docs/metrics.md", () => {
  const rows = [...page.matchAll(/^\| `(millrace_[a-z_]+)[^|]*\| (\w+) \|/gm)].map(
    ([, name, kind]) => `${name} ${kind}`,
  );

  test("has a row for each metric of the server, and no other", () => {
    const defined = Object.entries(metrics).map(([name, metric]) => `${prometheusName(name, metric)} ${metric.kind}`);
    expect(rows.toSorted()).toEqual(defined.toSorted());
  });
});
