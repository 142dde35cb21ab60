import { z } from "zod";
import type { Builder, BuiltSource } from "../../core/builder/builder.ts";
import { FeedError } from "../../core/errors.ts";
import { parseTopicPattern } from "../../core/selector/topic.ts";
import type { DeclaredSettings, SourceDeclaration } from "../../core/source/declaration.ts";
import { type InitialState, queryOf, type SqlQuery } from "../../core/source/initial-state.ts";
import { parseTableName } from "../../core/source/table-name.ts";
import { inlineQuery } from "../../postgres/snapshot/inline-query.ts";
import type { StatedSource } from "../../postgres/snapshot/sources.ts";
import { configSchema } from "../config.ts";

/** What a configuration declares. */
export interface Declarations {
  /** Of the server, as they were given: `resolveConfig` checks them with the others. */
  readonly options: Readonly<Record<string, unknown>>;
  readonly sources: readonly SourceDeclaration[];
  readonly built: readonly BuiltSource[];
  readonly states: readonly StatedSource[];
}

const text = z.string({ error: "must be a text" }).min(1, { error: "must not be empty" });
const columns = z.array(text, { error: "must be a list of columns" });
const yesOrNo = z.boolean({ error: "must be true or false" });
const milliseconds = z
  .number({ error: "must be a number of milliseconds" })
  .min(0, { error: "must not be negative" })
  .max(86_400_000, { error: "must be a day at most" });
const builder = z.custom<Builder>((value) => typeof value === "function", { error: "must be a function" });
const pattern = text.superRefine((topic, context) => {
  const found = parseTopicPattern(topic);
  if ("problem" in found) context.addIssue({ code: "custom", message: `\`${topic}\` ${found.problem}` });
});
const state = z.custom<InitialState>(
  (value) => typeof value === "function" || (typeof value === "string" && value.trim() !== "") || isQuery(value),
  { error: "must be a SELECT: a text, a function of `sql`, or what kysely's compile() gives" },
);

const sourceSchema = z.strictObject(
  {
    topic: text.optional(),
    key: columns.min(1, { error: "must name at least one column" }).optional(),
    include: columns.optional(),
    exclude: columns.optional(),
    before: yesOrNo.optional(),
    truncate: yesOrNo.optional(),
    order: z.enum(["default", "strict"], { error: "must be default or strict" }).optional(),
    poll: z
      .strictObject(
        {
          column: text,
          deletedColumn: text.optional(),
          everyMs: milliseconds.min(1, { error: "must be at least 1" }).optional(),
          overlapMs: milliseconds.optional(),
        },
        { error: "must be an object with a `column`" },
      )
      .optional(),
    build: builder.optional(),
    topics: z.array(pattern, { error: "must be a list of topic patterns" }).optional(),
    initialState: state.optional(),
  },
  { error: "must be an object, or false" },
);

type SourceFields = z.output<typeof sourceSchema>;

/**
 * Checks what a configuration file exports.
 *
 * @throws FeedError INVALID_REQUEST with a sentence that names every wrong field
 */
export function declarationsFrom(value: unknown, file: string): Declarations {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw refusal(file, [{ field: "", message: "must export an object" }]);
  }
  const { sources = {}, ...options } = value as Readonly<Record<string, unknown>>;
  const problems = [...optionProblems(options)];
  const declared = { sources: [] as SourceDeclaration[], built: [] as BuiltSource[], states: [] as StatedSource[] };
  if (typeof sources !== "object" || sources === null || Array.isArray(sources)) {
    throw refusal(file, [
      ...problems,
      { field: "sources", message: "must be an object: a table's name and how it is watched" },
    ]);
  }
  const names = new Map<string, string>();
  for (const [table, entry] of Object.entries(sources)) {
    const found = declare(table, entry, declared);
    problems.push(...found.map(({ field, message }) => ({ field: `sources["${table}"]${field}`, message })));
    const parsed = JSON.stringify(parseTableName(table));
    const twin = names.get(parsed);
    if (twin !== undefined) problems.push({ field: `sources["${table}"]`, message: `is the same table as ${twin}` });
    names.set(parsed, table);
  }
  if (problems.length > 0) throw refusal(file, problems);
  return { options, ...declared };
}

interface Problem {
  readonly field: string;
  readonly message: string;
}

interface Declared {
  readonly sources: SourceDeclaration[];
  readonly built: BuiltSource[];
  readonly states: StatedSource[];
}

function* optionProblems(options: Readonly<Record<string, unknown>>): Generator<Problem> {
  for (const [name, value] of Object.entries(options)) {
    if (!isOption(name)) {
      yield { field: name, message: "is no option" };
      continue;
    }
    const result = value === undefined ? undefined : configSchema.shape[name].safeParse(value);
    if (result?.success === false) yield { field: name, message: wording(result.error.issues[0]) };
  }
}

function isOption(name: string): name is keyof typeof configSchema.shape {
  return Object.hasOwn(configSchema.shape, name);
}

function declare(table: string, entry: unknown, { sources, built, states }: Declared): readonly Problem[] {
  if (parseTableName(table) === undefined) {
    return [{ field: "", message: "must name a table with its schema, as in public.orders" }];
  }
  if (entry === false) {
    sources.push({ table, settings: undefined });
    return [];
  }
  const result = sourceSchema.safeParse(entry);
  if (!result.success) return result.error.issues.flatMap(issueProblems);
  const problems = conflicts(result.data);
  const { build, topics, initialState } = result.data;
  sources.push({ table, settings: settingsOf(result.data) });
  if (build !== undefined) built.push({ table, build, topics });
  if (initialState === undefined) return problems;
  try {
    const query = queryOf(initialState);
    if (!isQuery(query)) return [...problems, { field: ".initialState", message: "must make a query of its `sql`" }];
    states.push({ table, sql: inlineQuery(query) });
    return problems;
  } catch (error) {
    return [
      ...problems,
      { field: ".initialState", message: `failed: ${error instanceof Error ? error.message : String(error)}` },
    ];
  }
}

function conflicts({ poll, before, truncate, order, build, topics }: SourceFields): readonly Problem[] {
  const stray = Object.entries({ before, truncate, order }).filter(([, value]) => value !== undefined);
  return [
    ...(poll === undefined
      ? []
      : stray.map(([name]) => ({ field: `.${name}`, message: "is for triggers, which `poll` does without" }))),
    ...(topics !== undefined && build === undefined
      ? [{ field: ".topics", message: "says nothing without `build`" }]
      : []),
  ];
}

function settingsOf({ topic, key, include, exclude, before, truncate, order, poll }: SourceFields): DeclaredSettings {
  return {
    ...(topic === undefined ? {} : { topic }),
    ...(key === undefined ? {} : { keyColumns: key }),
    ...(include === undefined ? {} : { include }),
    ...(exclude === undefined ? {} : { exclude }),
    ...(before === undefined ? {} : { beforeValues: before }),
    ...(truncate === undefined ? {} : { captureTruncate: truncate }),
    ...(order === undefined ? {} : { capture: order === "strict" ? "strict" : "trigger" }),
    ...(poll === undefined ? {} : { polling: pollingOf(poll) }),
  };
}

function pollingOf({ column, deletedColumn, everyMs, overlapMs }: NonNullable<SourceFields["poll"]>) {
  return {
    column,
    ...(deletedColumn === undefined ? {} : { deletedColumn }),
    ...(everyMs === undefined ? {} : { everyMs }),
    ...(overlapMs === undefined ? {} : { overlapMs }),
  };
}

function isQuery(value: unknown): value is SqlQuery {
  return (
    typeof value === "object" &&
    value !== null &&
    "sql" in value &&
    typeof value.sql === "string" &&
    "parameters" in value &&
    Array.isArray(value.parameters)
  );
}

function issueProblems(issue: z.core.$ZodIssue): readonly Problem[] {
  const field = issue.path.map((step) => (typeof step === "number" ? `[${step}]` : `.${String(step)}`)).join("");
  return issue.code === "unrecognized_keys"
    ? issue.keys.map((key) => ({ field: `${field}.${key}`, message: "is no field of a source" }))
    : [{ field, message: wording(issue) }];
}

function wording(issue: z.core.$ZodIssue | undefined): string {
  const message = issue?.message ?? "is wrong";
  return /^(?:must|is|`)/.test(message) ? message : `is wrong: ${message.charAt(0).toLowerCase()}${message.slice(1)}`;
}

function refusal(file: string, problems: readonly Problem[]): FeedError {
  const told = problems.map(({ field, message }) => `${field === "" ? "it" : `\`${field}\``} ${message}`).join("; ");
  return new FeedError(
    "INVALID_REQUEST",
    `${file}: ${told}.`,
    "Correct the file; docs/sources.md has all that it may say.",
    { violations: problems },
  );
}
