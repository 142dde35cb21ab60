import type { PublishRequest, NewEvent as WireNewEvent } from "../../gen/millrace/v1/feed_service_pb.js";
import { jsonProblem } from "../core/json-text.ts";
import type { NewEvent, Publication } from "../core/ports.ts";
import { invalidRequest } from "./errors.ts";
import { operationFromWire } from "./event-fields.ts";

/**
 * The core's form of a request that passed validation.
 *
 * @throws FeedError INVALID_REQUEST naming every event whose payload is not JSON
 */
export function publicationFromRequest(request: PublishRequest): Publication {
  const violations = request.events.flatMap((event, index) => {
    const json = event.payload?.form.value;
    const problem = json === undefined ? undefined : jsonProblem(json);
    return problem === undefined ? [] : [{ field: `events[${index}].payload.json`, message: problem }];
  });
  if (violations.length > 0) {
    throw invalidRequest(violations);
  }
  return {
    events: request.events.map(newEvent),
    idempotencyKey: request.idempotencyKey,
    principal: "",
  };
}

function newEvent(event: WireNewEvent): NewEvent {
  return {
    topic: event.topic,
    key: event.key,
    operation: operationFromWire(event.operation) ?? "MESSAGE",
    payload: event.payload?.form.value,
    headers: event.headers,
  };
}
