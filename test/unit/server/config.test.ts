import { describe, expect, it } from "vitest";
import { FeedError } from "../../../src/core/errors.ts";
import { type ConfigSources, configSchema, environmentNames, resolveConfig } from "../../../src/server/config.ts";
import { isLoopback } from "../../../src/server/loopback.ts";

const databaseUrl = "postgres://app@localhost/shop";

function problemOf(sources: ConfigSources): string {
  try {
    resolveConfig(sources);
  } catch (error) {
    if (error instanceof FeedError && error.code === "INVALID_REQUEST") return error.message;
    throw error;
  }
  throw new Error("it was accepted");
}

describe("the configuration", () => {
  it("needs nothing but the database", () => {
    expect(resolveConfig({ env: { DATABASE_URL: databaseUrl } })).toMatchObject({
      databaseUrl,
      host: "127.0.0.1",
      port: 7400,
      insecure: false,
      corsOrigins: [],
      checkpointIntervalMs: 15_000,
      drainMs: 10_000,
      migrate: true,
    });
  });

  it("takes flags over environment over file over defaults", () => {
    const file = { databaseUrl, port: 1, host: "localhost", maxStreams: 5 };
    const env = { PORT: "2", MILLRACE_HOST: "::1" };
    expect(resolveConfig({ file })).toMatchObject({ port: 1, host: "localhost", maxStreams: 5 });
    expect(resolveConfig({ file, env })).toMatchObject({ port: 2, host: "::1", maxStreams: 5 });
    expect(resolveConfig({ file, env, flags: { port: 3, host: undefined } })).toMatchObject({ port: 3, host: "::1" });
  });

  it("takes an empty variable for none", () => {
    expect(resolveConfig({ env: { DATABASE_URL: databaseUrl, PORT: "" } }).port).toBe(7400);
  });

  it("reads what a shell can write: sizes, lists, switches", () => {
    const env = {
      DATABASE_URL: databaseUrl,
      MILLRACE_LOG_BYTES: "64MiB",
      MILLRACE_MAX_REQUEST_BYTES: "65536",
      MILLRACE_CORS_ORIGINS: "https://a.example, https://b.example:8443",
      MILLRACE_COMPRESS: "yes",
      MILLRACE_DELIVERY: "stock",
      MILLRACE_MIGRATE: "false",
      MILLRACE_DIRECT_URL: "none",
    };
    expect(resolveConfig({ env })).toMatchObject({
      logBytes: 67_108_864,
      maxRequestBytes: 65_536,
      corsOrigins: ["https://a.example", "https://b.example:8443"],
      compress: true,
      delivery: "stock",
      migrate: false,
      directUrl: "none",
    });
  });

  it("gives every option a variable of its own, and a description", () => {
    expect(Object.keys(environmentNames).toSorted()).toEqual(Object.keys(configSchema.shape).toSorted());
    expect(new Set(Object.values(environmentNames)).size).toBe(Object.keys(environmentNames).length);
    for (const [name, option] of Object.entries(configSchema.shape)) {
      // A default wraps what is described.
      expect(option.description ?? "", name).not.toBe("");
    }
  });

  const wrong: readonly (readonly [string, Record<string, unknown>, string])[] = [
    ["no database", { databaseUrl: undefined }, "--database-url (DATABASE_URL) is missing"],
    ["another database", { databaseUrl: "mysql://x/y" }, "--database-url (DATABASE_URL) must be postgres://…"],
    ["a port that is no number", { port: "http" }, "--port (PORT) must be a whole number between 0 and 65535"],
    ["a port too high", { port: "65536" }, "--port (PORT) must be a whole number between 0 and 65535"],
    ["a size that is none", { logBytes: "lots" }, "--log-bytes (MILLRACE_LOG_BYTES) must be a number of bytes"],
    ["a size too small", { logBytes: "1k" }, "--log-bytes (MILLRACE_LOG_BYTES) must be at least 1048576 bytes"],
    [
      "filters longer than any request may carry",
      { maxFilterBytes: 65_537 },
      "--max-filter-bytes (MILLRACE_MAX_FILTER_BYTES) must be at most 65536 bytes",
    ],
    ["a switch that is none", { insecure: "maybe" }, "--insecure (MILLRACE_INSECURE) must be true or false"],
    ["a level that is none", { logLevel: "loud" }, "--log-level (MILLRACE_LOG_LEVEL) must be one of trace, debug"],
    ["an origin with a path", { corsOrigins: "https://a.example/x" }, "--cors-origins (MILLRACE_CORS_ORIGINS) must be"],
    ["a key without a certificate", { tlsKey: "k.pem" }, "--tls-cert (MILLRACE_TLS_CERT) is missing beside --tls-key"],
    ["a certificate without a key", { tlsCert: "c.pem" }, "--tls-key (MILLRACE_TLS_KEY) is missing beside --tls-cert"],
    ["an unknown option", { prot: 1 }, "--prot is no option"],
    ["every interface", { host: "0.0.0.0" }, "--host (MILLRACE_HOST) is not loopback"],
    ["another machine's name", { host: "db.internal" }, "--host (MILLRACE_HOST) is not loopback"],
  ];

  it.each(wrong)("refuses %s with a sentence that names the option", (_what, flags, sentence) => {
    expect(problemOf({ flags: { databaseUrl, ...flags } })).toContain(sentence);
  });

  it("names every wrong option at once", () => {
    const problem = problemOf({ flags: { databaseUrl, port: "x", logLevel: "y" } });
    expect(problem).toContain("--port");
    expect(problem).toContain("--log-level");
  });

  it("opens to others only when that is said aloud", () => {
    expect(resolveConfig({ flags: { databaseUrl, host: "0.0.0.0", insecure: true } }).host).toBe("0.0.0.0");
  });
});

describe("loopback", () => {
  it.each(["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost", "LOCALHOST", "app.localhost"])("is %s", (host) => {
    expect(isLoopback(host)).toBe(true);
  });

  it.each(["0.0.0.0", "::", "10.0.0.1", "localhost.example", "127.0.0.1.example", "example.com", ""])(
    "is not %s",
    (host) => {
      expect(isLoopback(host)).toBe(false);
    },
  );
});
