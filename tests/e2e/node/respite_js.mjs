// respite.js alone, in the world of page_world.mjs: nothing here waits, or uses a socket.
// Called as `node respite_js.mjs PATH/respite.js`; prints a line a scenario, as runner.mjs does.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import {
  answers,
  eventStream,
  FakeSocket,
  GREETING,
  isQuiet,
  json,
  pass,
  reset,
  settle,
  update,
  world,
} from "./page_world.mjs";
import { run } from "./runner.mjs";

const source = readFileSync(process.argv[2], "utf-8");
const { Respite } = await import(`data:text/javascript,${encodeURIComponent(source)}`);

/** A client with one subscription; what it heard and the states it went through. */
function listen(channels = "a", options = {}) {
  const client = new Respite({ url: "http://127.0.0.1:6390", ...options });
  const [heard, states] = [[], []];
  client.onstate = ({ state, transport }) => states.push(transport ? `${state} ${transport}` : state);
  const stop = client.subscribe(channels, (message) => heard.push(message));
  return { client, heard, states, stop };
}

const scenarios = {
  async "many callers share one connection, and each hears its own channels"() {
    const { client, heard, stop } = listen(["a", "b*"]);
    const others = [];
    const stopOther = client.subscribe("a", (message) => others.push(message.channel));
    await settle();
    const [socket] = world.sockets;

    socket.say(update("a"));
    socket.say(update("b*"));

    assert.equal(world.sockets.length, 1);
    assert.equal(socket.url, "ws://127.0.0.1:6390/ws?channels=a,b*");
    assert.deepEqual(
      heard.map(({ channel }) => channel),
      ["a", "b*"],
    );
    assert.deepEqual(others, ["a"]);
    stopOther();
    stopOther();
    socket.say(update("a"));
    assert.equal(others.length, 1);
    assert.equal(heard.length, 3);
    stop();
    await settle();
    isQuiet();
  },

  async "a channel with a comma in it is one channel, bytes that are no UTF-8 are themselves, nothing else fails"() {
    listen(["a,b", "ü"]).stop();
    const { client } = listen(["a,b", "ü\u{1f600}", "a\udcff\udc80", "\ud800"]);
    await settle();

    const query = "channels=a%2Cb,%C3%BC%F0%9F%98%80,a%ff%80,%EF%BF%BD";
    assert.equal(world.sockets.at(-1).url, `ws://127.0.0.1:6390/ws?${query}`);
    client.close();
  },

  async "further channels go over the open socket, all of one turn at once; what nobody wants is given back"() {
    const { client } = listen("a");
    await settle();
    const [socket] = world.sockets;

    const stops = ["b", "c"].map((channel) => client.subscribe(channel, () => {}));
    client.subscribe("a", () => {});
    await settle();
    stops[0]();
    const again = client.subscribe("b", () => {});
    stops[1]();
    await settle();

    assert.deepEqual(socket.sent, [
      { subscribe: ["b", "c"], unsubscribe: [] },
      { subscribe: [], unsubscribe: ["c"] },
    ]);
    again();
    client.close();
    await settle();
    isQuiet();
  },

  async "a channel that is added while the connection is being made is asked for"() {
    FakeSocket.greets = false;
    const { client } = listen("a");
    await settle();
    client.subscribe("b", () => {});
    await settle();

    assert.deepEqual(
      world.sockets.map(({ url }) => url.split("=")[1]),
      ["a", "a,b"],
    );
    assert.ok(world.sockets[0].isClosed);
    client.close();
  },

  async "after a cut it goes on from the last cursor, after a pause that grows"() {
    const { client, states } = listen();
    await settle();
    world.sockets[0].say(update("a", { cursor: "E-7" }));
    FakeSocket.isRefused = true;
    const tries = [];
    world.sockets[0].drop();
    for (let at = 0; at < 70_000; at += 100) {
      const before = world.sockets.length;
      await pass(100);
      if (world.sockets.length > before) tries.push((at + 100) / 1000);
    }

    assert.deepEqual(tries, [0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5]);
    assert.ok(world.sockets.at(-1).url.endsWith("&since=E-7"));
    assert.deepEqual([states[0], states[1], ...new Set(states.slice(2))], ["connecting", "live websocket", "waiting"]);
    FakeSocket.isRefused = false;
    await pass(30_000);
    assert.equal(client.state.state, "live");
    client.close();
    await settle();
    isQuiet();
  },

  async "chance shortens a pause by half at most, so that not all come back at once"() {
    world.chance = 0;
    const { client } = listen();
    await settle();
    world.sockets[0].drop();
    await pass(240);
    assert.equal(world.sockets.length, 1);
    await pass(20);

    assert.equal(world.sockets.length, 2);
    client.close();
  },

  async "a connection that lasted makes the next pause a short one again"() {
    const { client } = listen();
    for (let count = 1; count < 6; count += 1) {
      await pass(11_000);
      world.sockets.at(-1).drop();
      await pass(500);
      assert.equal(world.sockets.length, count + 1);
    }
    client.close();
  },

  async "a greeting alone is no progress: cut right after it, it asks again for what was missed"() {
    const { client } = listen();
    await settle();
    world.sockets[0].say(update("a", { cursor: "E-7" }));
    FakeSocket.greets = false;
    world.sockets[0].drop();
    await pass(500);
    world.sockets[1].greet("E-9");
    world.sockets[1].drop();
    await pass(1_000);

    assert.ok(world.sockets[2].url.endsWith("&since=E-7"));
    client.close();
  },

  async "what the proxy refuses of a live connection is shown"() {
    const { client } = listen();
    await settle();
    world.sockets[0].say({ type: "error", error: "your token does not cover b" });

    assert.deepEqual([client.state.state, client.state.why], ["live", "your token does not cover b"]);
    client.close();
  },

  async "where there is no WebSocket it hears events, and resumes them by their id"() {
    FakeSocket.isRefused = true;
    let stream;
    answers.events = (_request, signal) => (stream = eventStream(signal)).answer;
    const { client, heard, states } = listen("a", { token: "s3cret" });
    await settle();
    stream.write("retry: 1000\n\n" + GREETING);
    await settle();
    const text = `data: ${JSON.stringify(update("a"))}\nid: E-5\n\n`;
    stream.write(text.slice(0, 20));
    await settle();
    stream.write(text.slice(20) + ":\n\n");
    await settle();

    assert.deepEqual(heard, [update("a", { cursor: "E-5" })]);
    assert.deepEqual(states, ["connecting", "live events"]);
    assert.equal(world.requests[0].headers.Authorization, "Bearer s3cret");
    stream.end();
    await pass(500);
    assert.ok(world.requests.at(-1).url.endsWith("/events?channels=a&since=E-5"));
    client.close();
    await settle();
    isQuiet();
  },

  async "where nothing else arrives it polls, as often as it is told to"() {
    FakeSocket.isRefused = true;
    answers.events = () => json({ error: "no stream here" }, 404);
    const told = [
      { cursor: "E-1", changes: [], poll_after_ms: 10_000 },
      { cursor: "E-4", changes: [update("a"), update("a")], poll_after_ms: 12_000 },
      { cursor: "E-4", changes: [], poll_after_ms: 60_000 },
    ];
    const at = [];
    answers.changes = () => {
      at.push(world.now);
      return json(told[Math.min(at.length, told.length) - 1]);
    };
    const begun = world.now;
    const { client, heard, states } = listen();
    await pass(25_000);

    assert.deepEqual(
      at.map((time) => time - begun),
      [0, 10_000, 22_000],
    );
    assert.deepEqual(states, ["connecting", "live polling"]);
    assert.equal(heard.length, 2);
    const polls = world.requests.filter(({ path }) => path === "changes").map(({ url }) => url.split("?")[1]);
    assert.deepEqual(polls, ["channels=a", "channels=a&since=E-1", "channels=a&since=E-4"]);
    client.close();
    await settle();
    isQuiet();
  },

  async "from a lesser way it goes back to the better one as soon as that can be had, from where it is"() {
    FakeSocket.isRefused = true;
    answers.changes = () => json({ cursor: "E-9", changes: [], poll_after_ms: 10_000 });
    const { client, states } = listen();
    await pass(85_000);
    assert.equal(world.sockets.length, 2); // at the start, and once more after 30 s
    FakeSocket.isRefused = false;
    await pass(10_000); // and after 60 s more

    assert.deepEqual(states, ["connecting", "live polling", "live websocket"]);
    assert.ok(world.sockets.at(-1).url.endsWith("since=E-9"));
    assert.ok(world.sockets.at(-2).isClosed);
    assert.ok(!world.sockets.at(-1).isClosed);
    client.close();
    await settle();
    isQuiet();
  },

  async "what was lost is told to everybody once, whatever they listen to"() {
    const { client, heard } = listen(["a", "b"]);
    const others = [];
    client.subscribe("c", (message) => others.push(message));
    await settle();

    world.sockets[0].say({ type: "lost", count: 12, cursor: "E-90" });

    assert.deepEqual(heard, [{ type: "lost", count: 12, cursor: "E-90" }]);
    assert.deepEqual(others, heard);
    client.close();
  },

  async "a callback that fails costs the others nothing"() {
    const client = new Respite({ url: "http://127.0.0.1:6390" });
    const heard = [];
    client.subscribe("a", () => {
      throw new Error("oh");
    });
    client.subscribe("a", (message) => heard.push(message));
    await settle();

    world.sockets[0].say(update("a"));

    assert.equal(heard.length, 1);
    assert.deepEqual(world.errors, ["oh"]);
    client.close();
  },

  async "a page that fails when it is told of the state loses nothing by it"() {
    const { client, heard } = listen();
    const states = [];
    client.onstate = ({ state }) => {
      states.push(state);
      throw new Error(state);
    };
    await settle();
    world.sockets[0].drop();
    await pass(500);
    world.sockets[1].say(update("a"));

    assert.deepEqual(states, ["live", "waiting", "live"]);
    assert.deepEqual(world.errors, states);
    assert.equal(heard.length, 1);
    client.onstate = null;
    client.close();
    await settle();
    isQuiet();
  },

  async "a silent socket is asked for a sign of life; one that gives none is replaced"() {
    const { client, states } = listen();
    await settle();
    const [socket] = world.sockets;

    await pass(37_500);
    assert.deepEqual(socket.sent, [{ subscribe: [] }]);
    socket.say({ type: "subscribed", channels: ["a"] });
    await pass(37_500);
    assert.equal(socket.sent.length, 2);
    assert.equal(world.sockets.length, 1);
    await pass(5_000);
    await pass(500);

    assert.equal(world.sockets.length, 2);
    assert.ok(socket.isClosed);
    assert.deepEqual(states, ["connecting", "live websocket", "waiting", "live websocket"]);
    client.close();
    await settle();
    isQuiet();
  },

  async "a proxy that does not greet counts as none"() {
    FakeSocket.greets = false;
    const { client } = listen();
    await pass(5_000);

    assert.deepEqual(
      world.requests.map(({ path }) => path),
      ["events", "changes"],
    );
    client.close();
    await settle();
    isQuiet();
  },

  async "without the right token it says so, and another one is tried at once"() {
    FakeSocket.isRefused = true;
    answers.events = ({ headers }, signal) => {
      if (headers.Authorization !== "Bearer right (one)") return json({ error: "this admin port wants a token" }, 401);
      const stream = eventStream(signal);
      stream.write(GREETING);
      return stream.answer;
    };
    const { client, states } = listen();
    await pass(1_000);
    assert.deepEqual(states, ["connecting", "unauthorized"]);
    assert.equal(client.state.why, "this admin port wants a token");
    assert.deepEqual(world.sockets[0].protocols, []);

    client.token = "right (one)";
    await settle();

    assert.deepEqual(states, ["connecting", "unauthorized", "live events"]);
    assert.deepEqual(world.sockets[1].protocols, ["respite", "respite.token.right%20%28one%29"]);
    client.close();
  },

  async "a full proxy is asked again when it said so, not before"() {
    FakeSocket.isRefused = true;
    answers.events = answers.changes = () => json({ error: "as many as may be" }, 503, { "Retry-After": "20" });
    const { client } = listen();
    await pass(19_900);
    assert.equal(world.sockets.length, 1);
    await pass(200);

    assert.equal(world.sockets.length, 2);
    assert.equal(client.state.why, "as many as may be");
    client.close();
  },

  async "once closed it is silent, and a new subscription opens it again"() {
    const { client, heard, states } = listen();
    await settle();
    client.close();
    await settle();
    isQuiet();
    world.sockets[0].say(update("a"));
    assert.deepEqual(heard, []);

    client.subscribe("b", () => {});
    await settle();

    assert.deepEqual(states, ["connecting", "live websocket", "idle", "connecting", "live websocket"]);
    client.close();
    await settle();
    isQuiet();
  },
};

await run(scenarios, async () => reset());
