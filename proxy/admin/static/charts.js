/**
 * Lines over time, drawn by hand as SVG: a chart with axes that can be pointed at, and a spark without.
 *
 * Owns scales, ticks and paths. Points are [at_ms, value | null], oldest first; a null, or a step that is missing, is a
 * gap in the line. Colours are classes (line-1 ..), so that the style sheet decides them.
 */

import { scaleOf, written } from "./format.js";

const MARGIN = { top: 8, right: 12, bottom: 20, left: 56 };
const HEIGHT = 168;
const SPARK = { width: 120, height: 30 };
const SVG = "http://www.w3.org/2000/svg";

/** Make an element of SVG with attributes, and text if there is any. */
function draw(name, attributes, text = "") {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

/** The path of a line; `gapMs` is how far apart two points may be and still belong together. */
function path(points, x, y, gapMs) {
  let [text, before] = ["", null];
  for (const [at, value] of points) {
    if (value === null) before = null;
    else {
      text += `${before !== null && at - before <= gapMs ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
      before = at;
    }
  }
  return text;
}

/** Powers of ten around the values: for what is a hundred times larger for some than for most. */
function decades(values) {
  const known = values.filter((value) => value > 0);
  const low = Math.floor(Math.log10(Math.min(...known)) + 1e-9);
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...known)) - 1e-9));
  const ticks = Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index));
  return { low: ticks[0], high: ticks.at(-1), ticks };
}

/** From where to where the values go, and round numbers between: about four, in the unit that people read. */
function axis(values, unit) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const { by } = scaleOf(most, unit);
  const isRatio = unit === "ratio";
  let [low, high] = [isRatio ? least : 0, most];
  if (high - low < (isRatio ? 0.04 : by * 1e-6)) [low, high] = isRatio ? [low - 0.03, high + 0.03] : [low, by];
  const rough = (high - low) / by / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough) * power * by;
  low = Math.max(0, Math.floor(low / step + 1e-9) * step);
  high = Math.ceil(high / step - 1e-9) * step;
  if (isRatio && most <= 1) high = Math.min(high, 1);
  const ticks = [];
  for (let tick = low; tick <= high + step / 1e6; tick += step) ticks.push(tick);
  return { low, high, ticks };
}

function ago(seconds) {
  if (seconds === 0) return "now";
  if (seconds > 2 * 3600) return `−${Math.round(seconds / 360) / 10} h`;
  return seconds < 60 ? `−${seconds} s` : `−${Math.round(seconds / 6) / 10} min`;
}

/** A small line without axes, stretched over its box. */
export class Spark {
  element = draw("svg", {
    class: "spark",
    viewBox: `0 0 ${SPARK.width} ${SPARK.height}`,
    preserveAspectRatio: "none",
    "aria-hidden": "true",
  });
  #area = this.element.appendChild(draw("path", { class: "area" }));
  #line = this.element.appendChild(draw("path", { class: "line" }));

  show(points, { fromMs, toMs, gapMs }) {
    const known = points.filter(([at, value]) => value !== null && at >= fromMs);
    if (known.length < 2) {
      this.#line.setAttribute("d", "");
      this.#area.setAttribute("d", "");
      return;
    }
    const values = known.map(([, value]) => value);
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const room = most - least;
    const x = (at) => ((at - fromMs) / (toMs - fromMs)) * SPARK.width;
    const y = (value) => SPARK.height - 3 - (room ? (value - least) / room : 0.3) * (SPARK.height - 6);
    const line = path(known, x, y, Infinity);
    this.#line.setAttribute(
      "d",
      path(
        points.filter(([at]) => at >= fromMs),
        x,
        y,
        gapMs,
      ),
    );
    this.#area.setAttribute("d", `${line}L${x(known.at(-1)[0])} ${SPARK.height}L${x(known[0][0])} ${SPARK.height}Z`);
  }
}

/** A chart: title, one line a series with its value in the legend, axes, a pointer for mouse, finger and arrow keys. */
export class Chart {
  #unit;
  #isLog;
  #series;
  #svg = draw("svg", { "aria-hidden": "true" });
  #time = document.createElement("span");
  #said = document.createElement("span");
  #empty = document.createElement("p");
  #width = 0;
  #view = null;
  /** Where the pointer is; null: at the newest. */
  #pointed = null;

  /** `series` is a list of {name, label}. `empty` says why there may be nothing, `log` asks for powers of ten. */
  constructor(host, { title, unit, series, empty, log = false }) {
    this.#unit = unit;
    this.#isLog = log;
    this.#series = series.map((one, index) => ({
      ...one,
      line: index + 1,
      points: [],
      value: document.createElement("b"),
    }));
    const figure = document.createElement("figure");
    figure.className = "card chart";
    figure.tabIndex = 0;
    const caption = figure.appendChild(document.createElement("figcaption"));
    const heading = caption.appendChild(document.createElement("h3"));
    heading.textContent = title;
    this.#time.className = "time";
    caption.append(this.#time);
    const legend = figure.appendChild(document.createElement("ul"));
    legend.className = "legend";
    for (const one of this.#series) {
      const item = legend.appendChild(document.createElement("li"));
      item.className = `line-${one.line}`;
      item.append(one.label, " ", one.value);
    }
    this.#empty.className = "nothing";
    this.#empty.textContent = empty ?? "Nothing measured yet";
    this.#said.className = "unseen";
    this.#said.setAttribute("role", "status");
    figure.setAttribute("role", "group");
    figure.setAttribute("aria-label", `${title}. Arrow keys look back.`);
    figure.append(this.#svg, this.#empty, this.#said);
    host.append(figure);
    new ResizeObserver(([{ contentRect }]) => {
      this.#width = contentRect.width;
      this.#redraw();
    }).observe(figure);
    this.#listen(figure);
  }

  /** Draw `points` (a function of a figure's name) over the time from `fromMs` to `toMs`. */
  show(points, view) {
    for (const one of this.#series) one.points = points(one.name);
    this.#view = view;
    this.#redraw();
  }

  #listen(figure) {
    const point = (event) => {
      const box = this.#svg.getBoundingClientRect();
      const share = (event.clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right);
      this.#point(Math.min(1, Math.max(0, share)));
    };
    this.#svg.addEventListener("pointermove", point);
    this.#svg.addEventListener("pointerdown", point);
    this.#svg.addEventListener("pointerleave", () => this.#point(null));
    figure.addEventListener("blur", () => this.#point(null));
    figure.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.02, ArrowRight: 0.02, PageUp: -0.2, PageDown: 0.2, Home: -2, End: 2 }[event.key];
      if (event.key === "Escape") this.#point(null);
      if (step === undefined) return;
      event.preventDefault();
      this.#point(Math.min(1, Math.max(0, (this.#pointed ?? 1) + step)));
      // Said aloud to those who do not see the legend.
      const values = this.#series.map(({ label, value }) => `${label} ${value.textContent}`);
      this.#said.textContent = `${this.#time.textContent}: ${values.join(", ")}`;
    });
  }

  #point(share) {
    this.#pointed = share;
    this.#redraw();
  }

  #redraw() {
    if (this.#view === null || this.#width === 0) return;
    const { fromMs, toMs, gapMs } = this.#view;
    const seen = this.#series.map((one) => one.points.filter(([at]) => at >= fromMs));
    const values = seen.flatMap((points) => points.flatMap(([, value]) => (value === null ? [] : [value])));
    this.#svg.toggleAttribute("hidden", values.length === 0);
    this.#empty.hidden = values.length > 0;
    const atMs = this.#pointed === null ? toMs : fromMs + this.#pointed * (toMs - fromMs);
    const found = seen.map((points) => nearest(points, atMs, this.#pointed === null ? 5 * gapMs : 2 * gapMs));
    this.#series.forEach((one, index) => (one.value.textContent = written(found[index]?.[1], this.#unit)));
    this.#time.textContent = this.#pointed === null ? "" : new Date(atMs).toLocaleTimeString();
    if (values.length === 0) return;

    const isLog = this.#isLog && Math.max(...values) > 0;
    const { low, high, ticks } = isLog ? decades(values) : axis(values, this.#unit);
    const right = this.#width - MARGIN.right;
    const bottom = HEIGHT - MARGIN.bottom;
    const x = (at) => MARGIN.left + ((at - fromMs) / (toMs - fromMs)) * (right - MARGIN.left);
    const share = isLog
      ? (value) => Math.log(Math.max(value, low) / low) / Math.log(high / low)
      : (value) => (value - low) / (high - low);
    const y = (value) => bottom - share(value) * (bottom - MARGIN.top);
    this.#svg.setAttribute("viewBox", `0 0 ${this.#width} ${HEIGHT}`);
    this.#svg.setAttribute("height", HEIGHT);
    this.#svg.replaceChildren(...this.#axes(ticks, y, right, bottom));
    for (const [index, one] of this.#series.entries()) {
      const d = path(seen[index], x, y, gapMs);
      this.#svg.append(draw("path", { class: `line line-${one.line}`, d }));
    }
    if (this.#pointed === null) return;
    this.#svg.append(draw("line", { class: "pointer", x1: x(atMs), x2: x(atMs), y1: MARGIN.top, y2: bottom }));
    found.forEach((point, index) => {
      if (point)
        this.#svg.append(draw("circle", { class: `dot line-${index + 1}`, cx: x(point[0]), cy: y(point[1]), r: 3.5 }));
    });
  }

  #axes(ticks, y, right, bottom) {
    const lines = ticks.flatMap((tick) => [
      draw("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(tick), y2: y(tick) }),
      draw(
        "text",
        { class: "tick", x: MARGIN.left - 8, y: y(tick) + 4, "text-anchor": "end" },
        written(tick, this.#unit),
      ),
    ]);
    const seconds = Math.round((this.#view.toMs - this.#view.fromMs) / 1000);
    const times = [0, 0.5, 1].map((share) => {
      const at = MARGIN.left + share * (right - MARGIN.left);
      const anchor = ["start", "middle", "end"][share * 2];
      return draw("text", { class: "tick", x: at, y: bottom + 15, "text-anchor": anchor }, ago((1 - share) * seconds));
    });
    return [...lines, ...times];
  }
}

/** The known point closest to a time, if one is close. */
function nearest(points, atMs, withinMs) {
  let best = null;
  for (const point of points) {
    if (point[1] !== null && (!best || Math.abs(point[0] - atMs) < Math.abs(best[0] - atMs))) best = point;
  }
  return best && Math.abs(best[0] - atMs) <= withinMs ? best : null;
}
