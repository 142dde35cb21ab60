import { createRegistry, type DescFile, type DescService, type Registry, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code, type ConnectRouter, type HandlerContext } from "@connectrpc/connect";
import { ServerReflection as ServerReflectionV1 } from "../../gen/grpc/reflection/v1/reflection_pb.js";
import { ServerReflection as ServerReflectionV1Alpha } from "../../gen/grpc/reflection/v1alpha/reflection_pb.js";

// The two versions of the protocol have the same messages under another package, so one implementation serves both.

type Answer =
  | { case: "listServicesResponse"; value: { service: { name: string }[] } }
  | { case: "fileDescriptorResponse"; value: { fileDescriptorProto: Uint8Array[] } }
  | { case: "allExtensionNumbersResponse"; value: { baseTypeName: string; extensionNumber: number[] } }
  | { case: "errorResponse"; value: { errorCode: number; errorMessage: string } };

interface Question {
  readonly host: string;
  readonly messageRequest:
    | { case: "fileByFilename" | "fileContainingSymbol" | "allExtensionNumbersOfType" | "listServices"; value: string }
    | { case: "fileContainingExtension"; value: { containingType: string; extensionNumber: number } }
    | { case: undefined; value?: undefined };
}

/**
 * Tells clients without a schema what the server speaks: `buf curl`, grpcurl, Postman. `others` are files that no service
 * imports and that clients meet all the same, inside an Any.
 */
export function addReflection(
  router: ConnectRouter,
  services: readonly DescService[],
  others: readonly DescFile[],
): void {
  const index = createSchemaIndex([...services, ServerReflectionV1, ServerReflectionV1Alpha], others);
  async function* serverReflectionInfo<Request extends Question>(
    requests: AsyncIterable<Request>,
    { signal }: Pick<HandlerContext, "signal">,
  ) {
    const sent = new Set<string>();
    for await (const request of untilAborted(requests, signal)) {
      yield { validHost: request.host, originalRequest: request, messageResponse: index.answer(request, sent) };
    }
  }
  router.service(ServerReflectionV1, { serverReflectionInfo });
  router.service(ServerReflectionV1Alpha, { serverReflectionInfo });
}

/**
 * The same, until the signal fires: then it rejects with the reason. A client keeps such a call open for as long as it may
 * have another question, and is to be told when nobody will answer any more.
 */
async function* untilAborted<T>(items: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T, void, undefined> {
  const aborted = Promise.withResolvers<never>();
  // Nobody may be waiting when it fires.
  aborted.promise.catch(() => undefined);
  const abort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) {
    abort();
  }
  const iterator = items[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await Promise.race([iterator.next(), aborted.promise]);
      if (next.done === true) {
        return;
      }
      yield next.value;
    }
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

interface SchemaIndex {
  /** `sent` remembers the files that the stream has already had. */
  answer(request: Question, sent: Set<string>): Answer;
}

function createSchemaIndex(services: readonly DescService[], others: readonly DescFile[]): SchemaIndex {
  const files = new Map<string, DescFile>();
  const addFile = (file: DescFile): void => {
    const name = `${file.name}.proto`;
    if (!files.has(name)) {
      files.set(name, file);
      file.dependencies.forEach(addFile);
    }
  };
  for (const file of [...services.map((service) => service.file), ...others]) {
    addFile(file);
  }
  const registry = createRegistry(...files.values());
  const names = services.map((service) => ({ name: service.typeName })).toSorted((a, b) => (a.name < b.name ? -1 : 1));

  return {
    answer({ messageRequest: { case: kind, value } }, sent) {
      switch (kind) {
        case "listServices":
          return { case: "listServicesResponse", value: { service: names } };
        case "fileByFilename":
          return fileAnswer(files.get(value), sent, `file ${value}`);
        case "fileContainingSymbol":
          return fileAnswer(fileOfSymbol(registry, value), sent, `symbol ${value}`);
        case "fileContainingExtension": {
          const { containingType, extensionNumber } = value;
          const extendee = registry.getMessage(containingType);
          const extension = extendee && registry.getExtensionFor(extendee, extensionNumber);
          return fileAnswer(extension?.file, sent, `extension ${extensionNumber} of ${containingType}`);
        }
        case "allExtensionNumbersOfType":
          return extensionNumbers(registry, value);
        case undefined:
          return failure(
            Code.InvalidArgument,
            "The request asks for nothing: set one of its `message_request` fields.",
          );
      }
    },
  };
}

/** Also finds what is nested in a type: methods, fields, enum values. */
function fileOfSymbol(registry: Registry, symbol: string): DescFile | undefined {
  const name = symbol.replace(/^\./, "");
  const type = registry.get(name);
  if (type !== undefined) {
    return type.file;
  }
  const dot = name.lastIndexOf(".");
  const member = name.slice(dot + 1);
  const parent = dot < 0 ? undefined : registry.get(name.slice(0, dot));
  const isMember =
    (parent?.kind === "service" && parent.methods.some((method) => method.name === member)) ||
    (parent?.kind === "message" && parent.members.some((field) => field.name === member));
  return isMember ? parent.file : fileOfEnumValue(registry, name);
}

/** In protobuf, an enum's values are siblings of the enum, not its children. */
function fileOfEnumValue(registry: Registry, name: string): DescFile | undefined {
  for (const type of registry) {
    if (type.kind !== "enum") {
      continue;
    }
    const scope = type.typeName.slice(0, type.typeName.lastIndexOf(".") + 1);
    if (type.values.some((value) => scope + value.name === name)) {
      return type.file;
    }
  }
  return undefined;
}

function fileAnswer(file: DescFile | undefined, sent: Set<string>, what: string): Answer {
  if (file === undefined) {
    return failure(Code.NotFound, `This server knows no ${what}.`);
  }
  const fileDescriptorProto: Uint8Array[] = [toBinary(FileDescriptorProtoSchema, file.proto)];
  sent.add(file.name);
  const addDependencies = ({ dependencies }: DescFile): void => {
    for (const dependency of dependencies) {
      if (!sent.has(dependency.name)) {
        sent.add(dependency.name);
        fileDescriptorProto.push(toBinary(FileDescriptorProtoSchema, dependency.proto));
        addDependencies(dependency);
      }
    }
  };
  addDependencies(file);
  return { case: "fileDescriptorResponse", value: { fileDescriptorProto } };
}

function extensionNumbers(registry: Registry, typeName: string): Answer {
  if (registry.getMessage(typeName) === undefined) {
    return failure(Code.NotFound, `This server knows no message ${typeName}.`);
  }
  const extensionNumber = [...registry].flatMap((type) =>
    type.kind === "extension" && type.extendee.typeName === typeName ? [type.number] : [],
  );
  return { case: "allExtensionNumbersResponse", value: { baseTypeName: typeName, extensionNumber } };
}

function failure(errorCode: Code, errorMessage: string): Answer {
  return { case: "errorResponse", value: { errorCode, errorMessage } };
}
