/**
 * How figures are written for people. A unit is one of the proxy's: ratio, seconds, bytes, per_second, count, state.
 */

const NOTHING = "–";
const SCALES = {
  bytes: [
    [2 ** 30, "GiB"],
    [2 ** 20, "MiB"],
    [2 ** 10, "KiB"],
    [1, "B"],
  ],
  seconds: [
    [3600, "h"],
    [60, "min"],
    [1, "s"],
    [1e-3, "ms"],
    [1e-6, "µs"],
  ],
  per_second: [
    [1e6, "M/s"],
    [1e3, "k/s"],
    [1, "/s"],
  ],
  count: [
    [1e9, "G"],
    [1e6, "M"],
    [1e4, "k", 1e3],
    [1, ""],
  ],
  ratio: [[0.01, "%"]],
};

/** What a number of this size is divided by, and the word behind it. */
export function scaleOf(value, unit) {
  const scales = SCALES[unit] ?? SCALES.count;
  const [least, word, by] =
    scales.find(([from]) => Math.abs(value) >= from) ?? (value ? scales.at(-1) : [1, scales.at(-1)[1]]);
  return { by: by ?? least, word };
}

/** Write a figure with its unit, which no line break parts: 41 µs, 87.4 %, 12.3 k/s. Unknown is a dash. */
export function written(value, unit) {
  const { number, word } = parts(value, unit);
  return word ? `${number}\u00a0${word}` : number;
}

/** The same in two, for those who write the unit smaller. */
export function parts(value, unit) {
  if (value === null || value === undefined || Number.isNaN(value)) return { number: NOTHING, word: "" };
  if (unit === "seconds" && value === 0) return { number: "0", word: "ms" };
  if (unit === "count" && Math.abs(value) < 1e4)
    return { number: rounded(value, Number.isInteger(value) ? 0 : 1), word: "" };
  const { by, word } = scaleOf(value, unit);
  return { number: digits(value / by, word), word };
}

/** Three digits that count, and no more than there are. */
function digits(value, word) {
  const size = Math.abs(value);
  if (word === "B" || word === "") return rounded(value, Number.isInteger(value) ? 0 : 1);
  if (word === "%") return rounded(value, size === 0 || size === 100 ? 0 : size < 0.1 ? 3 : size < 1 ? 2 : 1);
  return rounded(value, size >= 100 || size === 0 ? 0 : size >= 10 ? 1 : word === "/s" ? 1 : 2);
}

function rounded(value, places) {
  return value.toLocaleString("en-US", { minimumFractionDigits: 0, maximumFractionDigits: places });
}

/** Write how long ago something was, or how long it lasts: 4 s, 12 min, 3 h 20 min, 5 days. */
export function lasting(seconds) {
  if (seconds < 1) return "under 1 s";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} days`;
}

/** Write a count with its noun: 1 client, 4 clients. */
export function counted(number, noun) {
  return `${written(number, "count")} ${noun}${number === 1 ? "" : "s"}`;
}
