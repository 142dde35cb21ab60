import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { FeedError } from "../../../src/core/errors.ts";
import { type ColumnPath, createProjection, parseColumnPath } from "../../../src/core/selector/projection.ts";
import { compileSelectors } from "../../../src/core/selector/selector.ts";

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

function pathOf(text: string): ColumnPath {
  const parsed = parseColumnPath(text);
  if ("problem" in parsed) {
    throw new Error(parsed.problem);
  }
  return parsed.path;
}

function cut(image: string, ...fields: readonly string[]): string {
  return decode(createProjection(fields.map(pathOf)).cut(encode(image)));
}

describe("column paths", () => {
  test.each<[string, ColumnPath]>([
    ["id", ["id"]],
    ["address.city", ["address", "city"]],
    ["createdAt", ["createdAt"]],
    ["two words.größe", ["two words", "größe"]],
    ["`a.b`", ["a.b"]],
    ["`a.b`.c.`d``e`", ["a.b", "c", "d`e"]],
    ["a\\.b", ["a\\", "b"]],
    ['"', ['"']],
  ])("%s is read", (text, path) => {
    expect(parseColumnPath(text)).toEqual({ path });
  });

  test.each([
    ["", "is empty"],
    [".", "empty name"],
    ["a.", "empty name"],
    [".a", "empty name"],
    ["a..b", "empty name"],
    ["``", "empty name"],
    ["`a", "nothing closes"],
    ["`a``", "nothing closes"],
    ["`a`b", "only partly"],
    ["a`b", "only partly"],
  ])("%j is refused, by its place", (text, reason) => {
    try {
      compileSelectors([{ topics: [], keys: [], operations: [], fields: ["id", text] }]);
      expect.unreachable();
    } catch (error) {
      const { code, message, detail } = error as FeedError;
      expect(code).toBe("INVALID_REQUEST");
      expect(message).toContain(reason);
      expect(detail.violations?.map(({ field }) => field)).toEqual(["selectors[0].fields[1]"]);
    }
  });

  test("of any names are read back", () => {
    fc.assert(
      fc.property(fc.array(fc.string({ minLength: 1, unit: "binary" }), { minLength: 1 }), (names) => {
        const text = names.map((name) => `\`${name.replaceAll("`", "``")}\``).join(".");
        expect(parseColumnPath(text)).toEqual({ path: names });
      }),
    );
  });
});

describe("a projection", () => {
  const image =
    '{"id": 9007199254740993, "price":1.2300e400,"name":"Zo\\u00eb \\"q\\" 😀" , "address":{"city":"Köln","zip":[1, {"a":2}],"geo":{"x":1.0,"y":-0}},"tags":["a","}"],"none":null}';

  test.each([
    [["id"], '{"id": 9007199254740993}'],
    [["price", "id"], '{"id": 9007199254740993,"price":1.2300e400}'],
    [["name"], '{"name":"Zo\\u00eb \\"q\\" 😀"}'],
    [["address.city"], '{"address":{"city":"Köln"}}'],
    [["address.geo.y", "address.zip"], '{"address":{"zip":[1, {"a":2}],"geo":{"y":-0}}}'],
    [["address", "address.city"], '{"address":{"city":"Köln","zip":[1, {"a":2}],"geo":{"x":1.0,"y":-0}}}'],
    [["address.nothing"], '{"address":{}}'],
    [["nothing", "ID"], "{}"],
    [["tags.0", "id.x", "none.x", "name.length"], "{}"],
    [["tags", "none"], '{"tags":["a","}"],"none":null}'],
  ])("onto %j", (fields, expected) => {
    expect(cut(image, ...fields)).toBe(expected);
  });

  test.each(["", "[1,2]", '"text"', "null", "12", "{", '{"a"', '{"a":', '{"a":1', '{"a":[', "nonsense"])(
    "of %j has no columns",
    (text) => {
      expect(cut(text, "a")).toBe("{}");
    },
  );

  test("keeps of a name that comes twice both", () => {
    expect(cut('{"a":1,"b":2,"a":3}', "a")).toBe('{"a":1,"a":3}');
  });

  test("is the same object where nothing is cut", () => {
    const bytes = encode('{"a":1,"b":2}');
    expect(createProjection([["b"], ["a"]]).cut(bytes)).toBe(bytes);
  });

  test("of one image is not touched by the next, of any size", () => {
    const { cut: cutTo } = createProjection([["a"]]);
    const texts = [10, 5_000, 300_000, 10].map((size) => `{"a":"${"x".repeat(size)}","b":1}`);
    const cuts = texts.map((text) => cutTo(encode(text)));
    expect(cuts.map(decode)).toEqual(texts.map((text) => text.replace(',"b":1', "")));
  });

  /** A JSON value: the text of a leaf, or the members of an object. */
  type Tree = string | readonly (readonly [string, Tree])[];

  test("is what the columns' own texts are put together to, of any image", () => {
    const name = fc.constantFrom("a", "b", "c.d", "`", "é", "😀", "\\", '"', "\n", "a\\n", "a\n", "__proto__");
    const leaf = fc.oneof(
      fc.constantFrom(
        "1",
        "1.50",
        "9007199254740993",
        "null",
        "true",
        '"}"',
        '"\\""',
        '"a,b"',
        "[]",
        '[{"a": 1}]',
        "[[]]",
      ),
      fc.string({ unit: "binary" }).map((text) => JSON.stringify(text)),
    );
    const { object } = fc.letrec<{ value: Tree; object: Tree }>((tie) => ({
      value: fc.oneof({ maxDepth: 3 }, leaf, tie("object")),
      object: fc.array(fc.tuple(name, tie("value")), { maxLength: 5 }),
    }));
    const paths = fc.array(fc.array(name, { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(object, paths, fc.constantFrom("", " ", "\n\t"), (tree, wanted, space) => {
        const left = decode(createProjection(wanted).cut(encode(written(tree, space))));
        expect(withoutSpace(left)).toBe(withoutSpace(written(chosen(tree, wanted), "")));
      }),
      { numRuns: 5_000 },
    );
  });

  function written(tree: Tree, space: string): string {
    if (typeof tree === "string") {
      return tree;
    }
    const members = tree.map(
      ([name, value]) => `${space}${nameText(name)}${space}:${space}${written(value, space)}${space}`,
    );
    return `${space}{${members.join(",") || space}}${space}`;
  }

  /** Some names with an escape where none is needed. */
  function nameText(name: string): string {
    return ["é", "b"].includes(name)
      ? `"\\u${name.charCodeAt(0).toString(16).padStart(4, "0")}"`
      : JSON.stringify(name);
  }

  function withoutSpace(text: string): string {
    return text.replaceAll(/("(?:[^"\\]|\\.)*")|\s+/g, "$1");
  }

  function chosen(tree: Tree, paths: readonly ColumnPath[]): Tree {
    if (typeof tree === "string") {
      return tree;
    }
    return tree.flatMap(([name, value]): [string, Tree][] => {
      const rests = paths.filter((path) => path[0] === name).map((path) => path.slice(1));
      if (rests.some((rest) => rest.length === 0)) {
        return [[name, value]];
      }
      return rests.length > 0 && typeof value !== "string" ? [[name, chosen(value, rests)]] : [];
    });
  }
});
