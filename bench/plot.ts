import { scaleLog } from "d3-scale";
import { line } from "d3-shape";

/** One line of a panel. */
export interface Series {
  readonly name: string;
  readonly points: readonly Point[];
}

export interface Point {
  readonly x: number;
  readonly y: number;
}

/** One pair of axes, both logarithmic. */
export interface Panel {
  readonly title: string;
  readonly xLabel: string;
  readonly series: readonly Series[];
  /** How a value of the y axis is written. */
  readonly format: (value: number) => string;
}

const width = 420;
const height = 320;
const margin = { top: 40, right: 16, bottom: 44, left: 64 };
const legendHeight = 28;
/** Told apart by people who do not see all colours, and in print (Okabe and Ito). */
const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];

/** Panels side by side, with one legend, as SVG. A series has the same colour in each. */
export function drawPanels(title: string, panels: readonly Panel[]): string {
  const names = [...new Set(panels.flatMap(({ series }) => series.map(({ name }) => name)))];
  const colourOf = (name: string) => colours[names.indexOf(name) % colours.length] ?? "#000";
  const whole = { width: width * panels.length, height: height + legendHeight };
  const legend = names.map((name, i) => {
    const x = margin.left + i * 150;
    return `<g transform="translate(${x} ${height + 8})"><rect width="12" height="12" fill="${colourOf(name)}"/><text x="18" y="10">${escaped(name)}</text></g>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${whole.width} ${whole.height}" role="img" aria-label="${escaped(title)}" font-family="sans-serif" font-size="12">`,
    `<rect width="100%" height="100%" fill="#fff"/>`,
    ...panels.map((panel, i) => `<g transform="translate(${i * width} 0)">${drawPanel(panel, colourOf)}</g>`),
    ...legend,
    "</svg>\n",
  ].join("\n");
}

function drawPanel({ title, xLabel, series, format }: Panel, colourOf: (name: string) => string): string {
  const points = series.flatMap((one) => one.points);
  const x = scaleLog(extent(points.map((point) => point.x)), [margin.left, width - margin.right]);
  const y = scaleLog(extent(points.map((point) => point.y)), [height - margin.bottom, margin.top]).nice();
  const path = line<Point>(
    (point) => x(point.x),
    (point) => y(point.y),
  );
  return [
    `<text x="${margin.left}" y="20" font-weight="bold">${escaped(title)}</text>`,
    ...powers(y.domain()).map(
      (value) =>
        `<path d="M${margin.left} ${y(value)}H${width - margin.right}" stroke="#ddd"/>` +
        `<text x="${margin.left - 6}" y="${y(value) + 4}" text-anchor="end">${escaped(format(value))}</text>`,
    ),
    ...powers(x.domain()).map(
      (value) =>
        `<text x="${x(value)}" y="${height - margin.bottom + 18}" text-anchor="middle">${value.toLocaleString("en")}</text>`,
    ),
    `<text x="${(margin.left + width - margin.right) / 2}" y="${height - 8}" text-anchor="middle">${escaped(xLabel)}</text>`,
    ...series.map(({ name, points: own }) => {
      const dots = own.map((point) => `<circle cx="${x(point.x)}" cy="${y(point.y)}" r="3"/>`).join("");
      return `<g fill="${colourOf(name)}"><path d="${path(own) ?? ""}" fill="none" stroke="${colourOf(name)}" stroke-width="2"/>${dots}</g>`;
    }),
  ].join("\n");
}

function extent(values: readonly number[]): [number, number] {
  return [Math.min(...values), Math.max(...values)];
}

function powers([from = 1, to = 1]: readonly number[]): number[] {
  const first = Math.ceil(Math.log10(from) - 1e-9);
  const last = Math.floor(Math.log10(to) + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => Number(`1e${first + i}`));
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}
