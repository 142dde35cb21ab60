import fc from "fast-check";

// Filters and rows as texts: such as people write, and such as nobody would, with the edges of every type among them.

/** Numbers as JSON and Postgres write them. */
const numbers = fc.constantFrom(
  "0",
  "-0",
  "1",
  "2",
  "-1",
  "42",
  "1.0",
  "1.5",
  "-2.50",
  "1e3",
  "1E400",
  "0.1",
  "9007199254740991",
  "9007199254740992",
  "9007199254740993",
  "9007199254740992.0",
  "-9007199254740993",
  "9223372036854775807",
  "-9223372036854775808",
  "9223372036854775808",
  "18446744073709551615",
  "18446744073709551616",
  "-9223372036854775809",
  "123456789012345678901234567890",
);

/** Among them: above and below the surrogates, beyond U+FFFF, composed and not, what needs an escape. */
const strings = fc.constantFrom(
  "",
  "a",
  "b",
  "ab",
  "abc",
  "A",
  "é",
  "e\u0301",
  "\uffee",
  "😀",
  "😀a",
  "𝄞",
  'q"',
  "\\",
  "(",
  "1",
  "true",
  "\n",
  "a.b",
);

/** A JSON text. */
const json: fc.Arbitrary<string> = fc.letrec<{ value: string; list: string; object: string }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 2 },
    { arbitrary: numbers, weight: 4 },
    { arbitrary: strings.map(jsonString), weight: 4 },
    { arbitrary: fc.constantFrom("null", "true", "false"), weight: 2 },
    { arbitrary: tie("list"), weight: 1 },
    { arbitrary: tie("object"), weight: 1 },
  ),
  list: fc.array(tie("value"), { maxLength: 3 }).map((items) => `[${items.join(", ")}]`),
  object: fc.array(fc.tuple(fc.constantFrom("a", "b", "x y"), tie("value")), { maxLength: 3 }).map(jsonObject),
})).value;

function jsonString(text: string): string {
  return text === "é" ? '"\\u00e9"' : JSON.stringify(text);
}

function jsonObject(members: readonly (readonly [string, string])[]): string {
  return `{${members.map(([name, value]) => `${JSON.stringify(name)}: ${value}`).join(",")}}`;
}

const COLUMNS = ["a", "b", "c", "d", "x y"] as const;

const ints = fc.constantFrom("0", "1", "-1", "2", "42", "9007199254740992", "9007199254740993", "9223372036854775807");
const doubles = fc.constantFrom("0.0", "1.0", "1.5", "-2.5", "0.1", "42.0", "9007199254740992.0", "1e3");
const texts = strings.map((text) => JSON.stringify(text));

/** What a column mostly holds: `a` an int, `b` a text, `c` a list, `d` a number, the last anything. */
const typed: Readonly<Record<(typeof COLUMNS)[number], fc.Arbitrary<string>>> = {
  a: ints,
  b: strings.map(jsonString),
  c: fc.array(fc.oneof(ints, texts), { maxLength: 4 }).map((items) => `[${items.join(",")}]`),
  d: fc.oneof(doubles, ints, numbers),
  "x y": json,
};

/** An image of a row: mostly all columns, in any order, at times with one of them twice. */
export const rows: fc.Arbitrary<string> = fc
  .tuple(
    fc.shuffledSubarray([...COLUMNS], { minLength: 3 }),
    fc.oneof(
      { arbitrary: fc.constant([]), weight: 4 },
      { arbitrary: fc.array(fc.constantFrom(...COLUMNS), { maxLength: 3 }), weight: 1 },
    ),
  )
  .chain(([all, more]) =>
    fc.tuple(
      ...[...all, ...more].map((name) =>
        fc.tuple(fc.constant(name), fc.oneof({ arbitrary: typed[name], weight: 4 }, { arbitrary: json, weight: 1 })),
      ),
    ),
  )
  .chain((members) => fc.constantFrom(jsonObject(members), `  ${jsonObject(members).replaceAll(": ", ":")} `));

const literals = fc.oneof(
  ints,
  doubles,
  texts,
  fc.constantFrom("1u", "18446744073709551615u", "-9223372036854775808"),
  fc.constantFrom("true", "false", "null", "b'a'", "[]", "[1, 'a']", "{'a': 1}"),
);

const paths = fc.oneof(
  { arbitrary: fc.constantFrom(...COLUMNS.slice(0, 4)).map((name) => `row.${name}`), weight: 6 },
  {
    arbitrary: fc.constantFrom(
      'row["x y"]',
      "row.nothing",
      'row["x y"].b',
      'row.b["a"]',
      "row.c[0]",
      'row["x y"][1].a',
      "row[0]",
    ),
    weight: 2,
  },
  { arbitrary: fc.constantFrom("row", "row.a[row.b]", "row.c[true]", "row.c[1.0]", "before.a", "after.a"), weight: 1 },
);

const COMPARISONS = ["==", "!=", "<", "<=", ">", ">="];

type Grammar = {
  readonly truth: string;
  readonly int: string;
  readonly text: string;
  readonly value: string;
  readonly list: string;
};

/** A filter: mostly sense, and some nonsense. */
export const expressions: fc.Arbitrary<string> = fc.letrec<Grammar>((tie) => ({
  truth: fc.oneof(
    { maxDepth: 4, depthSize: "small" },
    { weight: 4, arbitrary: infix(fc.constantFrom("row.a", "row.d"), COMPARISONS, fc.oneof(ints, doubles)) },
    { weight: 3, arbitrary: infix(fc.constant("row.b"), COMPARISONS, texts) },
    { weight: 3, arbitrary: infix(fc.constantFrom("row.a", "row.b", "row.d"), ["in"], tie("list")) },
    { weight: 3, arbitrary: method(fc.constant("row.b"), ["startsWith", "endsWith", "contains"], texts) },
    { weight: 3, arbitrary: infix(tie("int"), COMPARISONS, tie("int")) },
    { weight: 3, arbitrary: infix(tie("text"), COMPARISONS, tie("text")) },
    { weight: 2, arbitrary: method(tie("text"), ["startsWith", "endsWith", "contains"], tie("text")) },
    { weight: 1, arbitrary: method(paths, ["matches"], fc.constantFrom("'a+'", "'^.$'", "row.b")) },
    { weight: 3, arbitrary: infix(tie("value"), COMPARISONS, tie("value")) },
    { weight: 1, arbitrary: infix(tie("value"), ["in"], tie("list")) },
    { weight: 1, arbitrary: method(paths, ["startsWith", "endsWith", "contains"], literals) },
    { weight: 2, arbitrary: fc.constantFrom("a", "b", "nothing", "a.b", "c.d").map((path) => `has(row.${path})`) },
    { weight: 8, arbitrary: infix(tie("truth"), ["&&", "||"], tie("truth")) },
    { weight: 2, arbitrary: tie("truth").map((truth) => `!(${truth})`) },
    { weight: 1, arbitrary: choice(tie("truth"), tie("truth"), tie("truth")) },
    { weight: 2, arbitrary: macro(paths, tie("truth")) },
    { weight: 1, arbitrary: fc.oneof(paths, literals) },
  ),
  int: fc.oneof(
    { maxDepth: 3, depthSize: "small" },
    { weight: 3, arbitrary: fc.constantFrom("row.a", "size(row.b)", "row.b.size()", "size(row.c)", "int(row.d)") },
    { weight: 3, arbitrary: ints },
    { weight: 2, arbitrary: infix(tie("int"), ["+", "-", "*", "/", "%"], tie("int")) },
    { weight: 1, arbitrary: choice(tie("truth"), tie("int"), tie("int")) },
  ),
  text: fc.oneof(
    { maxDepth: 2, depthSize: "small" },
    { weight: 3, arbitrary: fc.constantFrom("row.b", "string(row.a)") },
    { weight: 2, arbitrary: texts },
    { weight: 1, arbitrary: infix(tie("text"), ["+"], tie("text")) },
  ),
  value: fc.oneof(
    { maxDepth: 3, depthSize: "small" },
    { weight: 6, arbitrary: paths },
    { weight: 5, arbitrary: literals },
    { weight: 2, arbitrary: infix(tie("value"), ["+", "-", "*", "/", "%"], tie("value")) },
    { weight: 1, arbitrary: application(["size", "int", "string", "double", "type", "dyn", "-"], tie("value")) },
    { weight: 1, arbitrary: tie("value").map((value) => `(${value}).size()`) },
    { weight: 1, arbitrary: choice(tie("truth"), tie("value"), tie("value")) },
  ),
  list: fc.oneof(
    {
      weight: 4,
      arbitrary: fc.array(fc.oneof(ints, texts, literals), { maxLength: 4 }).map((items) => `[${items.join(", ")}]`),
    },
    { weight: 1, arbitrary: fc.constant("row.c") },
    { weight: 1, arbitrary: paths },
  ),
})).truth;

function application(names: readonly string[], arg: fc.Arbitrary<string>) {
  return fc.tuple(fc.constantFrom(...names), arg).map(([name, value]) => `${name}(${value})`);
}

function infix(left: fc.Arbitrary<string>, operators: readonly string[], right: fc.Arbitrary<string>) {
  return fc.tuple(left, fc.constantFrom(...operators), right).map(([a, operator, b]) => `(${a}) ${operator} (${b})`);
}

function method(target: fc.Arbitrary<string>, names: readonly string[], arg: fc.Arbitrary<string>) {
  return fc.tuple(target, fc.constantFrom(...names), arg).map(([of, name, with_]) => `${of}.${name}(${with_})`);
}

function choice(condition: fc.Arbitrary<string>, yes: fc.Arbitrary<string>, no: fc.Arbitrary<string>) {
  return fc.tuple(condition, yes, no).map(([a, b, c]) => `((${a}) ? (${b}) : (${c}))`);
}

function macro(range: fc.Arbitrary<string>, truth: fc.Arbitrary<string>) {
  const body = fc.oneof(truth, fc.constantFrom("t == 'a'", "t == row.a", "t > 1"));
  return fc
    .tuple(range, fc.constantFrom("exists", "all", "exists_one"), body)
    .map(([of, name, is]) => `${of}.${name}(t, ${is})`);
}
