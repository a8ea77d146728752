/**
 * What the dashboard shows besides charts: tiles, health, alerts, trends, and tables.
 *
 * Each panel owns its elements and is handed data; none asks for anything. All text goes in as text: keys, names and
 * reasons are other people's words and never become markup.
 */

import { Spark } from "./charts.js";
import { counted, lasting, parts, written } from "./format.js";

/** Make an element with a class and children: elements, or text. */
export function make(name, className = "", ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

const known = (...all) => all.every((value) => value !== undefined && value !== null);
const saved = (ratio) => (known(ratio) ? 1 - ratio : undefined);
const joined = (...texts) => texts.filter(Boolean).join(" · ");

/** The tiles, in their order: what is big, and from the figures and the report a line below it. */
const TILES = [
  {
    name: "hit_rate",
    unit: "ratio",
    title: "Hit rate",
    about: (_, isShadow) => `of reads ${isShadow ? "that memory would answer" : "answered from memory"}`,
  },
  {
    name: "latency_p99",
    unit: "seconds",
    title: "Latency p99",
    about: (f) => joined(`p50 ${written(f.latency_p50, "seconds")}`, `p90 ${written(f.latency_p90, "seconds")}`),
  },
  {
    name: "commands_per_second",
    unit: "per_second",
    title: "Throughput",
    about: (f) => (known(f.clients) ? `commands of ${counted(f.clients, "client")}` : "commands"),
  },
  {
    name: "saved_rate",
    unit: "ratio",
    title: "Redis load saved",
    about: (f) =>
      known(f.upstream_p99) ? `Redis itself: p99 ${written(f.upstream_p99, "seconds")}` : "of reads never sent",
  },
  {
    name: "error_rate",
    unit: "ratio",
    title: "Errors",
    about: (f) => (known(f.staleness) ? `stale p99 ${written(f.staleness, "seconds")}` : "of commands failed"),
  },
  {
    name: "l1_bytes",
    unit: "bytes",
    title: "Memory of L1",
    about: (f) =>
      joined(
        known(f.l1_fill) && `${written(f.l1_fill, "ratio")} full`,
        counted(f.l1_entries ?? 0, "entry").replace("entrys", "entries"),
      ),
    share: (f) => f.l1_fill,
  },
  {
    name: "memory_ratio",
    unit: "ratio",
    title: "Redis memory saved",
    value: (f) => saved(f.memory_ratio),
    about: (f) => (known(f.memory_ratio) ? "of the bytes of values" : "no compressed value read yet"),
  },
  {
    name: "queue_depth",
    unit: "count",
    title: "Event queue",
    about: (f) =>
      known(f.amqp_up)
        ? joined(
            known(f.queue_lag) && `oldest ${written(f.queue_lag, "seconds")}`,
            known(f.events_per_second) && `${written(f.events_per_second, "per_second")} in`,
          )
        : "no broker is configured",
  },
];

export class Tiles {
  #tiles;

  constructor(host) {
    this.#tiles = TILES.map((tile) => {
      const [number, unit, about] = [make("span", "number"), make("span", "unit"), make("p", "about")];
      const arrow = make("span");
      const [spark, meter] = [new Spark(), tile.share ? make("div", "meter", make("span")) : null];
      const element = make(
        "article",
        "card tile",
        make("h3", "", tile.title, arrow),
        make("p", "value", number, unit),
        about,
        meter,
        spark.element,
      );
      element.id = `tile-${tile.name}`;
      host.append(element);
      return { ...tile, element, number, unitText: unit, aboutText: about, arrow, spark, meter };
    });
  }

  /** The figures that sparks need the past of. */
  static get names() {
    return TILES.map(({ name }) => name);
  }

  show(figures, points, view, isShadow) {
    for (const tile of this.#tiles) {
      const value = tile.value ? tile.value(figures) : figures[tile.name];
      const { number, word } = parts(value, tile.unit);
      tile.number.textContent = number;
      tile.unitText.textContent = word;
      tile.aboutText.textContent = tile.about(figures, isShadow);
      tile.element.classList.toggle("unknown", value === undefined);
      if (tile.meter) tile.meter.firstChild.style.width = `${100 * Math.min(1, tile.share(figures) ?? 0)}%`;
      const past = points(tile.name);
      tile.spark.show(tile.value ? past.map(([at, ratio]) => [at, ratio === null ? null : 1 - ratio]) : past, view);
    }
  }

  showTrends(trends) {
    for (const tile of this.#tiles) {
      const trend = trends.find(({ figure }) => figure === tile.name);
      // What is shown upside down goes the other way.
      const turned = trend && tile.value ? { ...trend, direction: trend.direction === "up" ? "down" : "up" } : trend;
      tile.arrow.replaceChildren(...(trend ? [arrowOf(turned)] : []));
      tile.arrow.title = trend?.text ?? "";
    }
  }
}

function arrowOf({ direction, good }) {
  const arrow = make("span", "arrow", direction === "up" ? "↗" : "↘");
  arrow.dataset.good = good === null ? "" : good ? "yes" : "no";
  arrow.setAttribute("role", "img");
  arrow.setAttribute("aria-label", direction === "up" ? "rising" : "falling");
  return arrow;
}

/** Show how it is, and why it is not better. */
export function showHealth({ card, title, reasons }, { health = "", reasons: why = [] }) {
  card.dataset.health = health;
  title.textContent = { healthy: "Healthy", degraded: "Degraded", unhealthy: "Unhealthy" }[health] ?? "Running";
  reasons.replaceChildren(...why.map((reason) => make("li", "", reason)));
}

/** Show the alerts that are on, and those that will be if it stays as it is. */
export function showAlerts(list, alerts) {
  const rows = alerts
    .filter(({ state }) => state !== "off")
    .map((alert) => {
      const lasts = known(alert.lasts_s) ? `for ${lasting(alert.lasts_s)}` : "";
      const text = alert.state === "on" ? lasts : joined("on the watch", lasts, `told after ${lasting(alert.for_s)}`);
      return make(
        "li",
        alert.state,
        make("b", "", alert.name),
        make("span", "", joined(alert.when, alert.shown && `now ${alert.shown}`, text)),
      );
    });
  list.replaceChildren(...(rows.length ? rows : [make("li", "quiet", "All figures are within their bounds.")]));
}

export function showTrends(list, trends) {
  const rows = trends.map((trend) => make("li", "", arrowOf(trend), make("span", "", trend.text)));
  list.replaceChildren(...(rows.length ? rows : [make("li", "quiet", "Nothing goes one way for long.")]));
}

/** A table whose rows are replaced as a whole. A column is {title, text(row), number?, key?}. */
export class Table {
  #body = make("tbody");
  #more = make("p", "quiet");
  #columns;
  #empty;
  #most;

  constructor(host, { title, columns, empty, most = 12, wide = false }) {
    this.#columns = columns;
    this.#empty = empty;
    this.#most = most;
    const heads = columns.map((column) => {
      const head = make("th", column.number ? "number" : "", column.title);
      head.scope = "col";
      return head;
    });
    const heading = make("h2", "", title);
    heading.id = `table-${title.toLowerCase().replace(/\W+/g, "-")}`;
    const table = make("table", "", make("thead", "", make("tr", "", ...heads)), this.#body);
    const scroll = make("div", "scroll", table);
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-labelledby", heading.id);
    table.setAttribute("aria-labelledby", heading.id);
    host.append(make("section", `card${wide ? " wide" : ""}`, heading, scroll, this.#more));
  }

  show(rows) {
    const shown = rows.slice(0, this.#most).map((row) => {
      const cells = this.#columns.map((column) => {
        const text = column.text(row);
        const cell = make("td", [column.number && "number", column.key && "key"].filter(Boolean).join(" "), text);
        if (column.key) cell.title = text;
        if (column.state) cell.dataset.state = column.state(row);
        return cell;
      });
      return make("tr", "", ...cells);
    });
    this.#body.replaceChildren(...shown);
    const left = rows.length - shown.length;
    this.#more.textContent = rows.length === 0 ? this.#empty : left > 0 ? `and ${left} more` : "";
    this.#body.parentElement.hidden = rows.length === 0;
  }
}
