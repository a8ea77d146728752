// The everyday work of an app with node-redis, in the protocol that the command line names.
import assert from "node:assert/strict";
import { createClient, defineScript, WatchError } from "redis";
import { port, protocol, run, until } from "./runner.mjs";

const scripts = {
  setget: defineScript({
    NUMBER_OF_KEYS: 1,
    SCRIPT: "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])",
    parseCommand(parser, key, value) {
      parser.pushKey(key);
      parser.push(value);
    },
    transformReply: undefined,
  }),
};
const open = async (options = {}) => {
  const made = createClient({ url: `redis://127.0.0.1:${port}`, RESP: protocol, scripts, ...options });
  made.on("error", (reason) => console.error(reason));
  await made.connect();
  return made;
};
const client = await open();
const other = await open();
const blocked = async () => /blocked_clients:1/.test(await client.info("clients"));

const scenarios = {
  async "values keep their types"() {
    await client.set("s", "text", { expiration: { type: "EX", value: 100 } });
    await client.hSet("h", { a: "1", b: "two" });
    await client.zAdd("z", [{ score: 1, value: "low" }, { score: 2.5, value: "high" }]);
    for (let index = 0; index < 3; index += 1) assert.equal(await client.get("s"), "text");
    assert.deepEqual({ ...(await client.hGetAll("h")) }, { a: "1", b: "two" });
    assert.deepEqual(
      (await client.zRangeWithScores("z", 0, -1)).map((member) => ({ ...member })),
      [{ score: 1, value: "low" }, { score: 2.5, value: "high" }],
    );
    assert.equal(await client.get("none"), null);
    assert.deepEqual(await client.mGet(["s", "none"]), ["text", null]);
  },

  async "one connection reads what another wrote"() {
    for (let index = 0; index < 200; index += 1) {
      await client.set("k", String(index));
      assert.equal(await other.get("k"), String(index));
      assert.equal(await client.get("k"), String(index));
    }
  },

  async "automatic pipelines keep order"() {
    const work = async (index) => {
      await client.set(`k${index}`, String(index));
      return client.get(`k${index}`);
    };
    const replies = await Promise.all(Array.from({ length: 500 }, (_, index) => work(index)));
    assert.deepEqual(replies, Array.from({ length: 500 }, (_, index) => String(index)));
  },

  async "transactions"() {
    assert.deepEqual(await client.multi().set("a", "1").incr("a").get("a").exec(), ["OK", 2, "2"]);
    const watcher = await open();
    await watcher.watch("a");
    await other.set("a", "9");
    await assert.rejects(watcher.multi().set("a", "3").exec(), WatchError);
    assert.equal(await client.get("a"), "9");
    watcher.destroy();
  },

  async "publish and subscribe"() {
    const subscriber = await open();
    const received = [];
    await subscriber.subscribe("news", (message, channel) => received.push(`${channel}:${message}`));
    await subscriber.pSubscribe("n*", (message, channel) => received.push(`n*:${channel}:${message}`));
    for (let index = 0; index < 50; index += 1) await client.publish("news", String(index));
    await until(() => received.length === 100, "the messages");
    assert.deepEqual(received.slice(0, 2), ["news:0", "n*:news:0"]);
    if (protocol === 3) assert.equal(await subscriber.get("none"), null);
    await subscriber.unsubscribe("news");
    assert.equal(await client.publish("news", "again"), 1);
    subscriber.destroy();
    await until(async () => (await client.publish("news", "nobody")) === 0, "the end of the subscription");
  },

  async "blocking pops"() {
    const waiting = await open();
    const popped = waiting.blPop(["q1", "q2"], 5);
    await until(blocked, "the blocked client");
    await client.rPush("q2", "job");
    assert.deepEqual({ ...(await popped) }, { key: "q2", element: "job" });
    assert.equal(await waiting.brPop("empty", 0.05), null);
    waiting.destroy();
  },

  async "streams with a consumer group"() {
    await client.xGroupCreate("events", "workers", "0", { MKSTREAM: true });
    const ids = [];
    for (let index = 0; index < 6; index += 1) ids.push(await client.xAdd("events", "*", { n: String(index) }));
    const from = { key: "events", id: ">" };
    const first = await client.xReadGroup("workers", "one", from, { COUNT: 4 });
    const second = await other.xReadGroup("workers", "two", from, { BLOCK: 1000 });
    // The shape of these replies differs between versions and protocols of the library; the ids do not.
    assert.deepEqual(JSON.stringify([first, second]).match(/\d{13}-\d+/g), ids);
    assert.equal(await client.xAck("events", "workers", ids), 6);
  },

  async "scripts"() {
    await client.set("sk", "before");
    assert.equal(await client.get("sk"), "before");
    assert.equal(await client.setget("sk", "one"), "one");
    assert.equal(await client.get("sk"), "one");
    await client.scriptFlush();
    assert.equal(await client.setget("sk", "two"), "two");
    assert.equal(await other.get("sk"), "two");
  },

  async "scan iterators and databases"() {
    await client.mSet(Object.fromEntries(Array.from({ length: 300 }, (_, index) => [`scan:${index}`, String(index)])));
    const found = new Set();
    for await (const keys of client.scanIterator({ MATCH: "scan:*", COUNT: 20 })) [keys].flat().forEach((key) => found.add(key));
    assert.equal(found.size, 300);
    const three = await open({ database: 3, name: "three" });
    await three.set("k", "three");
    assert.equal(await client.get("k"), null);
    assert.equal(await three.clientGetName(), "three");
    three.destroy();
  },

  async "big values"() {
    const value = "v\r\n$".repeat(1024 * 1024);
    await client.set("blob", value);
    assert.equal(await client.get("blob"), value);
    assert.equal(await other.get("blob"), value);
  },
};

await run(scenarios, () => client.flushAll());
