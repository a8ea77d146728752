// The world of a page for tests of respite.js: a clock that is moved by hand, sockets and answers that a test scripts.
// Owns the globals that the client uses; import it before anything waits.
import assert from "node:assert/strict";
import { setImmediate as turn } from "node:timers/promises";

export const world = { now: 0, timers: new Map(), sockets: [], requests: [], number: 0, errors: [], chance: 1 };
globalThis.setTimeout = (callback, ms) => {
  world.timers.set((world.number += 1), { at: world.now + ms, callback });
  return world.number;
};
globalThis.clearTimeout = (number) => world.timers.delete(number);
globalThis.reportError = (error) => world.errors.push(error.message);
Date.now = () => world.now;
Math.random = () => world.chance;

export async function settle() {
  for (let count = 0; count < 20; count += 1) await turn();
}

/** Move the clock on; what is due happens in its order. */
export async function pass(ms) {
  const until = world.now + ms;
  for (;;) {
    await settle();
    const [next] = [...world.timers].filter(([, { at }]) => at <= until).sort((a, b) => a[1].at - b[1].at);
    if (!next) break;
    world.timers.delete(next[0]);
    world.now = Math.max(world.now, next[1].at);
    next[1].callback();
  }
  world.now = until;
}

export class FakeSocket {
  sent = [];
  isClosed = false;

  constructor(url, protocols) {
    Object.assign(this, { url: String(url), protocols });
    world.sockets.push(this);
    if (FakeSocket.isRefused) queueMicrotask(() => this.onclose?.({ code: 1006, reason: "" }));
    else if (FakeSocket.greets) queueMicrotask(() => this.greet());
  }

  greet(cursor = "E-0") {
    this.onopen?.();
    this.say({ type: "hello", cursor, heartbeat_s: 15, complete: true });
  }

  say(message) {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  drop() {
    this.onclose?.({ code: 1006, reason: "" });
  }

  close() {
    this.isClosed = true;
  }
}

/** A stream of events that the proxy writes into. */
export function eventStream(signal) {
  let writer;
  const body = new ReadableStream({ start: (controller) => (writer = controller) });
  const encoder = new TextEncoder();
  signal.addEventListener("abort", () => writer.error(signal.reason));
  return {
    answer: new Response(body, { headers: { "Content-Type": "text/event-stream" } }),
    write: (text) => writer.enqueue(encoder.encode(text)),
    end: () => writer.close(),
  };
}

export const GREETING = 'data: {"type":"hello","cursor":"E-0","heartbeat_s":15,"complete":true}\nid: E-0\n\n';
export const answers = { events: null, changes: null };
globalThis.fetch = async (url, { headers, signal }) => {
  signal.throwIfAborted();
  const path = url.pathname.slice(1);
  const request = { path, url: String(url), headers };
  world.requests.push(request);
  if (!answers[path]) throw new TypeError("fetch failed");
  return answers[path](request, signal);
};

export function reset() {
  world.timers.clear();
  world.chance = 1;
  world.sockets.length = world.requests.length = world.errors.length = 0;
  globalThis.WebSocket = FakeSocket;
  FakeSocket.isRefused = false;
  FakeSocket.greets = true;
  answers.events = answers.changes = null;
}

export const json = (body, status = 200, headers = {}) => new Response(JSON.stringify(body), { status, headers });
export const update = (channel, more = {}) => ({ type: "update", channel, keys: [channel], cause: "write", ...more });

/** Whatever it did, a client without subscriptions has left nothing running. */
export function isQuiet() {
  assert.deepEqual(
    [...world.timers.values()].map(({ at }) => at),
    [],
  );
  assert.ok(world.sockets.every((socket) => socket.isClosed));
}
