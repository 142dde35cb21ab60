import {
  PayloadOmitted,
  Operation as WireOperation,
  Transition as WireTransition,
} from "../../gen/millrace/v1/event_pb.js";
import type { Image, Operation, Transition } from "../core/event.ts";

/** The wire's number of each operation. */
export const operationNumbers: Readonly<Record<Operation, WireOperation>> = {
  INSERT: WireOperation.INSERT,
  UPDATE: WireOperation.UPDATE,
  DELETE: WireOperation.DELETE,
  TRUNCATE: WireOperation.TRUNCATE,
  SNAPSHOT: WireOperation.SNAPSHOT,
  MESSAGE: WireOperation.MESSAGE,
};

const operationNames = new Map<WireOperation, Operation>([
  [WireOperation.INSERT, "INSERT"],
  [WireOperation.UPDATE, "UPDATE"],
  [WireOperation.DELETE, "DELETE"],
  [WireOperation.TRUNCATE, "TRUNCATE"],
  [WireOperation.SNAPSHOT, "SNAPSHOT"],
  [WireOperation.MESSAGE, "MESSAGE"],
]);

/** The operation of a wire's number; `undefined` for the unspecified one and for strangers. */
export function operationFromWire(operation: WireOperation): Operation | undefined {
  return operationNames.get(operation);
}

/** The wire's number of each transition. */
export const transitionNumbers: Readonly<Record<Transition, WireTransition>> = {
  ENTERED: WireTransition.ENTERED,
  LEFT: WireTransition.LEFT,
};

const transitionNames = new Map<WireTransition, Transition>([
  [WireTransition.ENTERED, "ENTERED"],
  [WireTransition.LEFT, "LEFT"],
]);

/** The transition of a wire's number; `undefined` for the unspecified one and for strangers. */
export function transitionFromWire(transition: WireTransition): Transition | undefined {
  return transitionNames.get(transition);
}

/** As a number, for the encoder. */
export const payloadOmittedTooLarge: number = PayloadOmitted.TOO_LARGE;

const decoder = new TextDecoder();
const none: readonly (readonly [string, string])[] = [];

/** An image as the text that Postgres wrote. */
export function textFromImage(image: Image): string {
  return decoder.decode(image);
}

/** Headers in the order in which both codecs write them. A value that is no string appears as its JSON text. */
export function headerEntries(headers: Image | undefined): readonly (readonly [string, string])[] {
  if (headers === undefined) {
    return none;
  }
  const parsed: unknown = JSON.parse(textFromImage(headers));
  if (typeof parsed !== "object" || parsed === null) {
    return none;
  }
  return Object.entries(parsed).map(
    ([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)] as const,
  );
}
