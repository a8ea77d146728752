/**
 * The cards that are there only when there is something to tell: outages, and who is turned away at the doors.
 *
 *   while it lasts --> above the figures, with since when and what is served meanwhile
 *   afterwards     --> below the charts, with what was counted
 *   nothing        --> no card
 *
 * Owns what is told and in which words; a line whose counts are all 0 is left out. The figures are /stats.json's.
 */

import { counted, lasting, written } from "./format.js";
import { make } from "./panels.js";

const NAMES_SHOWN = 4;
const count = (number) => written(number, "count");
const bytes = (number) => written(number, "bytes");

/** What a card says: since when (seconds), and lines of [name, parts]. Null: nothing. */
function tellOutage({ outage = {}, offline = {}, upstream = {} }) {
  const { state, since_s: sinceS, fallbacks = [], why = "", last_why: lastWhy = "" } = outage;
  const { read: reads, write: writes } = offline.taken_total ?? {};
  const opened = counts({ opened: upstream.breaker_opened_total });
  const lines = [
    ["Served stale", total(outage.stale_served_total, outage.stale_served)],
    ["To be told to Redis", held(offline)],
    ["Taken in memory", counts({ reads, writes, "no room for": offline.refused_total })],
    ["Redis was told", toldOf(offline.reconciled_total)],
    ["Kept of L1", kept(outage)],
    ["Breaker", opened.length ? [upstream.breaker, ...opened] : []],
    ["Reads asked again", counts({ "": upstream.retried_total })],
    ["Redis said", counts(upstream.refusals)],
  ].filter(([, parts]) => parts.length);
  const isNow = state === "away" || state === "slow";
  if (!isNow && !lines.length && !fallbacks.length) return null;
  const others = state === "slow" ? "everything else waits" : "everything else gets an error";
  const meanwhile = fallbacks.length ? [...fallbacks.map(fallback), others].join("; ") : others;
  if (isNow) return { state, isNow, title: `Redis is ${state}`, sinceS, about: [why, `meanwhile ${meanwhile}`], lines };
  if (opened.length) {
    const last = `the last outage lasted ${lasting(outage.last_lasted_s ?? 0)}: ${lastWhy}`;
    return { state: "back", title: "Redis is back", sinceS, about: [lastWhy && last], lines };
  }
  const about = fallbacks.length ? [`if Redis goes, ${meanwhile}`] : [];
  return { state: "", title: "Outages: none so far", about, lines };
}

/** What a class has for an outage, as part of a sentence. */
function fallback({ name, stale_if_error_s: staleS, offline }) {
  const stale = staleS ? `reads of ${name} get what L1 held, up to ${lasting(staleS)} past its end` : "";
  const memory = offline === "memory" ? `commands of ${name} are taken in memory` : "";
  return [stale, memory].filter(Boolean).join(", and ");
}

function held({ keys, bytes: used, max_bytes: most, waiting }) {
  if (!(keys > 0)) return [];
  const meter = make("span", "meter", make("span"));
  meter.firstChild.style.width = `${100 * Math.min(1, most ? used / most : 0)}%`;
  const room = make("span", most && used >= 0.8 * most ? "bad" : "", `${bytes(used)} of ${bytes(most)}`, meter);
  return [...counts({ keys }), room, ...counts({ "clients wait": waiting })];
}

function toldOf({ written: newest, older, deleted, lost } = {}) {
  const parts = counts({ written: newest, "newer there": older, deleted });
  return lost > 0 ? [...parts, make("span", "bad", `lost ${count(lost)}`)] : parts;
}

function kept({ stale_entries: entries, stale_bytes: used, stale_max_bytes: most }) {
  return entries > 0 ? [...counts({ entries }), `${bytes(used)} of ${bytes(most)}`] : [];
}

/** Who was turned away, each limit by the name of its key in the configuration. */
function tellDoors({ clients = {}, commands = {}, doors = {} }) {
  const lines = [
    [
      "Refused by",
      counts({
        max_clients: clients.rejected_total,
        max_clients_per_address: clients.crowded_total,
        max_pinned_per_address: clients.pins_refused_total,
      }),
    ],
    [
      "Logins",
      counts({
        failed: clients.logins_failed_total,
        "too many at once": clients.logins_refused_total,
        "not in time": clients.killed_unproven_total,
      }),
    ],
    ["TLS", counts({ "handshakes failed": clients.handshakes_failed_total })],
    [
      "Closed for",
      counts({ "unread replies": clients.killed_unread_total, "what is no RESP": clients.protocol_errors_total }),
    ],
    ["Held back by", counts({ rate_limit: clients.throttled_total })],
    ["Commands denied", total(commands.denied_total, commands.denied_by_user_total)],
  ].filter(([, parts]) => parts.length);
  const left = `${counted(clients.connected ?? 0, "client")} still here.`;
  const about = {
    draining: `Clients are let go between two requests; ${left}`,
    "handing over": "The next proxy has the sockets and starts; clients are served here until it serves.",
  }[doors.state];
  if (about) return { state: "slow", isNow: true, title: `Doors: ${doors.state}`, about: [about], lines };
  return lines.length ? { state: "", title: "Turned away at the doors", about: [], lines } : null;
}

/** Counts that are not 0, with their names. */
function counts(named) {
  return Object.entries(named ?? {})
    .filter(([, value]) => value > 0)
    .map(([name, value]) => make("span", "", name, make("b", "", name ? ` ${count(value)}` : count(value))));
}

/** A count, and the names that have most of it. */
function total(value, named) {
  if (!(value > 0)) return [];
  const most = Object.entries(named ?? {}).sort(([, one], [, other]) => other - one);
  const left = most.length - NAMES_SHOWN;
  return [
    make("b", "", count(value)),
    ...counts(Object.fromEntries(most.slice(0, NAMES_SHOWN))),
    ...(left > 0 ? [`and ${left} more`] : []),
  ];
}

class Card {
  #title = make("h2");
  #lasts = make("span", "lasts");
  #about = make("p", "about");
  #lines = make("dl", "facts");
  #sinceMs = null;
  element;

  constructor(id) {
    this.#title.id = `${id}-title`;
    this.#about.setAttribute("aria-live", "polite");
    const head = make("div", "head", this.#title, this.#lasts);
    this.element = make("section", "card trouble", head, this.#about, this.#lines);
    this.element.id = id;
    this.element.setAttribute("aria-labelledby", this.#title.id);
  }

  show({ state, title, sinceS, about, lines }) {
    this.element.dataset.state = state;
    this.#title.textContent = title;
    this.#sinceMs = sinceS === undefined ? null : Date.now() - 1000 * sinceS;
    const text = about.filter(Boolean).map(sentence).join(" ");
    if (this.#about.textContent !== text) this.#about.textContent = text; // what is new is read out, and only that
    this.#about.hidden = !text;
    this.#lines.replaceChildren(
      ...lines.map(([name, parts]) =>
        make("div", "", make("dt", "", name), make("dd", "", ...parts.map((part) => make("span", "", part)))),
      ),
    );
    this.#lines.hidden = !lines.length;
    this.tick();
  }

  tick() {
    const text = this.#sinceMs === null ? "" : `for ${lasting(Math.max(0, Date.now() - this.#sinceMs) / 1000)}`;
    if (this.#lasts.textContent !== text) this.#lasts.textContent = text;
  }
}

function sentence(text) {
  const whole = text[0].toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

/** Both cards: in `now` what lasts, in `later` what is over. Each place is hidden while it is empty. */
export class Trouble {
  #now;
  #later;
  #cards = [
    { tell: tellOutage, card: new Card("outage") },
    { tell: tellDoors, card: new Card("doors") },
  ];

  constructor(now, later) {
    this.#now = now;
    this.#later = later;
  }

  show(stats) {
    for (const { tell, card } of this.#cards) {
      const told = tell(stats);
      const place = told === null ? null : told.isNow ? this.#now : this.#later;
      if (told !== null) card.show(told);
      if (place === null) card.element.remove();
      else if (card.element.parentElement !== place) place.append(card.element);
    }
    for (const place of [this.#now, this.#later]) place.hidden = !place.childElementCount;
  }

  tick() {
    for (const { card } of this.#cards) card.tick();
  }
}
