"""How long does the way back take, and who notices? Run as `python -m bench.unwrap`.

    1,000,000 keys in envelopes --- Redis ---+--- respite unwrap
                                             +--- a Respite that writes none, and an app that reads through it, paced

Half of the keys have a TTL. The app reads one key after the other, with L1 off, so that each read is Redis' own; every
value is checked. Its latency while nothing else runs stands beside that during the unwrapping. In the end every key is
read by a client that knows of no envelopes, and its end is compared with what it was.
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from bench._lib import (
    ROOT,
    BenchError,
    Disturbance,
    machine,
    markdown_table,
    need_programs,
    quantile,
    run_main,
    say,
    write_result,
)
from bench._servers import Rig, Server, versions
from bench.fence import CLASS, batches, key_of, value_of, write_all

READS_PER_S = 500
CALM_S = 10.0
END_S = 600.0
TTL_S = 5_000


@attrs.frozen
class Found:
    """What a run has shown."""

    keys: int
    rate: int
    seconds: float
    unwrapped: int
    calm_p99_ms: float
    busy_p99_ms: float
    busy_max_ms: float
    sealed: int
    wrong: int
    ends_off: int

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """Name each figure, and say what it must be."""
        return [
            ("keys, of which unwrapped", f"{self.keys:,}, {self.unwrapped:,}", "all"),
            (f"seconds, at --rate {self.rate:,}", f"{self.seconds:.1f}", ""),
            ("p99 of a read: before, during, ms", f"{self.calm_p99_ms:.2f}, {self.busy_p99_ms:.2f}", ""),
            ("longest read during it, ms", f"{self.busy_max_ms:.1f}", ""),
            ("values still in an envelope", str(self.sealed), "0"),
            ("values that are wrong", str(self.wrong), "0"),
            ("TTLs off by more than a second", str(self.ends_off), "0"),
        ]


def expire_half(redis: Server, count: int) -> None:
    """Give every other key a TTL."""
    with redis.client() as client:
        for batch in batches(range(0, count, 2)):
            with client.pipeline(transaction=False) as pipeline:
                for number in batch:
                    pipeline.expire(key_of(number), TTL_S + number % 1000)
                pipeline.execute()


def ends_of(redis: Server, count: int) -> list[int]:
    """Ask when each key ends, in ms since 1970, -1 for never."""
    found: list[int] = []
    with redis.client() as client:
        for batch in batches(range(count)):
            with client.pipeline(transaction=False) as pipeline:
                for number in batch:
                    pipeline.pexpiretime(key_of(number))
                found += pipeline.execute()
    return found


def read_paced(through: Server, count: int, size_bytes: int, goes_on: Callable[[], bool]) -> list[float]:
    """Read one key after the other, so many a second, as long as it goes on; return the latencies in seconds."""
    latencies = []
    due = time.perf_counter()
    with through.client() as client:
        for number in itertools.takewhile(lambda _: goes_on(), itertools.count()):
            at = number * 7919 % count
            due = max(due + 1 / READS_PER_S, time.perf_counter() - 1.0)
            time.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            value = client.get(key_of(at))
            latencies.append(time.perf_counter() - began)
            if value != value_of(at, size_bytes).encode():
                raise BenchError(f"{key_of(at)} was read as {value!r:.80}")
    return latencies


def check(redis: Server, options: argparse.Namespace, ends: list[int]) -> tuple[int, int, int]:
    """Read all without Respite; return how many are sealed, how many wrong, and how many TTLs are off."""
    sealed = wrong = 0
    with redis.client() as client:
        for batch in batches(range(options.keys)):
            values = client.mget([key_of(number) for number in batch])
            for number, value in zip(batch, values, strict=True):
                sealed += (value or b"").startswith(b"\xf7\xb2Rv")
                wrong += value != value_of(number, options.value_bytes).encode()
    off = sum(abs(now - then) > 1000 for now, then in zip(ends_of(redis, options.keys), ends, strict=True))
    return sealed, wrong, off


def measure(rig: Rig, options: argparse.Namespace) -> Found:
    """Wrap all, unwrap all."""
    redis = rig.redis("redis")
    sealing = rig.respite("respite-sealing", redis, more=CLASS)
    plain = rig.respite("respite-plain", redis, l1={"enabled": False}, more=CLASS, writes_envelopes=False)
    say(f"writing {options.keys:,} keys")
    write_all(sealing, range(options.keys), options.value_bytes)
    expire_half(redis, options.keys)
    ends = ends_of(redis, options.keys)
    say("reading, with nothing else running")
    end = time.monotonic() + CALM_S
    calm = read_paced(plain, options.keys, options.value_bytes, lambda: time.monotonic() < end)
    say("unwrapping")
    url = f"redis://127.0.0.1:{redis.port}"
    command = [sys.executable, "-m", "proxy", "unwrap", "--upstream", url, "--match", "*", "--json"]
    began = time.monotonic()
    with subprocess.Popen(
        [*command, "--rate", str(options.rate)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            busy = read_paced(
                plain,
                options.keys,
                options.value_bytes,
                lambda: process.poll() is None and time.monotonic() - began < END_S,
            )
            seconds = time.monotonic() - began
            if process.poll() is None:
                raise BenchError(f"not done after {END_S:.0f} s")
            report: dict[str, Any] = json.loads(process.communicate()[0])
        finally:
            process.kill()
    if not report["finished"] or report["left"] or report["damaged"]:
        raise BenchError(f"unwrap says {report}")
    sealed, wrong, off = check(redis, options, ends)
    return Found(
        options.keys,
        options.rate,
        seconds,
        report["unwrapped"],
        1000 * quantile(calm, 0.99),
        1000 * quantile(busy, 0.99),
        1000 * max(busy),
        sealed,
        wrong,
        off,
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.unwrap", description=__doc__.partition("\n")[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=10_000, help="of `respite unwrap`, whose default it is")
    parser.add_argument("--value-bytes", type=int, default=200)
    parser.add_argument("--out", type=Path, help="where to write the figures (default: bench/results)")
    options = parser.parse_args()
    if not 8 <= options.value_bytes <= 65_000:
        raise BenchError("--value-bytes must be between 8 and 65000")
    need_programs(["redis-server"])
    disturbance = Disturbance()
    about = {**machine(), "versions": versions(["redis-server"])}
    with Rig() as rig:
        found = measure(rig, options)
    print(markdown_table(("", "found", "must be"), found.rows))
    result = {
        "script": "unwrap",
        "machine": about,
        "disturbance": disturbance.report(),
        "options": {name: str(value) for name, value in vars(options).items()},
        "summary": attrs.asdict(found),
    }
    say(f"figures: {write_result('unwrap', result, options.out)}")
    if found.sealed or found.wrong or found.ends_off or found.unwrapped != found.keys:
        raise BenchError("not all is as it was")


if __name__ == "__main__":
    run_main(main)
