"""How much does an app notice when Redis is restarted? Run as `python -m bench.restarts`.

Paced redis-py clients, 9 reads to a write, zipf keys, through Respite, while Redis is killed with -9 and started again
every so often, with its data (AOF). A client that reads an error counts it and goes on, on the same connection.

    error rate   answers that are errors, of all
    away         from the kill until Redis answers a PING again
    recovery     from then until a read of a key that L1 does not hold is answered through Respite
"""

import argparse
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import attrs
import redis

from bench._lib import (
    BenchError,
    Disturbance,
    ZipfKeys,
    machine,
    markdown_table,
    need_programs,
    run_main,
    say,
    spread,
    write_result,
)
from bench._servers import Rig, Server, versions

KEYS = 20_000
VALUE = b"v" * 500
READ_SHARE = 0.9
RECOVERED_WITHIN_S = 30.0
WANTED_ERROR_RATE = 0.005


@attrs.frozen
class Outage:
    """One restart, in seconds."""

    away_s: float
    recovery_s: float


@attrs.define
class Client:
    """One client of an app."""

    port: int
    seed: int
    interval_s: float
    answers: int = 0
    errors: int = 0
    longest_s: float = 0.0
    broken: str = ""
    """What ended it: it must not end by itself."""

    def run(self, stop: threading.Event) -> None:
        """Read and write until told to stop."""
        draw = random.Random(self.seed)
        keys = ZipfKeys(KEYS, 0.99, self.seed).take(100_000)
        try:
            with redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=10) as client:
                while not stop.wait(self.interval_s * (0.5 + draw.random())):
                    key = f"key:{keys[self.answers % len(keys)]}"
                    began = time.monotonic()
                    try:
                        if draw.random() < READ_SHARE:
                            client.get(key)
                        else:
                            client.set(key, VALUE)
                    except redis.RedisError:
                        self.errors += 1
                    self.answers += 1
                    self.longest_s = max(self.longest_s, time.monotonic() - began)
        except Exception as error:
            self.broken = f"{type(error).__name__}: {error}"


def restart(rig: Rig, upstream: Server, through: "redis.Redis") -> tuple[Server, Outage]:
    """Kill Redis and start it again; return it, and how long that and what followed took."""
    killed_at = time.monotonic()
    upstream = rig.restart(upstream)
    back_at = time.monotonic()
    number = 0
    while True:
        number += 1
        try:
            through.get(f"never:{back_at}:{number}")
        except redis.RedisError as error:
            if time.monotonic() - back_at > RECOVERED_WITHIN_S:
                raise BenchError(f"still not served: {error}") from error
            time.sleep(0.002)
        else:
            return upstream, Outage(back_at - killed_at, time.monotonic() - back_at)


def measure(rig: Rig, options: argparse.Namespace) -> tuple[list[Outage], list[Client], dict[str, object]]:
    """Run the clients, restart Redis beneath them."""
    upstream = rig.redis("redis", keeps=True)
    with upstream.client() as direct:
        for at in range(0, KEYS, 1000):
            direct.mset({f"key:{number}": VALUE for number in range(at, at + 1000)})
    respite = rig.respite("respite", upstream)
    clients = [Client(respite.port, number, options.clients / options.per_second) for number in range(options.clients)]
    stop = threading.Event()
    threads = [threading.Thread(target=client.run, args=(stop,)) for client in clients]
    outages: list[Outage] = []
    for thread in threads:
        thread.start()
    try:
        with respite.client() as through:
            for number in range(options.restarts):
                time.sleep(options.every)
                upstream, outage = restart(rig, upstream, through)
                outages.append(outage)
                away_ms, recovery_ms = outage.away_s * 1000, outage.recovery_s * 1000
                say(f"restart {number + 1}/{options.restarts}: away {away_ms:.0f} ms, then {recovery_ms:.0f} ms")
            time.sleep(options.every)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for client in clients:
        if client.broken:
            raise BenchError(f"a client was cut off: {client.broken}")
    return outages, clients, respite.stats()


def print_table(outages: Sequence[Outage], clients: Sequence[Client]) -> None:
    """Print what was found."""
    answers, errors = sum(one.answers for one in clients), sum(one.errors for one in clients)
    rows = [
        ("answers, all of them", f"{answers}", ""),
        ("error rate", f"{errors / answers:.3%}", f"below {WANTED_ERROR_RATE:.1%}"),
        ("Redis away, ms", spread([one.away_s for one in outages]).text(0, 1000), ""),
        (
            "recovery, ms",
            spread([one.recovery_s for one in outages]).text(0, 1000),
            f"below {RECOVERED_WITHIN_S:.0f} s, in practice 2 s",
        ),
        ("longest a client waited, ms", f"{max(one.longest_s for one in clients) * 1000:.0f}", ""),
    ]
    print(markdown_table(("what", "found", "wanted"), rows))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--every", type=float, default=60.0, help="seconds from one restart to the next")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--per-second", type=float, default=500.0, help="calls of all clients together")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    options = parser.parse_args()
    need_programs(["redis-server"])
    disturbance = Disturbance()
    with Rig() as rig:
        outages, clients, stats = measure(rig, options)
    print_table(outages, clients)
    result = {
        "machine": machine(),
        "versions": versions(["redis-server"]),
        "options": {name: str(value) for name, value in vars(options).items()},
        "disturbed": disturbance.report(),
        "outages": [attrs.asdict(one) for one in outages],
        "clients": [attrs.asdict(one) for one in clients],
        "stats": stats,
    }
    say(f"written to {write_result('restarts', result, options.out)}")


if __name__ == "__main__":
    run_main(main)
