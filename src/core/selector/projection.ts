import type { Image } from "../event.ts";
import { objectCut } from "./projection-cut.ts";

/** Column names from the outside in: `["address", "city"]`. */
export type ColumnPath = readonly string[];

/** The path, or why the text is none: a completion of the sentence "`a..b` ...". */
export type ParsedColumnPath = { readonly path: ColumnPath } | { readonly problem: string };

/** What is wanted of an object: each name with what is wanted of its value, "whole" or some of its members. */
export type Branch = ReadonlyMap<string, Branch | "whole">;

/** A choice of columns. Immutable. */
export interface Projection {
  readonly paths: readonly ColumnPath[];
  /**
   * The image with the chosen columns alone: in their order, and byte for byte as they were. A column that is not there stays
   * away, and so does a path into something that is no object. What is no object as a whole has no columns: `{}`.
   */
  readonly cut: (image: Image) => Image;
}

const SEGMENT = /`((?:[^`]|``)*)`(?!`)|([^.`]+)/y;

/**
 * Reads a column path: names with dots between them. A name that holds a dot or a backtick stands in backticks, in which a
 * backtick is written twice: `` `a.b`.c ``.
 */
export function parseColumnPath(text: string): ParsedColumnPath {
  if (text === "") {
    return { problem: "is empty: leave `fields` empty to have every column" };
  }
  const path: string[] = [];
  for (let at = 0; ; at++) {
    SEGMENT.lastIndex = at;
    const match = SEGMENT.exec(text);
    if (match === null) {
      return {
        problem: text[at] === "`" ? "has a backtick that nothing closes" : "has an empty name: dots separate names",
      };
    }
    const name = match[1] === undefined ? (match[2] ?? "") : match[1].replaceAll("``", "`");
    if (name === "") {
      return { problem: "has an empty name between backticks" };
    }
    path.push(name);
    at += match[0].length;
    if (at === text.length) {
      return { path };
    }
    if (text[at] !== ".") {
      return { problem: "has a name only partly in backticks: put all of it between them" };
    }
  }
}

/** A projection onto these columns, of which none may be empty. */
export function createProjection(paths: readonly ColumnPath[]): Projection {
  const cut = objectCut(branchOf(paths));
  return { paths, cut };
}

function branchOf(paths: readonly ColumnPath[]): Branch {
  const names = new Set(paths.flatMap(([name]) => name ?? []));
  const branch = new Map<string, Branch | "whole">();
  for (const name of names) {
    const rests = paths.filter((path) => path[0] === name).map((path) => path.slice(1));
    branch.set(name, rests.some((rest) => rest.length === 0) ? "whole" : branchOf(rests));
  }
  return branch;
}
