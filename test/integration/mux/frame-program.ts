import fc from "fast-check";
import {
  data,
  flags,
  frame,
  goaway,
  ping,
  request,
  requestBlock,
  rstStream,
  settings,
  type,
  uint32,
  windowUpdate,
} from "../../support/h2/frames.ts";

/** One thing that a client does. Streams are counted from 0 in the order in which they are opened. */
export type Act =
  | { readonly do: "open"; readonly sizes: readonly number[]; readonly how: "handed" | "unary"; readonly parts: number }
  | { readonly do: "update"; readonly stream: number; readonly increment: number }
  | { readonly do: "windows"; readonly size: number }
  | {
      readonly do: "data";
      readonly stream: number;
      readonly length: number;
      readonly padding: number;
      readonly end: boolean;
    }
  | { readonly do: "reset"; readonly stream: number }
  | { readonly do: "ping" }
  | { readonly do: "unknown"; readonly type: number; readonly length: number }
  | { readonly do: "settle" }
  | { readonly do: "wrong"; readonly which: number };

/** What a client does, and in what pieces its bytes leave. */
export interface Program {
  readonly acts: readonly Act[];
  readonly pieces: readonly number[];
}

/** All that a client ever writes, so that no connection's window is used up: then who comes first would matter. */
const BYTES_MAX = 48_000;
const STREAMS_MAX = 8;

const stream = fc.nat({ max: STREAMS_MAX - 1 });
const open = fc.record({
  do: fc.constant("open" as const),
  sizes: fc.array(fc.nat({ max: 3_000 }), { maxLength: 4 }),
  how: fc.constantFrom("handed" as const, "unary" as const),
  parts: fc.integer({ min: 1, max: 4 }),
});

/** What no client may do; each ends the connection. */
export const wrongDoings: readonly ((streamId: number) => Buffer)[] = [
  (id) => windowUpdate(id, 0),
  () => windowUpdate(0, 0),
  () => windowUpdate(0, 0x7fff_ffff),
  (id) => Buffer.concat([windowUpdate(id, 0x7fff_ffff), windowUpdate(id, 0x7fff_ffff)]),
  () => windowUpdate(4_001, 1),
  () => settings({ initialWindowSize: 2 ** 31 }),
  () => settings({ maxFrameSize: 1 }),
  () => settings({ enablePush: 7 }),
  (id) => frame(type.windowUpdate, 0, id, Buffer.alloc(3)),
  () => frame(type.settings, 0, 0, Buffer.alloc(7)),
  (id) => frame(type.settings, 0, id),
  () => frame(type.ping, 0, 0, Buffer.alloc(3)),
  () => frame(type.data, 0, 0, Buffer.alloc(3)),
  () => frame(type.rstStream, 0, 4_001, uint32(8)),
  (id) => frame(type.rstStream, 0, id, Buffer.alloc(5)),
  () => request(2, "/handed/1"),
  (id) => frame(type.continuation, flags.endHeaders, id, requestBlock("/x")),
  () => Buffer.concat([frame(type.headers, 0, 4_001, requestBlock("/x")), windowUpdate(0, 5)]),
  (id) => Buffer.concat([frame(type.headers, 0, 4_001, requestBlock("/x")), windowUpdate(id, 5)]),
  (id) => frame(type.pushPromise, flags.endHeaders, id, Buffer.concat([uint32(2), requestBlock("/x")])),
  () => frame(type.headers, flags.endHeaders, 4_001, Buffer.alloc(9, 0xff)),
  (id) => frame(type.data, flags.padded, id, Buffer.from([200, 1])),
  () => frame(type.data, 0, 1, Buffer.alloc(16_385)),
  () => Buffer.concat([goaway(0, 1), ping("late")]),
];

const act: fc.Arbitrary<Act> = fc.oneof(
  { weight: 6, arbitrary: open },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant("update" as const),
      stream: fc.integer({ min: -1, max: STREAMS_MAX - 1 }),
      increment: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 9_000 })),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("windows" as const),
      size: fc.oneof(fc.constantFrom(0, 1, 65_535, 0x7fff_0000), fc.nat({ max: 9_000 })),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("data" as const),
      stream,
      length: fc.nat({ max: 500 }),
      padding: fc.nat({ max: 20 }),
      end: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("reset" as const), stream }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("ping" as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("unknown" as const),
      type: fc.integer({ min: 20, max: 255 }),
      length: fc.nat({ max: 300 }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("settle" as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("wrong" as const), which: fc.nat({ max: wrongDoings.length - 1 }) }),
  },
);

/** Programs of valid and, now and then, invalid frames. */
export const program: fc.Arbitrary<Program> = fc.record({
  acts: fc.array(act, { maxLength: 30 }),
  pieces: fc.array(fc.oneof(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 2_000 })), { maxLength: 12 }),
});

/** A client that goes through a program. It knows what it opened, and so what it may still do. */
export class ProgramClient {
  readonly opened: { readonly id: number; readonly wanted: number }[] = [];
  /** Reset by this client. */
  readonly reset = new Set<number>();
  /** Whose request is complete. */
  readonly #closed = new Set<number>();
  #bytes = 0;

  /** What to send for an act. `undefined`: nothing, for it would be wrong in a way that is not meant. */
  framesOf(act: Act): Buffer | undefined {
    switch (act.do) {
      case "open":
        return this.#open(act.sizes, act.how, act.parts);
      case "update": {
        const id = act.stream === -1 ? 0 : this.#idOf(act.stream);
        return id === undefined ? undefined : windowUpdate(id, act.increment);
      }
      case "windows":
        return settings({ initialWindowSize: act.size });
      case "data":
        return this.#data(act);
      case "reset": {
        const id = this.#idOf(act.stream);
        if (id === undefined) return undefined;
        this.reset.add(id);
        return rstStream(id, 8);
      }
      case "ping":
        return ping("program");
      case "unknown":
        return frame(act.type, 0xff, this.#idOf(0) ?? 0, Buffer.alloc(act.length));
      case "wrong":
        return wrongDoings[act.which]?.(this.#idOf(0) ?? 1);
      case "settle":
        return undefined;
    }
  }

  #open(sizes: readonly number[], how: string, parts: number): Buffer | undefined {
    const wanted = sizes.reduce((sum, size) => sum + size, 0);
    if (this.opened.length === STREAMS_MAX || this.#bytes + wanted > BYTES_MAX) return undefined;
    this.#bytes += wanted;
    const id = 1 + 2 * this.opened.length;
    this.opened.push({ id, wanted });
    return request(id, `/${how}/${sizes.join(",")}`, { end: false, parts });
  }

  #data(act: Act & { readonly do: "data" }): Buffer | undefined {
    const id = this.#idOf(act.stream);
    if (id === undefined || this.#closed.has(id) || this.reset.has(id)) return undefined;
    if (act.end) this.#closed.add(id);
    const payload = Buffer.alloc(act.length, id);
    if (act.padding === 0) return data(id, payload, act.end);
    const padded = Buffer.concat([Buffer.from([act.padding]), payload, Buffer.alloc(act.padding)]);
    return frame(type.data, flags.padded | (act.end ? flags.endStream : 0), id, padded);
  }

  #idOf(index: number): number | undefined {
    return this.opened[index]?.id;
  }
}
