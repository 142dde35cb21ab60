/** Every parameter, and the field of the request that it becomes: failures of either are told of the parameter. */
export const queryParameters = {
  topic: "selectors[0].topics",
  key: "selectors[0].keys",
  operation: "selectors[0].operations",
  filter: "selectors[0].filter",
  fields: "selectors[0].fields",
  from: "after_cursor",
  epoch: "epoch",
  payload: "payload_form",
  subscription: "subscription_id",
  member: "member",
  heartbeat: "delivery.checkpoint_interval",
  policy: "delivery.policy",
  max_lag: "delivery.policy.max_lag_events",
  rate: "delivery.max_events_per_second",
  max_message_bytes: "max_message_bytes",
  max_events: "",
  checkpoints: "",
  retry: "",
  padding: "",
  format: "",
  lastEventId: "",
} as const;

/** The name of one. */
export type Parameter = keyof typeof queryParameters;

const repeatable: ReadonlySet<string> = new Set<Parameter>(["topic", "key", "operation", "fields"]);
/** Takes the parameters one by one, and remembers what is wrong with any of them. */
export class QueryReader {
  readonly violations: { readonly field: string; readonly message: string }[] = [];
  readonly #parameters: URLSearchParams;

  constructor(parameters: URLSearchParams) {
    this.#parameters = parameters;
    for (const name of new Set(parameters.keys())) {
      if (!Object.hasOwn(queryParameters, name)) {
        this.#violate(name, `is no parameter; there are ${Object.keys(queryParameters).join(", ")}`);
      } else if (!repeatable.has(name) && parameters.getAll(name).length > 1) {
        this.#violate(name, "must be given once");
      }
    }
  }

  /** Completes a sentence that begins with the parameter's name. */
  violate(name: Parameter, message: string): void {
    this.#violate(name, message);
  }

  /** None of these may be given. */
  refuse(names: readonly Parameter[], message: string): void {
    for (const name of names) {
      if (this.#parameters.has(name)) {
        this.#violate(name, message);
      }
    }
  }

  text(name: Parameter): string | undefined {
    return this.#parameters.get(name) ?? undefined;
  }

  all(name: Parameter): string[] {
    return this.#parameters.getAll(name);
  }

  /** Repeated, separated by commas, or both. */
  list(name: Parameter): string[] {
    return this.all(name)
      .flatMap((text) => text.split(","))
      .map((part) => part.trim());
  }

  one<T>(name: Parameter, values: Readonly<Record<string, T>>): T | undefined {
    const text = this.text(name);
    return text === undefined ? undefined : this.#lookUp(name, text, text, values);
  }

  /** By its name in capitals. */
  named<T>(name: Parameter, text: string, values: Readonly<Record<string, T>>): T | undefined {
    return this.#lookUp(name, text, text.toUpperCase(), values);
  }

  count(name: Parameter, least: number, most: number): number | undefined {
    const text = this.text(name);
    if (text === undefined) {
      return undefined;
    }
    const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= least && value <= most) {
      return value;
    }
    const range = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `between ${least} and ${most}`;
    this.#violate(name, `must be a whole number ${range}`);
    return undefined;
  }

  /** In milliseconds; a bare number is of seconds. */
  duration(name: Parameter, least: number, most: number): number | undefined {
    const text = this.text(name);
    if (text === undefined) {
      return undefined;
    }
    const [, number, unit = "s"] = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m)?$/.exec(text) ?? [];
    const value = Number(number) * ({ ms: 1, s: 1_000, m: 60_000 }[unit] ?? Number.NaN);
    if (value >= least && value <= most) {
      return value;
    }
    this.#violate(name, `must be between ${least}ms and ${most / 1_000}s, such as 15s`);
    return undefined;
  }

  #lookUp<T>(name: Parameter, text: string, key: string, values: Readonly<Record<string, T>>): T | undefined {
    if (Object.hasOwn(values, key)) {
      return values[key];
    }
    this.#violate(name, `must be one of ${Object.keys(values).join(", ")}, and \`${text}\` is none`);
    return undefined;
  }

  #violate(field: string, message: string): void {
    this.violations.push({ field, message });
  }
}
