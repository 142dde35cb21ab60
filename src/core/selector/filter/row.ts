import type { Image } from "../../event.ts";
import { type CelValue, mapOf } from "./cel.ts";
import { nextItem, readString, readValue, skipColon, skipSpace, skipString, skipValue } from "./json-scan.ts";

const OBJECT_START = 0x7b;
const OBJECT_END = 0x7d;
/** Shapes that are known at once. Beyond it they begin anew: payloads whose names are data would make one each. */
const MAX_SHAPES = 4_096;

/**
 * The names of an image's columns in their order: the same object for images that have the same. Who looks for a column
 * again and again looks for its place once per shape.
 */
export class Shape {
  readonly #parent: Shape | undefined;
  readonly #name: string;
  readonly #length: number;
  readonly #next = new Map<string, Shape>();
  #places: ReadonlyMap<string, number> | undefined;
  /** The shape that mostly follows, and the text by which it is recognized. */
  likely: Shape | undefined;
  readonly start: string;

  constructor(parent: Shape | undefined, name: string) {
    this.#parent = parent;
    this.#name = name;
    this.#length = parent === undefined ? 0 : parent.#length + 1;
    this.start = `${JSON.stringify(name)}:`;
  }

  /** Where the column stands; -1 when there is none. Of two with one name, the last counts, as everywhere in JSON. */
  placeOf(column: string): number {
    this.#places ??= new Map(this.names().map((name, place) => [name, place]));
    return this.#places.get(column) ?? -1;
  }

  names(): readonly string[] {
    const names: string[] = [];
    let shape: Shape = this;
    while (shape.#parent !== undefined) {
      names.push(shape.#name);
      shape = shape.#parent;
    }
    return names.reverse();
  }

  extend(name: string): Shape {
    let next = this.#next.get(name);
    if (next === undefined) {
      next = new Shape(this, name);
      this.#next.set(name, next);
      known++;
    }
    this.likely = next;
    return next;
  }
}

const NOTHING = new Shape(undefined, "");
let root = new Shape(undefined, "");
let known = 0;

/** An image as filters see it. Finds the columns at once, and reads those that are asked for. */
export class Row {
  readonly shape: Shape;
  readonly #text: string;
  /** Where the values begin and end, by turns. */
  readonly #spans: number[] = [];
  readonly #values: (CelValue | undefined)[] = [];
  #whole: CelValue | undefined;

  /** @throws Error when the text is no JSON, here or when a value is read */
  constructor(text: string) {
    this.#text = text;
    const start = skipSpace(text, 0);
    this.shape = text.charCodeAt(start) === OBJECT_START ? this.#findColumns(start) : NOTHING;
  }

  /** The value of the column at a place of the shape. */
  at(place: number): CelValue {
    const value = this.#values[place];
    return value === undefined ? this.#read(place) : value;
  }

  /** The value of a column; `undefined` when there is none of this name. */
  get(column: string): CelValue | undefined {
    const place = this.shape.placeOf(column);
    return place < 0 ? undefined : this.at(place);
  }

  /** All of it: a map, or whatever else the payload of a message is. */
  get whole(): CelValue {
    this.#whole ??=
      this.shape === NOTHING
        ? readValue(this.#text, skipSpace(this.#text, 0), this.#text.trimEnd().length)
        : mapOf(this.shape.names().map((name, place) => [name, this.at(place)]));
    return this.#whole;
  }

  #read(place: number): CelValue {
    const value = readValue(this.#text, this.#spans[place * 2] ?? 0, this.#spans[place * 2 + 1] ?? 0);
    this.#values[place] = value;
    return value;
  }

  #findColumns(start: number): Shape {
    const text = this.#text;
    if (known > MAX_SHAPES) {
      root = new Shape(undefined, "");
      known = 0;
    }
    let shape = root;
    let at = skipSpace(text, start + 1);
    while (text.charCodeAt(at) !== OBJECT_END) {
      const { likely } = shape;
      if (likely !== undefined && text.startsWith(likely.start, at)) {
        shape = likely;
        at = skipSpace(text, at + likely.start.length);
      } else {
        const nameEnd = skipString(text, at);
        shape = shape.extend(readString(text, at, nameEnd));
        at = skipColon(text, nameEnd);
      }
      const end = skipValue(text, at);
      this.#spans.push(at, end);
      at = nextItem(text, end, OBJECT_END);
    }
    return shape;
  }
}

const decoder = new TextDecoder();

/** @throws Error when the image is no JSON */
export function rowFromImage(image: Image): Row {
  return new Row(decoder.decode(image));
}
