// The everyday work of an app with ioredis.
import assert from "node:assert/strict";
import Redis from "ioredis";
import { port, run, until } from "./runner.mjs";

const open = (options = {}) => new Redis({ port, host: "127.0.0.1", ...options });
const client = open();
const other = open();

const scenarios = {
  async "values keep their types"() {
    await client.set("s", "text", "EX", 100);
    await client.hset("h", { a: 1, b: "two" });
    await client.rpush("l", "x", "y");
    await client.zadd("z", 1, "low", 2.5, "high");
    for (let index = 0; index < 3; index += 1) assert.equal(await client.get("s"), "text");
    assert.deepEqual(await client.hgetall("h"), { a: "1", b: "two" });
    assert.deepEqual(await client.lrange("l", 0, -1), ["x", "y"]);
    assert.deepEqual(await client.zrange("z", 0, -1, "WITHSCORES"), ["low", "1", "high", "2.5"]);
    assert.equal(await client.get("none"), null);
    assert.deepEqual(await client.mget("s", "none"), ["text", null]);
    assert.deepEqual(await client.getBuffer("s"), Buffer.from("text"));
  },

  async "one connection reads what another wrote"() {
    for (let index = 0; index < 200; index += 1) {
      await client.set("k", index);
      assert.equal(await other.get("k"), String(index));
      assert.equal(await client.get("k"), String(index));
    }
  },

  async "automatic pipelines keep order"() {
    const automatic = open({ enableAutoPipelining: true });
    const replies = await Promise.all(
      Array.from({ length: 500 }, (_, index) => automatic.set(`k${index}`, index).then(() => automatic.get(`k${index}`))),
    );
    assert.deepEqual(replies, Array.from({ length: 500 }, (_, index) => String(index)));
    automatic.disconnect();
  },

  async "pipelines bring errors in their places"() {
    const replies = await client.pipeline().set("a", "x").incr("a").get("a").exec();
    assert.equal(replies[0][1], "OK");
    assert.match(replies[1][0].message, /not an integer/);
    assert.equal(replies[2][1], "x");
  },

  async "transactions"() {
    const done = await client.multi().set("a", 1).incr("a").get("a").exec();
    assert.deepEqual(done.map((reply) => reply[1]), ["OK", 2, "2"]);
    await client.watch("a");
    await other.set("a", 9);
    assert.equal(await client.multi().set("a", 3).exec(), null);
    assert.equal(await client.get("a"), "9");
    await client.multi({ pipeline: false });
    await client.set("a", 5);
    assert.deepEqual(await client.exec(), ["OK"].map((reply) => [null, reply]));
  },

  async "publish and subscribe"() {
    const subscriber = open();
    const received = [];
    subscriber.on("message", (channel, message) => received.push(`${channel}:${message}`));
    subscriber.on("pmessage", (pattern, channel, message) => received.push(`${pattern}:${channel}:${message}`));
    await subscriber.subscribe("news");
    await subscriber.psubscribe("n*");
    for (let index = 0; index < 50; index += 1) await client.publish("news", index);
    await until(() => received.length === 100, "the messages");
    assert.deepEqual(received.slice(0, 4), ["news:0", "n*:news:0", "news:1", "n*:news:1"]);
    await subscriber.unsubscribe("news");
    assert.equal(await client.publish("news", "again"), 1);
    subscriber.disconnect();
    await until(async () => (await client.publish("news", "nobody")) === 0, "the end of the subscription");
  },

  async "blocking pops"() {
    const waiting = open();
    const popped = waiting.blpop("q1", "q2", 5);
    await until(async () => /blocked_clients:1/.test(await client.info("clients")), "the blocked client");
    await client.rpush("q2", "job");
    assert.deepEqual(await popped, ["q2", "job"]);
    assert.equal(await waiting.brpop("empty", 0.05), null);
    waiting.disconnect();
  },

  async "streams with a consumer group"() {
    await client.xgroup("CREATE", "events", "workers", "0", "MKSTREAM");
    const ids = [];
    for (let index = 0; index < 6; index += 1) ids.push(await client.xadd("events", "*", "n", index));
    const first = await client.xreadgroup("GROUP", "workers", "one", "COUNT", 4, "STREAMS", "events", ">");
    const second = await other.xreadgroup("GROUP", "workers", "two", "BLOCK", 1000, "STREAMS", "events", ">");
    const seen = [...first[0][1], ...second[0][1]].map((entry) => entry[0]);
    assert.deepEqual(seen, ids);
    assert.equal(await client.xack("events", "workers", ...ids), 6);
    const late = other.xread("BLOCK", 5000, "STREAMS", "events", "$");
    await until(async () => /blocked_clients:1/.test(await client.info("clients")), "the blocked reader");
    const id = await client.xadd("events", "*", "n", "late");
    assert.equal((await late)[0][1][0][0], id);
  },

  async "scripts"() {
    client.defineCommand("setget", { numberOfKeys: 1, lua: "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])" });
    await client.set("sk", "before");
    assert.equal(await client.get("sk"), "before");
    assert.equal(await client.setget("sk", "one"), "one");
    assert.equal(await client.get("sk"), "one");
    await client.script("FLUSH");
    assert.equal(await client.setget("sk", "two"), "two");
    assert.equal(await other.get("sk"), "two");
  },

  async "scan streams and databases"() {
    await client.mset(...Array.from({ length: 300 }, (_, index) => [`scan:${index}`, index]).flat());
    const found = new Set();
    for await (const keys of client.scanStream({ match: "scan:*", count: 20 })) keys.forEach((key) => found.add(key));
    assert.equal(found.size, 300);
    const three = open({ db: 3, connectionName: "three" });
    await three.set("k", "three");
    assert.equal(await client.get("k"), null);
    assert.equal(await three.client("GETNAME"), "three");
    three.disconnect();
  },

  async "big binary values"() {
    const value = Buffer.alloc(4 * 1024 * 1024, Buffer.from([0, 13, 10, 255, 36]));
    await client.set("blob", value);
    assert.ok(value.equals(await client.getBuffer("blob")));
    assert.ok(value.equals(await other.getBuffer("blob")));
  },
};

await run(scenarios, () => client.flushall());
