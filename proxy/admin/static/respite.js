/**
 * Live changes from Respite, for web pages and Node: keys, globs and tags that somebody has written, dropped or let
 * expire, the moment it happens. One file, no dependency.
 *
 *   import { Respite } from "/respite.js";            // also there as globalThis.Respite
 *   const respite = new Respite({ url: "http://127.0.0.1:6390", token: "..." });
 *   const stop = respite.subscribe(["ticket:7", "tickets:*", "tag:news"], (message) => { ... });
 *   respite.onstate = ({ state, transport, why }) => { ... };
 *   stop();
 *
 * All subscriptions of one object share one connection: a WebSocket; where that cannot be had, server-sent events;
 * where these do not arrive either, polling as often as the proxy asks for. On a lesser way it looks for the better
 * one now and then. A connection that ends is opened again after a growing, random pause and goes on after the
 * last message that came; what the proxy could not keep meanwhile is told as {"type": "lost"}. A message may come twice
 * where a connection was cut, and is never left out in silence. Without a subscription there is no connection, and no
 * timer.
 *
 *   subscribe --> #run: [ WebSocket | events | polling ] --> hello --> messages --> callbacks of their channel
 *                   ^                                                     |
 *                   +-------------- pause, 0.5 s to 30 s -----------------+  it ended, or was silent for too long
 *
 * A message is {type: "update", channel, keys, cause, version, at}, or {type: "lost", count | null, why}: as many
 * changes (null: nobody knows how many) were missed, so read again what you show. A "lost" goes to every callback.
 */

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;
/** A connection that lasted this long was a good one: the next pause is short again. */
const GOOD_MS = 10_000;
/** How long a proxy may take to greet. */
const HELLO_MS = 5_000;
/** How many heartbeats may be missing before the connection counts as dead. */
const SILENT_HEARTBEATS = 2.5;
/** How long to stay on a lesser way before the better one is tried again: the first time, and at most. */
const FIRST_BETTER_MS = 30_000;
const LONGEST_BETTER_MS = 600_000;

/** Statuses that another try does not change by itself. */
const REFUSALS = [400, 401, 403];

const WAYS = [
  { name: "websocket", open: overSocket },
  { name: "events", open: overEvents },
  { name: "polling", open: overPolling },
];

export class Respite {
  #base;
  #token;
  /** channel -> the callbacks that want it */
  #wanted = new Map();
  #cursor = "";
  #state = { state: "idle", transport: "", why: "", retryInMs: 0 };
  #running = false;
  #conversing = false;
  /** What ends the present connection; its reason says what to do next. */
  #cut = new AbortController();
  /** Ends a pause early. */
  #wake = () => {};
  /** Tells the proxy about further channels on the present connection; null where it needs a new one. */
  #send = null;
  #added = new Set();
  #removed = new Set();

  /** Called with {state, transport, why, retryInMs} whenever the state changes: idle, connecting, live, waiting,
   *  unauthorized (the token is missing or wrong: set another), refused (see why). */
  onstate = null;

  /** Connect to the admin port at `url`, by default where the page came from. Nothing happens before a subscription. */
  constructor({ url = globalThis.location?.origin, token = "" } = {}) {
    this.#base = new URL(url.endsWith("/") ? url : `${url}/`, globalThis.location?.href);
    this.#token = token;
  }

  get state() {
    return this.#state;
  }

  /** Use another token; a connection that waits for one is tried at once. */
  set token(token) {
    this.#token = token;
    this.#cut.abort("again");
    this.#wake();
  }

  /** Call `callback` with every message of these channels (one or a list). Returns what ends it; twice does no harm. */
  subscribe(channels, callback) {
    const names = new Set(typeof channels === "string" ? [channels] : channels);
    // An entry of its own: the same function may subscribe twice, and each of the two ends alone.
    const entry = { callback };
    for (const name of names) {
      if (!this.#wanted.has(name)) this.#wanted.set(name, new Set());
      if (this.#wanted.get(name).add(entry).size === 1) this.#change(name, this.#added, this.#removed);
    }
    if (!this.#running && names.size) this.#run();
    return () => {
      for (const name of names) {
        const entries = this.#wanted.get(name);
        if (entries?.delete(entry) && entries.size === 0) {
          this.#wanted.delete(name);
          this.#change(name, this.#removed, this.#added);
        }
      }
    };
  }

  /** End all subscriptions and the connection. */
  close() {
    this.#wanted.clear();
    this.#leave();
  }

  /** Note that a channel is wanted, or no longer; all that one turn of the page does is told to the proxy at once. */
  #change(name, more, less) {
    if (!less.delete(name)) more.add(name);
    if (this.#added.size + this.#removed.size === 1) queueMicrotask(() => this.#tell());
  }

  #tell() {
    const [added, removed] = [[...this.#added], [...this.#removed]];
    this.#added.clear();
    this.#removed.clear();
    if (this.#wanted.size === 0) this.#leave();
    else if (added.length + removed.length === 0) return;
    else if (this.#send) this.#send(added, removed);
    else if (this.#conversing) this.#cut.abort("channels");
    // A refusal may have been for a channel that is no longer asked for.
    else if (this.#state.state === "refused") this.#wake();
  }

  #leave() {
    this.#cut.abort("left");
    this.#wake();
  }

  async #run() {
    this.#running = true;
    const wake = () => globalThis.document?.hidden || this.#wake();
    globalThis.addEventListener?.("online", wake);
    globalThis.document?.addEventListener("visibilitychange", wake);
    this.#show("connecting");
    let [way, failures] = [0, 0];
    await null; // the subscriptions of this turn go into the first request
    while (this.#wanted.size) {
      this.#added.clear();
      this.#removed.clear();
      const end = await this.#converse(way);
      if (end.reason === "left" || end.reason === "channels") continue;
      if (end.reason === "again") [way, failures] = [0, 0];
      else if (end.reason === "better") way = end.better;
      else if (!end.greeted && way + 1 < WAYS.length && !REFUSALS.includes(end.status)) way += 1;
      else {
        failures = end.lastedMs > GOOD_MS ? 0 : failures + 1;
        const pauseMs = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.max(0, failures - 1));
        await this.#pause(Math.max(pauseMs * (0.5 + Math.random() / 2), (end.retryAfterS || 0) * 1000), end);
        way = 0;
      }
    }
    globalThis.removeEventListener?.("online", wake);
    globalThis.document?.removeEventListener("visibilitychange", wake);
    this.#running = false;
    this.#show("idle");
  }

  async #pause(pauseMs, { status, why }) {
    const waitMs = REFUSALS.includes(status) ? LONGEST_PAUSE_MS : pauseMs;
    const state = status === 401 ? "unauthorized" : REFUSALS.includes(status) ? "refused" : "waiting";
    this.#show(state, "", why, Math.round(waitMs));
    const awake = new AbortController();
    this.#wake = () => awake.abort();
    if (this.#wanted.size) await sleep(waitMs, awake.signal);
  }

  /** Hold one connection to its end. Returns how it ended; throws nothing. */
  async #converse(way) {
    const cut = (this.#cut = new AbortController());
    const begun = Date.now();
    const talk = this.#talk(cut, (message) => {
      if (message.type === "hello") {
        this.#show("live", WAYS[way].name);
        if (way > 0) this.#lookForBetter(way, cut, FIRST_BETTER_MS);
        // A greeting says where the stream stands now. What came after our own cursor, or that it is lost, comes next.
        if (this.#cursor) return;
      }
      if (message.cursor) this.#cursor = message.cursor;
      if (message.type === "error") this.#show("live", WAYS[way].name, message.error);
      this.#deliver(message);
    });
    this.#conversing = true;
    const end = await hold(WAYS[way].open, talk);
    this.#conversing = false;
    this.#send = null;
    const reason = cut.signal.aborted ? cut.signal.reason : "";
    cut.abort("over");
    return {
      ...end,
      reason,
      better: cut.better,
      greeted: talk.greeted,
      lastedMs: talk.greeted ? Date.now() - begun : 0,
    };
  }

  /** Make what a way of transport works with: where to ask, and whom to tell. */
  #talk(cut, hear) {
    let [silent, silentMs] = [null, HELLO_MS];
    const talk = {
      signal: cut.signal,
      base: this.#base,
      token: this.#token,
      channels: [...this.#wanted.keys()],
      cursor: () => this.#cursor,
      greeted: false,
      setSend: (send) => (this.#send = send),
      /** Ask the proxy for a sign of life; false where that cannot be asked for. */
      prod: () => false,
      /** Something was heard: the next sign of life is due within `ms`. */
      alive: (ms = silentMs) => {
        clearTimeout(silent);
        silentMs = ms;
        if (cut.signal.aborted) return;
        const over = () => cut.abort("nothing is heard any more");
        silent = setTimeout(() => (talk.prod() ? (silent = setTimeout(over, HELLO_MS)) : over()), ms);
      },
      hear: (message) => {
        talk.greeted ||= message.type === "hello";
        talk.alive(message.heartbeat_s ? message.heartbeat_s * 1000 * SILENT_HEARTBEATS : silentMs);
        hear(message);
      },
    };
    cut.signal.addEventListener("abort", () => clearTimeout(silent), { once: true });
    talk.alive();
    return talk;
  }

  /** Try, after a while and again, whether a better way greets; if so the present connection makes room for it. */
  async #lookForBetter(way, cut, afterMs) {
    await sleep(afterMs, cut.signal);
    for (let index = 0; index < way && !cut.signal.aborted; index += 1) {
      const probe = new AbortController();
      const stop = () => probe.abort("over");
      cut.signal.addEventListener("abort", stop, { once: true });
      const talk = this.#talk(probe, stop);
      talk.setSend = () => {};
      await hold(WAYS[index].open, talk);
      cut.signal.removeEventListener("abort", stop);
      if (talk.greeted && !cut.signal.aborted) {
        cut.better = index;
        cut.abort("better");
      }
    }
    if (!cut.signal.aborted) this.#lookForBetter(way, cut, Math.min(afterMs * 2, LONGEST_BETTER_MS));
  }

  #deliver(message) {
    const entries = message.type === "lost" ? [...this.#wanted.values()].flatMap((all) => [...all]) : null;
    for (const { callback } of new Set(entries ?? this.#wanted.get(message.channel))) call(callback, message);
  }

  #show(state, transport = "", why = "", retryInMs = 0) {
    this.#state = { state, transport, why, retryInMs };
    if (this.onstate) call((shown) => this.onstate(shown), this.#state);
  }
}

globalThis.Respite ??= Respite;

/** Call back; one that fails costs the others, and the connection, nothing. */
function call(callback, news) {
  try {
    callback(news);
  } catch (error) {
    (globalThis.reportError ?? console.error)(error);
  }
}

/** Run one way of transport until it ends or is cut; whatever it throws is how it ended. */
async function hold(open, talk) {
  try {
    return await open(talk);
  } catch (error) {
    return { why: talk.signal.aborted ? String(talk.signal.reason) : error.message };
  }
}

/** Wait so long, or until the signal says that it is enough. */
function sleep(ms, signal) {
  return new Promise((done) => {
    if (signal.aborted) return done();
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      done();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
  });
}

function address(talk, path) {
  const since = talk.cursor() ? `&since=${encodeURIComponent(talk.cursor())}` : "";
  return new URL(`${path}?channels=${talk.channels.map(encode).join(",")}${since}`, talk.base);
}

/** Percent-encode a channel. A byte of a key that is no UTF-8 is U+DC80 to U+DCFF in messages, and itself again here. */
function encode(name) {
  const encoded = (sign) => {
    const code = sign.charCodeAt(0);
    if (sign.length > 1 || code < 0xd800 || code > 0xdfff) return encodeURIComponent(sign);
    return code >= 0xdc80 && code <= 0xdcff ? `%${(code - 0xdc00).toString(16)}` : "%EF%BF%BD";
  };
  return Array.from(name, encoded).join("");
}

function overSocket(talk) {
  if (!globalThis.WebSocket) return { why: "there is no WebSocket here" };
  const url = address(talk, "ws");
  url.protocol = talk.base.protocol.replace("http", "ws");
  // The one thing a page may say of its own in the handshake is a list of subprotocols, in which no ( ) is allowed.
  const token = encodeURIComponent(talk.token).replace(/[()]/g, (sign) => `%${sign.charCodeAt(0).toString(16)}`);
  return new Promise((end) => {
    const socket = new WebSocket(url, talk.token ? ["respite", `respite.token.${token}`] : []);
    const finish = (why) => {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
      end({ why });
    };
    talk.signal.addEventListener("abort", () => finish(String(talk.signal.reason)), { once: true });
    socket.onmessage = ({ data }) => talk.hear(JSON.parse(data));
    socket.onclose = ({ code, reason }) => finish(reason || `the WebSocket closed with code ${code}`);
    socket.onopen = () => {
      talk.setSend((subscribe, unsubscribe) => socket.send(JSON.stringify({ subscribe, unsubscribe })));
      // A page is shown no pings. To subscribe to nothing changes nothing, and is answered.
      talk.prod = () => {
        socket.send('{"subscribe":[]}');
        return true;
      };
    };
  });
}

// fetch, not EventSource: that one can send no token and shows neither a refusal's status nor a heartbeat.
async function overEvents(talk) {
  const answer = await ask(talk, "events");
  if (!answer.ok) return refusal(answer);
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let [rest, data] = ["", []];
  let id = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return { why: "the stream of events ended" };
    talk.alive();
    const lines = (rest + decoder.decode(value, { stream: true })).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      const [, field, text] = /^(\w*):? ?(.*)$/s.exec(line) ?? [];
      if (field === "data") data.push(text);
      else if (field === "id") id = text;
      else if (line === "" && data.length) {
        const message = JSON.parse(data.join("\n"));
        talk.hear(id && message.type !== "hello" ? { ...message, cursor: id } : message);
        [data, id] = [[], ""];
      }
    }
  }
}

async function overPolling(talk) {
  for (let isFirst = true; ; isFirst = false) {
    const answer = await ask(talk, "changes");
    if (!answer.ok) return refusal(answer);
    const { cursor, changes, poll_after_ms: afterMs } = await answer.json();
    talk.alive(afterMs + HELLO_MS);
    if (isFirst) talk.hear({ type: "hello" });
    changes.forEach((message, index) => talk.hear(index + 1 < changes.length ? message : { ...message, cursor }));
    if (!changes.length) talk.hear({ type: "heartbeat", cursor });
    await sleep(afterMs, talk.signal);
    talk.signal.throwIfAborted();
  }
}

function ask(talk, path) {
  const url = address(talk, path);
  const isForeign = globalThis.location !== undefined && talk.base.origin !== globalThis.location.origin;
  const headers = talk.token && !isForeign ? { Authorization: `Bearer ${talk.token}` } : {};
  // Another origin is asked with no header of ours, so that a browser need not ask first whether it may.
  if (talk.token && isForeign) url.search += `&access_token=${encodeURIComponent(talk.token)}`;
  return fetch(url, { headers, signal: talk.signal, cache: "no-store" });
}

async function refusal(answer) {
  const { error = "" } = await answer.json().catch(() => ({}));
  const why = error || `the proxy answered ${answer.status}`;
  return { status: answer.status, why, retryAfterS: Number(answer.headers.get("Retry-After")) || 0 };
}
