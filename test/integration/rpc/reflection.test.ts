import { create, createFileRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type FileDescriptorProto, FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ServerReflectionRequest, ServerReflection as V1 } from "../../../gen/grpc/reflection/v1/reflection_pb.js";
import { ServerReflection as V1Alpha } from "../../../gen/grpc/reflection/v1alpha/reflection_pb.js";
import { SubscribeRequestSchema } from "../../../gen/millrace/v1/feed_service_pb.js";
import { createScriptedFeed } from "./scripted-feed.ts";
import { type Served, serve } from "./served.ts";

let served: Served;
beforeAll(async () => {
  served = await serve(createScriptedFeed({}));
});
afterAll(() => served[Symbol.asyncDispose]());

type Question = Exclude<ServerReflectionRequest["messageRequest"], { case: undefined }>;
type PlainQuestion =
  | { case: Exclude<Question["case"], "fileContainingExtension">; value: string }
  | { case: "fileContainingExtension"; value: { containingType: string; extensionNumber: number } };

const versions = [
  { name: "v1", service: V1 },
  { name: "v1alpha", service: V1Alpha },
] as const;

describe.each(versions)("reflection $name", ({ service }) => {
  async function ask(...questions: PlainQuestion[]) {
    const transport = createGrpcTransport({ baseUrl: served.url });
    async function* requests() {
      for (const messageRequest of questions) yield { host: "here", messageRequest };
    }
    const answers = [];
    for await (const answer of createClient(service, transport).serverReflectionInfo(requests())) answers.push(answer);
    return answers;
  }

  async function filesOf(...questions: PlainQuestion[]): Promise<FileDescriptorProto[][]> {
    return (await ask(...questions)).map(({ messageResponse }) =>
      messageResponse.case === "fileDescriptorResponse"
        ? messageResponse.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes))
        : [],
    );
  }

  it("lists every service, itself included", async () => {
    const [answer] = await ask({ case: "listServices", value: "*" });
    expect(answer?.validHost).toBe("here");
    const { messageResponse } = answer ?? { messageResponse: { case: undefined } };
    expect(
      messageResponse.case === "listServicesResponse" ? messageResponse.value.service.map(({ name }) => name) : [],
    ).toEqual([
      "grpc.health.v1.Health",
      "grpc.reflection.v1.ServerReflection",
      "grpc.reflection.v1alpha.ServerReflection",
      "millrace.v1.FeedService",
      "millrace.v1.SourceService",
      "millrace.v1.SubscriptionService",
    ]);
  });

  it("gives everything that a client needs to build the types, rules for validation included", async () => {
    const [files = []] = await filesOf({ case: "fileContainingSymbol", value: "millrace.v1.FeedService" });
    expect(files.map((file) => file.name).toSorted()).toEqual([
      "buf/validate/validate.proto",
      "google/protobuf/descriptor.proto",
      "google/protobuf/duration.proto",
      "google/protobuf/field_mask.proto",
      "google/protobuf/timestamp.proto",
      "millrace/v1/event.proto",
      "millrace/v1/feed_service.proto",
      "millrace/v1/selector.proto",
    ]);
    const original = files.find((file) => file.name === "millrace/v1/feed_service.proto");
    if (original === undefined) throw new Error("the file asked for is not there");
    const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: dependenciesFirst(files) }));
    const rebuilt = registry.getMessage("millrace.v1.SubscribeRequest");
    expect(rebuilt?.fields.map((field) => `${field.number} ${field.name}`)).toEqual(
      SubscribeRequestSchema.fields.map((field) => `${field.number} ${field.name}`),
    );
    expect(toBinary(FileDescriptorProtoSchema, original)).toEqual(
      toBinary(FileDescriptorProtoSchema, SubscribeRequestSchema.file.proto),
    );
  });

  it("sends each file once per stream", async () => {
    const [first = [], second = []] = await filesOf(
      { case: "fileByFilename", value: "millrace/v1/selector.proto" },
      { case: "fileByFilename", value: "millrace/v1/feed_service.proto" },
    );
    const names = [...first, ...second].map((file) => file.name);
    expect(new Set(names).size).toBe(names.length);
    expect(second[0]?.name).toBe("millrace/v1/feed_service.proto");
  });

  it.each([
    ["millrace.v1.FeedService.Subscribe", "millrace/v1/feed_service.proto"],
    ["millrace.v1.ErrorDetail", "millrace/v1/error.proto"],
    [".millrace.v1.Event", "millrace/v1/event.proto"],
    ["millrace.v1.Event.version", "millrace/v1/event.proto"],
    ["millrace.v1.SubscribeRequest.start", "millrace/v1/feed_service.proto"],
    ["millrace.v1.Operation", "millrace/v1/event.proto"],
    ["millrace.v1.OPERATION_INSERT", "millrace/v1/event.proto"],
    ["buf.validate.field", "buf/validate/validate.proto"],
    ["grpc.health.v1.HealthCheckResponse.ServingStatus", "grpc/health/v1/health.proto"],
    ["grpc.health.v1.HealthCheckResponse.SERVING", "grpc/health/v1/health.proto"],
  ])("finds the file of %s", async (symbol, file) => {
    const [files = []] = await filesOf({ case: "fileContainingSymbol", value: symbol });
    expect(files[0]?.name).toBe(file);
  });

  it("finds extensions by number, and their numbers", async () => {
    const extension = { containingType: "google.protobuf.FieldOptions", extensionNumber: 1159 };
    const [files = []] = await filesOf({ case: "fileContainingExtension", value: extension });
    expect(files[0]?.name).toBe("buf/validate/validate.proto");
    const [answer] = await ask({ case: "allExtensionNumbersOfType", value: "google.protobuf.FieldOptions" });
    const response = answer?.messageResponse;
    expect(response?.case === "allExtensionNumbersResponse" && response.value.extensionNumber).toContain(1159);
  });

  it("answers what it does not know with NOT_FOUND, and goes on", async () => {
    const answers = await ask(
      { case: "fileByFilename", value: "nope.proto" },
      { case: "fileContainingSymbol", value: "nope" },
      { case: "fileContainingSymbol", value: "millrace.v1.Event.nope" },
      { case: "allExtensionNumbersOfType", value: "nope" },
      { case: "fileContainingExtension", value: { containingType: "nope", extensionNumber: 1 } },
      { case: "fileByFilename", value: "millrace/v1/event.proto" },
    );
    expect(
      answers.map(({ messageResponse }) =>
        messageResponse.case === "errorResponse" ? messageResponse.value.errorCode : messageResponse.case,
      ),
    ).toEqual([5, 5, 5, 5, 5, "fileDescriptorResponse"]);
  });
});

it.each(versions)(
  "reflection $name says that the server is going down to who keeps the call open",
  async ({ service }) => {
    const ending = await serve(createScriptedFeed({}));
    const more = Promise.withResolvers<void>();
    async function* requests() {
      yield { host: "here", messageRequest: { case: "listServices" as const, value: "*" } };
      await more.promise;
    }
    const client = createClient(service, createGrpcTransport({ baseUrl: ending.url }));
    const answers = client.serverReflectionInfo(requests())[Symbol.asyncIterator]();
    expect((await answers.next()).done).toBe(false);
    const next = answers.next();
    const refused = expect(next).rejects.toMatchObject({
      code: Code.Unavailable,
      rawMessage: expect.stringContaining("The server is going down."),
    });
    await ending.server.stop(100);
    await refused;
    more.resolve();
  },
);

function dependenciesFirst(files: readonly FileDescriptorProto[]): FileDescriptorProto[] {
  const ordered = new Set<FileDescriptorProto>();
  const add = (name: string): void => {
    const file = files.find((one) => one.name === name);
    file?.dependency.forEach(add);
    if (file !== undefined) ordered.add(file);
  };
  for (const file of files) add(file.name);
  return [...ordered];
}
