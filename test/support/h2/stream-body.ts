import { constants, type ServerHttp2Stream } from "node:http2";
import type { BodySink, BodySinkOwner } from "../../../src/rpc/hand-off/body-sink.ts";

/** A body through Node's own stream: the plain meaning that the mux is compared with. */
export function streamBody(stream: ServerHttp2Stream, owner: BodySinkOwner): BodySink {
  stream.once("close", () => owner.onClosed());
  stream.on("drain", () => owner.onReady());
  const gone = () => stream.destroyed || stream.closed || stream.writableEnded;
  return {
    get ready() {
      return !stream.writableNeedDrain;
    },
    get pending() {
      return stream.writableLength;
    },
    write(bytes) {
      if (!gone()) stream.write(bytes);
    },
    end(last, trailers) {
      if (gone()) return;
      if (trailers !== undefined) {
        stream.removeAllListeners("wantTrailers");
        stream.once("wantTrailers", () => stream.sendTrailers(Object.fromEntries(trailers)));
      }
      stream.end(last);
    },
    abort() {
      if (!gone()) stream.close(constants.NGHTTP2_INTERNAL_ERROR);
    },
  };
}
