/**
 * The dashboard: one page that stays live by `respite.js` and draws with `charts.js`, `panels.js` and `trouble.js`.
 *
 *   channel respite:figures --> figures of this second, health, alerts, trends --> tiles, charts, lists
 *   /history.json, once     --> the past of the charts, which then grow with each second
 *   /stats.json, now and then, and when the health changes --> tables, outages, doors
 *
 * Owns the connection, the token (kept in this tab only), the theme and what is known of the past. Asks for nothing
 * while nobody looks at it. Nothing is loaded from anywhere but the proxy.
 */

import { Chart } from "./charts.js";
import { counted, lasting, written } from "./format.js";
import { showAlerts, showHealth, showTrends, Table, Tiles } from "./panels.js";
import { Respite } from "./respite.js";
import { Trouble } from "./trouble.js";

const STATS_MS = 3000;
/** The proxy tells its figures once a second; without any for this long, what is shown is old. */
const STALE_MS = 5000;
const RANGES = [
  { text: "5 minutes", short: "5 min", seconds: 300, step: 1 },
  { text: "30 minutes", short: "30 min", seconds: 1800, step: 10 },
  { text: "hour", short: "1 h", seconds: 3600, step: 10 },
  { text: "6 hours", short: "6 h", seconds: 21_600, step: 60 },
  { text: "24 hours", short: "24 h", seconds: 86_400, step: 60 },
];
/** So much, and no more, is always kept; a longer span is offered once there is something in it. */
const KEPT_S = 3600;
/** How often to look for that, and in what steps. */
const REACH_MS = 600_000;
const REACH_STEP_S = 600;
const CHARTS = [
  {
    title: "Reads answered without Redis",
    unit: "ratio",
    series: [
      { name: "hit_rate", label: "hit rate" },
      { name: "saved_rate", label: "Redis load saved" },
    ],
    empty: "No read yet",
  },
  {
    title: "What clients wait",
    unit: "seconds",
    series: [
      { name: "latency_p50", label: "p50" },
      { name: "latency_p90", label: "p90" },
      { name: "latency_p99", label: "p99" },
    ],
    empty: "No command yet",
    log: true,
  },
  { title: "Commands", unit: "per_second", series: [{ name: "commands_per_second", label: "of clients" }] },
  {
    title: "Changes",
    unit: "per_second",
    series: [
      { name: "invalidations_per_second", label: "keys invalidated" },
      { name: "events_per_second", label: "events" },
      { name: "evictions_per_second", label: "evicted" },
    ],
  },
  { title: "Memory of L1", unit: "bytes", series: [{ name: "l1_bytes", label: "held" }] },
  {
    title: "Event queue",
    unit: "count",
    series: [{ name: "queue_depth", label: "waiting" }],
    empty: "No broker is configured",
  },
];
/** A pinned link is idle, or held by a client. */
const HEALTH_OF_LINK = { up: "up", held: "up", idle: "idle" };
const PAST = [...new Set([...CHARTS.flatMap(({ series }) => series.map(({ name }) => name)), ...Tiles.names])];

const element = (id) => document.getElementById(id);
const page = {
  tiles: new Tiles(element("tiles")),
  charts: CHARTS.map((chart) => new Chart(element("charts"), chart)),
  health: { card: element("health"), title: element("health-title"), reasons: element("reasons") },
  trouble: new Trouble(element("trouble-now"), element("trouble-later")),
  tables: tables(element("tables")),
};
const known = {
  past: new Map(PAST.map((name) => [name, []])),
  range: RANGES[0],
  heardAtMs: 0,
  isShadow: false, // L1 is compared with Redis, and nothing is served from it
  token: sessionStorage.getItem("respite-token") ?? "",
};

function tables(host) {
  const time = (microseconds) => written(microseconds / 1e6, "seconds");
  const count = (number) => written(number, "count");
  const costs = [
    { title: "Calls", text: (row) => count(row.commands_total), number: true },
    {
      title: "Hit rate",
      text: (row) => written(row.hits_total + row.misses_total ? row.hit_rate : null, "ratio"),
      number: true,
    },
    { title: "Errors", text: (row) => count(row.errors_total), number: true },
    { title: "p50", text: (row) => time(row.p50_us), number: true },
    { title: "p99", text: (row) => time(row.p99_us), number: true },
  ];
  return {
    hot: new Table(host, {
      title: "Hottest keys",
      empty: "No key has been read twice.",
      columns: [
        { title: "Key", text: (row) => row.name, key: true },
        { title: "Hits", text: (row) => written(row.per_second, "per_second"), number: true },
        { title: "Uses", text: (row) => count(row.uses), number: true },
        { title: "Size", text: (row) => written(row.reply_bytes, "bytes"), number: true },
        { title: "Command", text: (row) => row.command },
      ],
    }),
    recent: new Table(host, {
      title: "Recent invalidations",
      empty: "Nothing has been dropped lately.",
      columns: [
        { title: "Key", text: (row) => row.key || "all keys", key: true },
        { title: "Cause", text: (row) => row.cause },
        { title: "Ago", text: (row) => lasting(row.ago_s), number: true },
      ],
    }),
    classes: new Table(host, {
      title: "Classes",
      empty: "No class is configured.",
      columns: [{ title: "Class", text: (row) => row.name, key: true }, ...costs],
    }),
    commands: new Table(host, {
      title: "Commands",
      empty: "None yet.",
      columns: [{ title: "Command", text: (row) => row.name, key: true }, ...costs],
    }),
    links: new Table(host, {
      title: "Links to Redis",
      empty: "There is no link.",
      wide: true,
      columns: [
        { title: "Link", text: (row) => row.kind },
        { title: "State", text: (row) => row.state, state: (row) => HEALTH_OF_LINK[row.state] ?? "down" },
        { title: "Waiting", text: (row) => count(row.outstanding), number: true },
        { title: "Commands", text: (row) => count(row.commands_total), number: true },
        { title: "p50", text: (row) => time(row.p50_us), number: true },
        { title: "p99", text: (row) => time(row.p99_us), number: true },
        { title: "Sent", text: (row) => written(row.sent_bytes_total, "bytes"), number: true },
        { title: "Received", text: (row) => written(row.received_bytes_total, "bytes"), number: true },
        { title: "Database", text: (row) => String(row.db), number: true },
        { title: "User", text: (row) => row.user || "default" },
        { title: "Protocol", text: (row) => `RESP${row.protocol}` },
      ],
    }),
  };
}

/** Ask the proxy for JSON; null when it does not answer, or wants a token. */
async function ask(path) {
  try {
    const headers = known.token ? { Authorization: `Bearer ${known.token}` } : {};
    const answer = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(STALE_MS) });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

async function loadPast() {
  const { range } = known;
  // A day of all figures at once would keep the proxy from its clients for tens of milliseconds.
  const parts = range.seconds > KEPT_S ? PAST : [PAST.join(",")];
  for (const part of parts) {
    const answer = await ask(`history.json?figure=${part}&seconds=${range.seconds}&step=${range.step}`);
    if (answer === null || range !== known.range) return;
    for (const { figure, points } of answer.series) known.past.set(figure, points);
  }
  redraw();
}

/** Offer the spans that the proxy has figures of. */
async function loadReach() {
  const answer = await ask(`history.json?figure=clients&seconds=${RANGES.at(-1).seconds}&step=${REACH_STEP_S}`);
  if (answer === null) return;
  const [{ points }] = answer.series;
  const [beganMs] = points.find(([, value]) => value !== null) ?? [Infinity];
  const reachS = points.length ? (points.at(-1)[0] - beganMs) / 1000 : 0;
  RANGES.forEach(({ seconds }, index) => {
    const isKept = seconds <= KEPT_S || reachS > RANGES[index - 1].seconds + REACH_STEP_S / 2;
    element("ranges").children[index].hidden = !isKept;
  });
}

async function loadStats() {
  if (document.hidden) return;
  const stats = await ask("stats.json");
  if (stats === null) return;
  const { upstream } = stats;
  const server = [upstream.server, upstream.version].filter(Boolean).join(" ");
  element("facts").textContent = [
    `${server || "Redis"} at ${upstream.url}`,
    `tracking ${upstream.tracking}`,
    `up ${lasting(stats.uptime_s)}`,
  ].join(" · ");
  const memory = written(stats.memory.rss_bytes, "bytes");
  const { mode, percent } = stats.rollout;
  known.isShadow = mode === "shadow";
  element("version").textContent = [
    `Respite ${stats.version}`,
    counted(stats.clients.connected, "client"),
    `${memory} of memory`,
    mode !== "on" && `rollout ${mode}`,
    mode !== "off" && percent < 100 && `${percent} % of the clients`,
  ]
    .filter(Boolean)
    .join(" · ");
  page.trouble.show(stats);
  page.tables.hot.show(stats.hot ?? []);
  page.tables.recent.show(stats.recent ?? []);
  page.tables.classes.show(stats.classes ?? []);
  page.tables.commands.show(stats.commands_by_name ?? []);
  page.tables.links.show(stats.links);
}

/** Take the figures of one second. */
function hear(message) {
  if (message.channel !== "respite:figures") return;
  const { figures, steady = {}, health, reasons, alerts = [], trends = [] } = message.data ?? message;
  known.heardAtMs = Date.now();
  const atMs = Date.parse(message.at);
  const { seconds, step } = known.range;
  for (const [name, points] of known.past) {
    const last = points.at(-1);
    if (last && atMs - last[0] < step * 1000 - 100) continue;
    points.push([atMs, figures[name] ?? null]);
    while (points[0][0] < atMs - seconds * 1000) points.shift();
  }
  known.figures = { ...steady, ...figures };
  known.atMs = atMs;
  showHealth(page.health, { health, reasons });
  if (known.health !== health) loadStats(); // nobody is to wait for it
  known.health = health;
  showAlerts(element("alerts"), alerts);
  showTrends(element("trends"), trends);
  const firing = alerts.filter(({ state }) => state === "on").length;
  document.title = `${firing ? `(${firing}) ` : ""}Respite`;
  page.tiles.showTrends(trends);
  redraw();
}

function redraw() {
  if (document.hidden || !known.figures) return;
  const { seconds, step } = known.range;
  const view = { fromMs: known.atMs - seconds * 1000, toMs: known.atMs, gapMs: 2.5 * step * 1000 };
  const points = (name) => known.past.get(name) ?? [];
  page.tiles.show(known.figures, points, view, known.isShadow);
  for (const chart of page.charts) chart.show(points, view);
  showAge();
}

/** Say clearly when what is shown is not of now. */
function showAge() {
  page.trouble.tick();
  const { state, why } = respite.state;
  const ageS = known.heardAtMs ? (Date.now() - known.heardAtMs) / 1000 : 0;
  const isOld = state !== "live" ? known.heardAtMs > 0 : ageS * 1000 > STALE_MS;
  const reason =
    state === "live" ? "The proxy tells no figures" : `The connection to the proxy is lost${why ? ` (${why})` : ""}`;
  document.body.classList.toggle("stale", isOld);
  element("lost").hidden = !isOld && state !== "refused";
  const text =
    state === "refused"
      ? `The proxy refuses: ${why}`
      : `${reason}. What you see is ${lasting(ageS)} old; this page goes on by itself.`;
  if (element("lost").textContent !== text) element("lost").textContent = text;
}

const WAYS = { websocket: "WebSocket", events: "events", polling: "polling" };

function showState({ state, transport, retryInMs }) {
  const pill = element("connection");
  pill.dataset.state = state;
  pill.textContent =
    {
      live: `Live · ${WAYS[transport]}`,
      connecting: "Connecting",
      waiting: `Lost · again in ${Math.max(1, Math.round(retryInMs / 1000))} s`,
      unauthorized: "Token wanted",
      refused: "Refused",
    }[state] ?? "Off";
  if (state === "live") {
    loadPast();
    loadReach();
    loadStats();
  }
  if (state === "unauthorized") askForToken();
  showAge();
}

function askForToken() {
  const dialog = element("token-dialog");
  if (dialog.open) return;
  element("token-why").hidden = false;
  if (known.token)
    element("token-why").textContent = "That token is not the one. It is listen.admin_token of the configuration.";
  dialog.showModal();
}

element("token-dialog").addEventListener("close", () => {
  known.token = element("token").value.trim();
  element("token").value = "";
  sessionStorage.setItem("respite-token", known.token);
  respite.token = known.token;
});

const THEMES = ["auto", "light", "dark"];
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function showTheme() {
  const chosen = localStorage.getItem("respite-theme") ?? "auto";
  const isDark = chosen === "dark" || (chosen === "auto" && prefersDark.matches);
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  element("theme").textContent = `Theme: ${chosen}`;
}

element("theme").addEventListener("click", () => {
  const chosen = localStorage.getItem("respite-theme") ?? "auto";
  localStorage.setItem("respite-theme", THEMES[(THEMES.indexOf(chosen) + 1) % THEMES.length]);
  showTheme();
});
prefersDark.addEventListener("change", showTheme);
showTheme();

for (const range of RANGES) {
  const button = element("ranges").appendChild(document.createElement("button"));
  button.type = "button";
  button.textContent = range.short;
  button.hidden = range.seconds > KEPT_S;
  button.setAttribute("aria-pressed", String(range === known.range));
  button.addEventListener("click", () => {
    known.range = range;
    element("range-text").textContent = range.text;
    for (const other of element("ranges").children) other.setAttribute("aria-pressed", String(other === button));
    loadPast();
  });
}

const respite = new Respite({ url: new URL(".", location.href).href, token: known.token });
respite.onstate = showState;
respite.subscribe("respite:figures", hear);
setInterval(loadStats, STATS_MS);
setInterval(loadReach, REACH_MS);
setInterval(showAge, 1000);
document.addEventListener("visibilitychange", () => {
  loadStats();
  redraw();
});
