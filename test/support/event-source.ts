import { get, type IncomingMessage } from "node:http";
import { StringDecoder } from "node:string_decoder";
import { setTimeout as delay } from "node:timers/promises";

/** One message as a page gets it. */
export interface ServerSentMessage {
  readonly event: string;
  readonly data: string;
  readonly lastEventId: string;
}

/** Reads `text/event-stream` as the HTML standard says. */
export class EventStreamParser {
  lastEventId = "";
  /** Milliseconds, once the stream has said so. */
  retryMs: number | undefined;
  /** Lines of comment, without their colon. */
  readonly comments: string[] = [];
  readonly #decoder = new StringDecoder("utf8");
  readonly #onMessage: (message: ServerSentMessage) => void;
  #rest = "";
  #event = "";
  #data: string[] = [];
  #id: string;

  constructor(lastEventId: string, onMessage: (message: ServerSentMessage) => void) {
    this.lastEventId = lastEventId;
    this.#id = lastEventId;
    this.#onMessage = onMessage;
  }

  feed(chunk: Buffer): void {
    const lines = (this.#rest + this.#decoder.write(chunk)).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#line(line);
  }

  #line(line: string): void {
    if (line === "") {
      this.#dispatch();
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (colon === 0) this.comments.push(value);
    else if (field === "event") this.#event = value;
    else if (field === "data") this.#data.push(value);
    else if (field === "id") this.#id = value;
    else if (field === "retry") this.retryMs = Number(value);
  }

  /** A message that was cut is none: neither its data nor its id counts. */
  #dispatch(): void {
    this.lastEventId = this.#id;
    const data = this.#data.join("\n");
    const event = this.#event === "" ? "message" : this.#event;
    const empty = this.#data.length === 0;
    this.#event = "";
    this.#data = [];
    if (!empty) this.#onMessage({ event, data, lastEventId: this.lastEventId });
  }
}

/** `EventSource` as the HTML standard has it, for tests that need no browser. */
export class PlainEventSource implements Disposable {
  readonly messages: ServerSentMessage[] = [];
  /** As `EventSource.readyState`: 0 connecting, 1 open, 2 closed. */
  readyState = 0;
  /** Of the answer that it gave up on. */
  status: number | undefined;
  connections = 0;
  readonly #url: string;
  readonly #headers: Readonly<Record<string, string>>;
  #lastEventId = "";
  #retryMs = 3_000;
  #response: IncomingMessage | undefined;

  constructor(url: string, headers: Readonly<Record<string, string>> = {}) {
    this.#url = url;
    this.#headers = headers;
    void this.#run();
  }

  of(event: string): readonly ServerSentMessage[] {
    return this.messages.filter((message) => message.event === event);
  }

  [Symbol.dispose](): void {
    this.readyState = 2;
    this.#response?.destroy();
  }

  async #run(): Promise<void> {
    while (this.readyState !== 2) {
      await this.#connect().catch(() => undefined);
      if (this.readyState !== 2) {
        this.readyState = 0;
        await delay(this.#retryMs);
      }
    }
  }

  async #connect(): Promise<void> {
    this.connections += 1;
    const id = this.#lastEventId === "" ? {} : { "last-event-id": this.#lastEventId };
    const headers = { accept: "text/event-stream", ...this.#headers, ...id };
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      get(this.#url, { headers, agent: false }, resolve).on("error", reject);
    });
    this.#response = response;
    if (response.statusCode !== 200 || !/^text\/event-stream/.test(response.headers["content-type"] ?? "")) {
      this.status = response.statusCode;
      this[Symbol.dispose]();
      return;
    }
    this.readyState = 1;
    const parser = new EventStreamParser(this.#lastEventId, (message) => this.messages.push(message));
    try {
      for await (const chunk of response) {
        parser.feed(chunk);
        this.#lastEventId = parser.lastEventId;
        this.#retryMs = parser.retryMs ?? this.#retryMs;
      }
    } catch {
      // Cut: comes again.
    }
  }
}
