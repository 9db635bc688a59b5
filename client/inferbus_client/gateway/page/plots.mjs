// Small plots of the last minutes, with what they show in words.

import { draw, make, say } from "./dom.mjs";

const WIDE = 300;
const HIGH = 60;
const SECONDS = 300;
/** Seconds between two points that belong together. */
const GAP = 3;

/** A plot of one or more series: `series` are `[name, moment => number or null]`, or a function that finds them. */
export class Plot {
  element;
  #series;
  #unit;
  #title;
  #legend;
  #drawing;
  #top;
  #keys = new Map();

  constructor(title, unit, series) {
    this.#title = title;
    this.#unit = unit;
    this.#series = series;
    this.#legend = make("figcaption", {}, make("strong", {}, title));
    this.#drawing = draw("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img" });
    this.#top = make("span");
    const ends = make("div", { className: "ends" }, make("span", {}, "5 min ago"), this.#top, make("span", {}, "now"));
    this.element = make("figure", { className: "plot" }, this.#legend, this.#drawing, ends);
  }

  /** Draw it anew. A value that is not known is a gap, and no 0. */
  show(all) {
    const moments = all.filter((moment) => moment.at > all.at(-1).at - SECONDS);
    const series = typeof this.#series === "function" ? this.#series(moments) : this.#series;
    const last = moments.at(-1);
    const end = last?.at ?? 0;
    const lines = series.map(([name, of]) => [name, moments.map((moment) => [moment.at, number(of(moment))])]);
    const highest = Math.max(0, ...lines.flatMap(([, points]) => points.map(([, value]) => value ?? 0)));
    const top = rounded(highest);
    const floor = draw("line", { class: "floor", x1: 0, x2: WIDE, y1: HIGH, y2: HIGH });
    const paths = lines.map(([, points], at) => draw("path", { class: `c${at % 6}`, d: path(points, end, top) }));
    this.#drawing.replaceChildren(floor, ...paths);
    const now = lines.map(([name, points]) => [name, this.#unit(points.at(-1)?.[1] ?? null)]);
    this.#write(now);
    say(this.#top, `top ${this.#unit(top)}`);
    const words = now.map(([name, value]) => (name ? `${name} ${value}` : value)).join(", ") || "nothing";
    this.#drawing.setAttribute("aria-label", `${this.#title}: now ${words}; highest in five minutes ${this.#unit(highest)}`);
  }

  #write(now) {
    const names = new Set(now.map(([name]) => name));
    for (const [name, element] of this.#keys) {
      if (names.has(name)) continue;
      element.remove();
      this.#keys.delete(name);
    }
    now.forEach(([name, value], at) => {
      if (!this.#keys.has(name)) {
        this.#keys.set(name, make("span"));
        this.#legend.append(this.#keys.get(name));
      }
      const element = this.#keys.get(name);
      element.className = `key c${at % 6}`;
      say(element, name ? `${name} ${value}` : value);
    });
  }
}

function number(value) {
  return typeof value === "number" && Number.isFinite(value) ? Math.max(value, 0) : null;
}

function path(points, end, top) {
  let drawn = "";
  let last = null;
  for (const [at, value] of points) {
    const place = `${(WIDE * (1 - (end - at) / SECONDS)).toFixed(1)} ${(HIGH * (1 - (value ?? 0) / top)).toFixed(1)}`;
    // One that stands alone is to be seen, too.
    if (value !== null) drawn += last !== null && at - last <= GAP ? `L${place}` : `M${place}h.1`;
    last = value === null ? null : at;
  }
  return drawn;
}

/** The next number that is 1, 2 or 5 times a power of ten. */
function rounded(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((one) => one >= value) ?? value;
}

export function figure(value) {
  if (value === null) return "-";
  return value >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
}

export function duration(milliseconds) {
  if (milliseconds === null) return "-";
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${figure(milliseconds / 1000)} s`;
}
