import { type Frame, FrameReader, flags, setting, type } from "./frames.ts";

/**
 * Watches what a client sends and receives, and notes every frame that the server may not send. Written from RFC 9113, not
 * from the server: windows as the client granted them, DATA within them and between a response's head and its end, header
 * blocks in one piece.
 */
export class WireJudge {
  readonly violations: string[] = [];
  #connection = 65_535;
  #initial = 65_535;
  readonly #streams = new Map<number, { granted: number; headed: boolean; over: boolean }>();
  /** Initial windows that were announced and not acknowledged: until then each of them may be what the server goes by. */
  readonly #announced: (number | undefined)[] = [];
  #block = 0;
  #maxFrame = 16_384;
  #begun = false;

  /** A whole frame, or several, on their way to the server. */
  sent(bytes: Buffer): void {
    for (const frame of new FrameReader().push(bytes)) this.#sentFrame(frame);
  }

  received(frame: Frame): void {
    if (!this.#begun) {
      this.#begun = true;
      this.#expect(frame.type === type.settings, "begins with something else than SETTINGS");
    }
    if (this.#block !== 0) {
      this.#expect(
        frame.type === type.continuation && frame.id === this.#block,
        `frame ${frame.type} inside a header block`,
      );
    }
    this.#expect(frame.payload.length <= this.#maxFrame, `a frame of ${frame.payload.length} bytes`);
    const stream = frame.id === 0 ? undefined : this.#streams.get(frame.id);
    switch (frame.type) {
      case type.data:
        this.#receivedData(frame, stream);
        break;
      case type.headers:
        this.#expect(stream !== undefined && !stream.over, `HEADERS for stream ${frame.id}, which is over`);
        if (stream !== undefined) stream.over ||= (frame.flags & flags.endStream) !== 0;
        this.#endBlock(frame, stream);
        break;
      case type.continuation:
        this.#endBlock(frame, stream);
        break;
      case type.rstStream:
        if (stream !== undefined) stream.over = true;
        break;
      case type.settings:
        if ((frame.flags & flags.ack) !== 0) this.#acknowledged();
        break;
      default:
    }
  }

  #receivedData(frame: Frame, stream: { granted: number; headed: boolean; over: boolean } | undefined): void {
    const { length } = frame.payload;
    this.#connection -= length;
    this.#expect(this.#connection >= 0, `DATA ${-this.#connection} bytes beyond the connection's window`);
    if (stream === undefined) {
      this.violations.push(`DATA for stream ${frame.id}, which was never opened`);
      return;
    }
    this.#expect(stream.headed, `DATA before the HEADERS of stream ${frame.id}`);
    this.#expect(!stream.over, `DATA after the end of stream ${frame.id}`);
    stream.granted -= length;
    const window = stream.granted + Math.max(this.#initial, ...this.#announced.map((each) => each ?? 0));
    this.#expect(length === 0 || window >= 0, `DATA ${-window} bytes beyond the window of stream ${frame.id}`);
    stream.over ||= (frame.flags & flags.endStream) !== 0;
  }

  #endBlock(frame: Frame, stream: { headed: boolean } | undefined): void {
    const whole = (frame.flags & flags.endHeaders) !== 0;
    this.#block = whole ? 0 : frame.id;
    if (whole && stream !== undefined) stream.headed = true;
  }

  #sentFrame(frame: Frame): void {
    switch (frame.type) {
      case type.headers:
        if (!this.#streams.has(frame.id)) {
          this.#streams.set(frame.id, { granted: 0, headed: false, over: false });
        }
        break;
      case type.windowUpdate: {
        const increment = frame.payload.length === 4 ? frame.payload.readUInt32BE(0) & 0x7fff_ffff : 0;
        const stream = this.#streams.get(frame.id);
        if (frame.id === 0) this.#connection += increment;
        else if (stream !== undefined) stream.granted += increment;
        break;
      }
      case type.settings:
        if ((frame.flags & flags.ack) === 0) this.#announce(frame.payload);
        break;
      default:
    }
  }

  #announce(entries: Buffer): void {
    let window: number | undefined;
    for (let at = 0; at + 6 <= entries.length; at += 6) {
      const value = entries.readUInt32BE(at + 2);
      if (entries.readUInt16BE(at) === setting.initialWindowSize) window = value;
      if (entries.readUInt16BE(at) === setting.maxFrameSize) this.#maxFrame = Math.max(this.#maxFrame, value);
    }
    this.#announced.push(window);
  }

  #acknowledged(): void {
    this.#initial = this.#announced.shift() ?? this.#initial;
  }

  #expect(holds: boolean, otherwise: string): void {
    if (!holds) this.violations.push(otherwise);
  }
}
