import { once } from "node:events";
import { get, type IncomingHttpHeaders, type IncomingMessage, request } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { EventStreamParser, type ServerSentMessage } from "../../support/event-source.ts";

/** An answer that was read to its end. */
export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

/** By node:http, which sends no header of its own accord that matters here. */
export async function ask(url: string, headers: Record<string, string> = {}, method = "GET"): Promise<Answer> {
  const call = request(url, { method, headers, agent: false });
  call.end();
  const [response] = (await once(call, "response")) as [IncomingMessage];
  response.setEncoding("utf8");
  let text = "";
  for await (const chunk of response) text += chunk;
  return { status: response.statusCode ?? 0, headers: response.headers, text };
}

/** The whole answer to a GET, head and all where the version has one in text. */
export async function askBy(version: "1.0" | "1.1" | "2", url: string): Promise<string> {
  const { port, pathname, search, origin } = new URL(url);
  if (version === "2") {
    const session = connectHttp2(origin);
    const stream = session.request({ ":path": pathname + search, accept: "text/event-stream" });
    let text = "";
    for await (const chunk of stream.setEncoding("utf8")) text += chunk;
    session.close();
    return text;
  }
  const socket = connect(Number(port), "127.0.0.1");
  const close = version === "1.1" ? "Connection: close\r\n" : "";
  socket.write(
    `GET ${pathname}${search} HTTP/${version}\r\nHost: localhost\r\nAccept: text/event-stream\r\n${close}\r\n`,
  );
  let text = "";
  for await (const chunk of socket.setEncoding("utf8")) text += chunk;
  return text;
}

/** A stream that is read as it comes. */
export class OpenAnswer implements Disposable {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  text = "";
  ended = false;
  readonly #response: IncomingMessage;
  #changed = Promise.withResolvers<void>();

  private constructor(response: IncomingMessage) {
    this.#response = response;
    this.status = response.statusCode ?? 0;
    this.headers = response.headers;
    response.setEncoding("utf8");
    response.on("data", (chunk: string) => {
      this.text += chunk;
      this.#notify();
    });
    response.on("error", () => undefined);
    response.on("close", () => {
      this.ended = true;
      this.#notify();
    });
  }

  static async open(url: string, headers: Record<string, string> = {}): Promise<OpenAnswer> {
    const call = get(url, { headers, agent: false });
    const [response] = (await once(call, "response")) as [IncomingMessage];
    return new OpenAnswer(response);
  }

  /** Resolves once it holds; rejects when the stream has ended before. */
  async until(holds: (text: string) => boolean): Promise<string> {
    while (!holds(this.text)) {
      if (this.ended) throw new Error(`it ended before: ${this.text}`);
      await this.#changed.promise;
    }
    return this.text;
  }

  async end(): Promise<string> {
    while (!this.ended) await this.#changed.promise;
    return this.text;
  }

  [Symbol.dispose](): void {
    this.#response.destroy();
  }

  #notify(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

/** The messages of a text of server-sent events. */
export function messagesOf(text: string): readonly (ServerSentMessage & { readonly json: Record<string, unknown> })[] {
  const messages: ServerSentMessage[] = [];
  new EventStreamParser("", (message) => messages.push(message)).feed(Buffer.from(text));
  return messages.map((message) => ({ ...message, json: JSON.parse(message.data) }));
}

/** The objects of lines of JSON. */
export function linesOf(text: string): readonly Record<string, unknown>[] {
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.map((line) => JSON.parse(line));
}
