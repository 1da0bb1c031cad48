/** The charts of the last minutes, drawn by uPlot (uplot-1.6.32.js); each with the same in words beside it. */

import { el, say } from "./dom.js";
import { brief, bytes, count } from "./format.js";

const HEIGHT = 130; // pixels
const MINUTES = 5;

/**
 * @typedef {object} Chart
 * @property {string} title
 * @property {{of: string, words: string, color: string}[]} lines `of`: a field of a Rate; `color`: a property of the style sheet.
 * @property {(value: number) => string} format
 * @property {number} [least] What the top of the axis shows at least.
 * @property {number[]} [steps] From one mark on it to the next, of which one is taken.
 */

/** @type {Chart[]} */
const CHARTS = [
  {
    title: "Requests per second",
    lines: [
      { of: "requests", words: "all", color: "--line-1" },
      { of: "failures", words: "failed", color: "--line-4" },
    ],
    format: count,
    least: 1,
  },
  {
    title: "Hit rate of the nodes",
    lines: [{ of: "hitRate", words: "found", color: "--line-3" }],
    format: (value) => `${value.toFixed(0)} %`,
    least: 100,
  },
  {
    title: "Bytes per second of the nodes",
    lines: [
      { of: "read", words: "in", color: "--line-2" },
      { of: "written", words: "out", color: "--line-1" },
    ],
    format: bytes,
    least: 1024,
    steps: [10, 20, 30, 40].flatMap((power) =>
      [1, 2, 5, 10, 20, 50, 100, 200, 500].map((step) => step * 2 ** (power - 10)),
    ),
  },
  {
    title: "Latency",
    lines: [
      { of: "readTime", words: "reads", color: "--line-1" },
      { of: "writeTime", words: "writes", color: "--line-3" },
      { of: "took", words: "slowest node", color: "--line-2" },
    ],
    format: brief,
    least: 0.001,
  },
];

/** @param {Element} parent @returns {{draw: (rates: any[]) => void}} */
export function charts(parent) {
  const made = CHARTS.map((chart) => drawn(chart));
  parent.append(...made.map(({ figure }) => figure));
  return { draw: (rates) => made.forEach(({ draw }) => draw(rates)) };
}

/** @param {Chart} chart */
function drawn(chart) {
  const plot = el("div", { class: "plot", role: "img", "aria-label": `${chart.title}: no figures yet` });
  const words = el("span", { class: "now" }, "–");
  const figure = el("figure", {}, el("figcaption", {}, el("strong", {}, chart.title), " ", words), plot);
  /** @type {any} */
  let uplot = null;
  /** @type {any[]} */
  let rates = [];

  const data = () => [rates.map(({ at }) => at), ...chart.lines.map(({ of }) => rates.map((rate) => rate[of]))];

  const build = () => {
    uplot?.destroy();
    const color = (/** @type {string} */ name) => resolved(plot, name);
    uplot = new /** @type {any} */ (globalThis).uPlot(options(chart, plot.clientWidth, color), data(), plot);
  };

  new ResizeObserver(() => {
    if (!plot.clientWidth) return; // it isn't shown
    if (uplot === null) build();
    else uplot.setSize({ width: plot.clientWidth, height: HEIGHT });
  }).observe(plot);
  document.addEventListener("sfss-theme", () => uplot !== null && build());

  return {
    figure,
    draw(/** @type {any[]} */ latest) {
      rates = latest;
      uplot?.setData(data());
      say(
        words,
        chart.lines
          .map((line) => now(chart, line, rates))
          .filter(Boolean)
          .join(", ") || "–",
      );
      plot.setAttribute(
        "aria-label",
        `${chart.title}, ${MINUTES} minutes: ${chart.lines.map((line) => range(chart, line, rates)).join("; ")}`,
      );
    },
  };
}

const values = (/** @type {any} */ line, /** @type {any[]} */ rates) =>
  rates.map((rate) => rate[line.of]).filter((value) => value !== null);

/** "" where it can't be said. */
function now(/** @type {Chart} */ chart, /** @type {any} */ line, /** @type {any[]} */ rates) {
  const value = rates.at(-1)?.[line.of];
  if (value === null || value === undefined) return "";
  return chart.lines.length > 1 ? `${chart.format(value)} ${line.words}` : chart.format(value);
}

function range(/** @type {Chart} */ chart, /** @type {any} */ line, /** @type {any[]} */ rates) {
  const found = values(line, rates);
  if (!found.length) return `${line.words}: no figures yet`;
  return `${line.words}: ${chart.format(found.at(-1))} now, ${chart.format(Math.min(...found))} to ${chart.format(Math.max(...found))}`;
}

/**
 * A colour of the style sheet as it is now. The property itself has both, light and dark, which a canvas can't choose from.
 *
 * @param {HTMLElement} element @param {string} name
 */
function resolved(element, name) {
  element.style.color = `var(${name})`;
  const { color } = getComputedStyle(element);
  element.style.color = "";
  return color;
}

/** @returns {object} What uPlot wants to know. */
function options(
  /** @type {Chart} */ chart,
  /** @type {number} */ width,
  /** @type {(name: string) => string} */ color,
) {
  const axis = {
    stroke: color("--faint"),
    grid: { stroke: color("--rule"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui, sans-serif",
  };
  const clock = (/** @type {number} */ at) => new Date(at * 1000).toTimeString().slice(0, 5);
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    padding: [8, 8, 0, 0],
    scales: {
      x: { time: true, range: () => [Date.now() / 1000 - MINUTES * 60, Date.now() / 1000] },
      y: {
        range: (/** @type {any} */ _plot, /** @type {number} */ _low, /** @type {number} */ high) => [
          0,
          Math.max(high * 1.1 || 0, chart.least ?? 0),
        ],
      },
    },
    axes: [
      {
        ...axis,
        size: 24,
        space: 42,
        values: (/** @type {any} */ _plot, /** @type {number[]} */ ticks) => ticks.map(clock),
      },
      {
        ...axis,
        size: 64,
        space: 30,
        incrs: chart.steps,
        values: (/** @type {any} */ _plot, /** @type {number[]} */ ticks) => ticks.map(chart.format),
      },
    ],
    series: [
      {},
      ...chart.lines.map((line) => ({ stroke: color(line.color), width: 2, points: { show: false }, spanGaps: false })),
    ],
  };
}
