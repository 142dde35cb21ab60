import { fileURLToPath } from "node:url";
import { credentials, loadPackageDefinition, type ServiceClientConstructor } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

/**
 * A gRPC client made from the .proto files alone, by a library that Millrace does not use: what it sees is what anybody
 * sees.
 */
const root = fileURLToPath(new URL("../../../", import.meta.url));

const definition = loadSync(`${root}proto/millrace/v1/feed_service.proto`, {
  includeDirs: [`${root}proto`, `${root}third_party`],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: false,
  oneofs: true,
});

/** The service's definition as the proto files give it. */
export function feedServiceConstructor(): ServiceClientConstructor {
  let found: unknown = loadPackageDefinition(definition);
  for (const name of ["millrace", "v1", "FeedService"]) {
    found = found === null || found === undefined ? undefined : Reflect.get(Object(found), name);
  }
  if (typeof found !== "function") throw new Error("millrace.v1.FeedService is not in the proto files.");
  return found as ServiceClientConstructor;
}

/** A client of `127.0.0.1:port`, on a connection of its own. */
export function createFeedClient(port: number): InstanceType<ServiceClientConstructor> {
  return new (feedServiceConstructor())(`127.0.0.1:${port}`, credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.max_receive_message_length": 64 * 1024 * 1024,
    "grpc.initial_reconnect_backoff_ms": 50,
    "grpc.max_reconnect_backoff_ms": 200,
  });
}
