/** One of the two ways in which a stream is written as text over plain HTTP. */
export interface TextForm {
  readonly name: "sse" | "ndjson";
  readonly contentType: string;
  /** One event of the feed; `members` are those of its JSON object, which are never none. */
  change(members: string, cursor: string): string;
  /** Anything else that a stream says. */
  other(name: string, fields: Readonly<Record<string, unknown>>, cursor: string | undefined): string;
  /** How long a client waits before it comes again; empty where the form has no word for it. */
  retry(delayMs: number): string;
  /** What every client passes over; empty where there is no such thing. */
  comment(text: string): string;
}

/** Server-sent events, as `EventSource` reads them: the cursor is the id, to which browsers come back by themselves. */
export const SSE: TextForm = {
  name: "sse",
  contentType: "text/event-stream",
  change: (members, cursor) => `id: ${cursor}\nevent: change\ndata: {${members}}\n\n`,
  other(name, fields, cursor) {
    const id = cursor === undefined ? "" : `id: ${cursor}\n`;
    return `${id}event: ${name}\ndata: ${JSON.stringify(fields)}\n\n`;
  },
  retry: (delayMs) => `retry: ${Math.round(delayMs)}\n\n`,
  comment: (text) => `:${text}\n\n`,
};

/** One JSON object a line. Those that are no events say in `frame` what they are. */
export const NDJSON: TextForm = {
  name: "ndjson",
  contentType: "application/x-ndjson",
  change: (members, cursor) => `{${members},"cursor":"${cursor}"}\n`,
  other: (name, fields, cursor) => `${JSON.stringify({ frame: name, ...fields, cursor })}\n`,
  retry: () => "",
  comment: () => "",
};
