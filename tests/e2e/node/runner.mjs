// Runs named scenarios one after another and prints one JSON line for each: {"name": ..., "error": ""}.
// Called as `node FILE PORT PROTOCOL`; the exit code is 0 even when scenarios fail, the lines say so.
import { setTimeout as sleep } from "node:timers/promises";

export const port = Number(process.argv[2]);
export const protocol = Number(process.argv[3] ?? 2);
const LIMIT_MS = 15000;

export async function until(isDone, what) {
  const deadline = Date.now() + 5000;
  while (!(await isDone())) {
    if (Date.now() > deadline) throw new Error(`not within 5 s: ${what}`);
    await sleep(5);
  }
}

async function limited(scenario) {
  const timer = new AbortController();
  const late = sleep(LIMIT_MS, undefined, { signal: timer.signal }).then(
    () => Promise.reject(new Error(`no end within ${LIMIT_MS} ms`)),
    () => undefined,
  );
  try {
    await Promise.race([scenario(), late]);
  } finally {
    timer.abort();
  }
}

export async function run(scenarios, before) {
  for (const [name, scenario] of Object.entries(scenarios)) {
    let error = "";
    try {
      await before();
      await limited(scenario);
    } catch (reason) {
      error = String(reason?.stack ?? reason);
    }
    console.log(JSON.stringify({ name, error }));
  }
  process.exit(0);
}
