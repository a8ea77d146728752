// A client of Node for `clients.py`: reads {"id", "words"} or {"id", "drop"} a line, answers {"id", "ok"} or {"id", "error", "closed"}.
// Called as `node node_client.mjs ioredis|redis PORT`. It repeats nothing by itself: who asks decides.
import { createInterface } from "node:readline";

const [library, port] = [process.argv[2], Number(process.argv[3])];
const CLOSED = /closed|ECONN|EPIPE|socket|offline|Connection is/i;

async function openIoredis() {
  const { default: Redis } = await import("ioredis");
  const client = new Redis({
    port,
    host: "127.0.0.1",
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    enableOfflineQueue: false,
    enableReadyCheck: false,
    retryStrategy: () => 50,
  });
  client.on("error", () => {});
  return {
    isReady: () => client.status === "ready",
    call: (words) => client.call(...words),
    drop: () => client.disconnect(true),
  };
}

async function openNodeRedis() {
  const { createClient } = await import("redis");
  const open = () => {
    const made = createClient({
      url: `redis://127.0.0.1:${port}`,
      disableOfflineQueue: true,
      socket: { reconnectStrategy: () => 50 },
    });
    made.on("error", () => {});
    made.connect().catch(() => {});
    return made;
  };
  let client = open();
  return {
    isReady: () => client.isReady,
    call: (words) => client.sendCommand(words),
    drop: () => {
      client.destroy();
      client = open();
    },
  };
}

const client = await (library === "ioredis" ? openIoredis() : openNodeRedis());
const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

for await (const line of createInterface({ input: process.stdin })) {
  const { id, words, drop } = JSON.parse(line);
  if (drop) {
    client.drop();
    say({ id, ok: true });
    continue;
  }
  if (!client.isReady()) {
    say({ id, error: "not connected", closed: true, unsent: true });
    continue;
  }
  client.call(words).then(
    (ok) => say({ id, ok }),
    (reason) => say({ id, error: String(reason?.message ?? reason), closed: CLOSED.test(String(reason)) }),
  );
}
process.exit(0);
