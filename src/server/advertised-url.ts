import type { Config } from "./config.ts";
import { isLoopback } from "./loopback.ts";

const WILDCARDS: ReadonlySet<string> = new Set(["0.0.0.0", "::", "[::]"]);

/**
 * Where other replicas reach this server, as far as that is known without being told: a wildcard address is this machine by its
 * name; an address of loopback leads to it from this machine only, which its fragment names.
 *
 * @param url - that it listens on
 * @param machine - name of this machine
 */
export function advertisedUrl(
  { advertiseUrl, host }: Pick<Config, "advertiseUrl" | "host">,
  url: string,
  machine: string,
) {
  if (advertiseUrl !== undefined) {
    return advertiseUrl.replace(/\/+$/, "");
  }
  if (isLoopback(host)) {
    return `${url}#${encodeURIComponent(machine)}`;
  }
  if (!WILDCARDS.has(host)) {
    return url;
  }
  const named = new URL(url);
  named.hostname = machine;
  return named.origin;
}
