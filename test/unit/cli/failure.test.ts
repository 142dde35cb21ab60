import { Code, ConnectError } from "@connectrpc/connect";
import { Command, CommanderError } from "commander";
import { describe, expect, it } from "vitest";
import { failureFrom, failureText } from "../../../src/cli/failure.ts";

function thrownBy(args: readonly string[]): unknown {
  const program = new Command("millrace").exitOverride().configureOutput({ writeErr: () => undefined });
  program.command("watch");
  try {
    return program.parse(["node", "millrace", ...args]);
  } catch (error) {
    return error;
  }
}

describe("a failure, told to people", () => {
  it("has what may have been meant in its sentence", () => {
    const error = thrownBy(["wacth"]);
    expect(error).toBeInstanceOf(CommanderError);
    expect(failureText(failureFrom(error)).split("\n")).toEqual([
      "millrace: unknown command 'wacth'. Did you mean watch?",
      "  See `millrace --help`, or `millrace COMMAND --help`.",
    ]);
  });

  it("says of https:// to a server without TLS what it is, instead of what OpenSSL makes of it", () => {
    const error = new ConnectError(
      "4097E8F7:error:0A00010B:SSL routines:tls_validate_record_header:wrong version number:tlsany_meth.c:78:",
      Code.Unavailable,
    );
    expect(failureText(failureFrom(error)).split("\n")).toEqual([
      "millrace: no answer from the Millrace server: it does not speak TLS.",
      "  Write http:// instead of https://, or start it with --tls-cert and --tls-key.",
    ]);
  });
});
