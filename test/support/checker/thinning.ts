import type { SeenEvent } from "./seen.ts";

const NONE: ReadonlySet<number> = new Set();

/** The versions that come nevertheless of what a policy's gap speaks of. */
export function keptBy(policy: string, sampleEvery: number, matching: readonly SeenEvent[]): ReadonlySet<number> {
  switch (policy) {
    case "LATEST":
      return newestOfKeys(matching);
    case "SAMPLE":
      return new Set(
        matching.filter((_, at) => (matching.length - 1 - at) % sampleEvery === 0).map(({ version }) => version),
      );
    default:
      return NONE;
  }
}

/** As whoever applies all of them in turn finds it: what a later one has put out of date goes. */
function newestOfKeys(events: readonly SeenEvent[]): ReadonlySet<number> {
  const topics = new Map<string, Map<string, number>>();
  const kept = new Set<number>();
  for (const { version, topic, key, operation } of events) {
    if (key === undefined && operation !== "TRUNCATE") {
      kept.add(version);
      continue;
    }
    const places = topics.get(topic) ?? new Map<string, number>();
    topics.set(topic, places);
    if (operation === "TRUNCATE") {
      for (const gone of places.values()) kept.delete(gone);
      places.clear();
    }
    const place = key ?? "";
    kept.delete(places.get(place) ?? -1);
    places.set(place, version);
    kept.add(version);
  }
  return kept;
}
