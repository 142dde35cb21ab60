// @grpc/grpc-js, to its favour: each event is encoded once for all streams.

import { toBinary } from "@bufbuild/protobuf";
import { type handleServerStreamingCall, Server, ServerCredentials, type ServerWritableStream } from "@grpc/grpc-js";
import { SubscribeResponseSchema } from "../../../gen/millrace/v1/feed_service_pb.js";
import { childOptions, ready } from "../child.ts";
import { eventsMessage, openedMessage } from "../message.ts";

const { burst } = childOptions();
const calls = new Set<ServerWritableStream<Buffer, Buffer>>();
const opened = Buffer.from(toBinary(SubscribeResponseSchema, openedMessage()));
const subscribe: handleServerStreamingCall<Buffer, Buffer> = (call) => {
  call.on("error", () => {});
  call.write(opened);
  calls.add(call);
  call.once("cancelled", () => calls.delete(call));
};
const same = (bytes: Buffer) => bytes;
let version = 0;

const server = new Server({
  "grpc.max_concurrent_streams": 20_000,
  "grpc-node.max_session_memory": 1_000,
});
server.addService(
  {
    Subscribe: {
      path: "/millrace.v1.FeedService/Subscribe",
      requestStream: false,
      responseStream: true,
      requestSerialize: same,
      requestDeserialize: same,
      responseSerialize: same,
      responseDeserialize: same,
    },
  },
  { Subscribe: subscribe },
);
server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) => {
  if (error !== null) throw error;
  void ready(port, publish, burst);
});

function publish(count: number, stampNs: bigint): void {
  for (let i = 0; i < count; i += 1) {
    version += 1;
    const bytes = Buffer.from(toBinary(SubscribeResponseSchema, eventsMessage(version, 1, stampNs)));
    for (const call of calls) call.write(bytes);
  }
}
