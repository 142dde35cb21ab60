import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { basename, extname } from "node:path";
import { pathToFileURL } from "node:url";
import { FeedError } from "../../core/errors.ts";
import { type Declarations, declarationsFrom } from "./declarations.ts";

/** What a configuration file says, checked. */
export interface ConfigFile extends Declarations {
  readonly path: string;
  /** Of its bytes. */
  readonly digest: string;
}

/** Node loads a module once for each address: those that it has loaded before get another each time. */
let loads = 0;

/**
 * Reads and checks a configuration file: a module of TypeScript or JavaScript with a default export, or JSON.
 *
 * @throws FeedError INVALID_REQUEST that names the file and every wrong field
 */
export async function readConfigFile(path: string): Promise<ConfigFile> {
  const name = basename(path);
  const text = await readFile(path).catch((cause: unknown) => {
    throw wrong(
      `${name} cannot be read: ${reasonOf(cause)}.`,
      "Put it where the server can read it, or restart the server to go on without.",
      cause,
    );
  });
  const value = extname(path) === ".json" ? parsed(name, text.toString("utf8")) : await imported(name, path);
  return { path, digest: digestOf(text), ...declarationsFrom(value, name) };
}

/** What `ConfigFile.digest` would be now; `undefined` when the file cannot be read. */
export async function configDigest(path: string): Promise<string | undefined> {
  return await readFile(path).then(digestOf, () => undefined);
}

function digestOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function parsed(name: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw wrong(`${name} is not JSON: ${reasonOf(cause)}.`, "Correct it.", cause);
  }
}

async function imported(name: string, path: string): Promise<unknown> {
  loads += 1;
  const address = `${pathToFileURL(path).href}?load=${loads}`;
  let module: unknown;
  try {
    module = await import(/* @vite-ignore */ address);
  } catch (cause) {
    throw wrong(
      `${name} cannot be loaded: ${reasonOf(cause)}.`,
      isOwnName(cause)
        ? "Install the package millrace beside it, or leave `defineConfig` out, which only knows the types: `export default { … }`."
        : "Correct it. Node runs it as a module with types that can be erased: no enum, no namespace.",
      cause,
    );
  }
  if (typeof module === "object" && module !== null && "default" in module) return module.default;
  throw wrong(`${name} has no default export.`, "Write `export default defineConfig({ … })`.");
}

/** Whether a file that does not lie where this package is installed asks for it. */
function isOwnName(cause: unknown): boolean {
  return cause instanceof Error && cause.message.startsWith("Cannot find package 'millrace' ");
}

function reasonOf(cause: unknown): string {
  return (cause instanceof Error ? cause.message : String(cause)).replace(/[.\s]+$/, "");
}

function wrong(message: string, action: string, cause?: unknown): FeedError {
  return new FeedError("INVALID_REQUEST", message, action, { cause });
}
