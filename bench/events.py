"""From a published event to the moment no proxy serves the old value. Run as `python -m bench.events`.

    latency     two proxies hold a value in L1; the event that drops it is published among others (`--rate` a second);
                measured is the time until both, asked every fifth of a millisecond, serve it no more
    broker      the same events without a proxy: the time until a plain consumer has them, which is the broker's part
    throughput  a backlog of events, one exact key each, drained by one proxy of one worker; a client that reads from
                L1 at an even pace has its GETs timed before, and while it lasts

The broker, Redis and the proxies share the machine with all that measures them.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import attrs
import pika

from bench._lib import (
    BenchError,
    Disturbance,
    machine,
    markdown_table,
    need_programs,
    quantile,
    run_main,
    say,
    spread,
    write_result,
)
from bench._servers import Rig, Server, versions
from bench.connections import open_connection
from bench.relay import sharpen_timers
from tests.amqp.broker import RabbitMq

EXCHANGE: Final = "respite.events"
NIL: Final = b"$-1\r\n"
WAIT_S: Final = 20.0
PROBES_A_SECOND: Final = 25
PAUSE_S: Final = 0.0002
BATCH: Final = 500
GOALS_MS: Final = (3.0, 20.0)  # p50, p99 from publishing to both tiers of both proxies
GOAL_PER_S: Final = 10_000
GOAL_P99: Final = 2.0  # GETs while a backlog is drained, beside those without


def request(*words: str) -> bytes:
    """Write a command as clients do."""
    return f"*{len(words)}\r\n".encode() + b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in words)


def event(key: str) -> bytes:
    """Write an event about one key."""
    return json.dumps({"keys": [key]}).encode()


class Channel:
    """A publisher."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()

    def publish(self, key: str) -> None:
        """Announce that a key has changed."""
        self._channel.basic_publish(EXCHANGE, "bench", event(key))

    def close(self) -> None:
        """Let go."""
        self._connection.close()


def publish_steadily(url: str, rate: float, seconds: float) -> None:
    """Announce changes of keys that nobody reads: what goes on besides."""
    channel = Channel(url)
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        channel.publish(f"load:{number}")
        ahead = number / rate - (time.monotonic() - began)
        if ahead > 0.002:
            time.sleep(ahead)
    channel.close()


def publish_backlog(url: str, count: int) -> None:
    """Announce so many changes as fast as it goes."""
    channel = Channel(url)
    for number in range(count):
        channel.publish(f"backlog:{number}")
    channel.close()


def get(client: socket.socket, raw: bytes) -> bytes:
    """Ask, and return the reply, which is a short one."""
    client.sendall(raw)
    return client.recv(65536)


def probe(clients: Sequence[socket.socket], redis: socket.socket, channel: Channel, key: str) -> float:
    """Cache a key everywhere, announce its change; return the seconds until no proxy serves it."""
    raw = request("GET", key)
    get(redis, request("SET", key, "old"))
    for client in clients:
        if get(client, raw) != b"$3\r\nold\r\n" or get(client, raw) != b"$3\r\nold\r\n":
            raise BenchError(f"{key} is not cached")
    began = time.monotonic()
    channel.publish(key)
    serving = list(clients)
    while serving:
        serving = [client for client in serving if get(client, raw) != NIL]
        time.sleep(PAUSE_S)  # asked without one, the proxies would do little but answer
        if time.monotonic() - began > WAIT_S:
            raise BenchError(f"{key} is still served after {WAIT_S:.0f} s")
    return time.monotonic() - began


def child(what: str, *words: object) -> "subprocess.Popen[bytes]":
    """Run one of the publishers as a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "bench.events", f"--{what}", *map(str, words)])


def measure_latency(rig: Rig, broker: RabbitMq, options: argparse.Namespace) -> list[float]:
    """Return the seconds of every probe."""
    redis = rig.redis("redis-latency")
    more = amqp(broker, "latency")
    proxies = [rig.respite(f"latency-{name}", redis, l1={"admit": "always"}, more=more) for name in "ab"]
    await_listening(proxies)
    found: list[float] = []
    with ExitStack() as stack:
        clients = [stack.enter_context(open_connection(proxy)) for proxy in proxies]
        direct = stack.enter_context(open_connection(redis))
        channel = Channel(broker.url)
        stack.callback(channel.close)
        load = child("publish-steadily", broker.url, options.rate, options.seconds)
        began = time.monotonic()
        number = 0
        while load.poll() is None:
            found.append(probe(clients, direct, channel, f"probe:{number}"))
            number += 1
            ahead = number / PROBES_A_SECOND - (time.monotonic() - began)
            if ahead > 0:
                time.sleep(ahead)
        if load.returncode:
            raise BenchError(f"the publisher ended with {load.returncode}")
    return found


def measure_broker(broker: RabbitMq, options: argparse.Namespace) -> list[float]:
    """Return the seconds of every probe until a consumer that does nothing else has it."""
    found: list[float] = []
    arrived: set[bytes] = set()
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        listener = connection.channel()
        queue = listener.queue_declare("", exclusive=True).method.queue
        listener.queue_bind(queue, EXCHANGE, "#")
        listener.basic_consume(queue, lambda _channel, _method, _properties, body: arrived.add(body), auto_ack=True)
        channel = Channel(broker.url)
        load = child("publish-steadily", broker.url, options.rate, options.seconds)
        began = time.monotonic()
        while load.poll() is None:
            key = f"probe:{len(found)}"
            arrived.clear()
            published_at = time.monotonic()
            channel.publish(key)
            while event(key) not in arrived:
                connection.process_data_events(time_limit=1)
            found.append(time.monotonic() - published_at)
            while (ahead := len(found) / PROBES_A_SECOND - (time.monotonic() - began)) > 0:
                connection.process_data_events(time_limit=ahead)
        channel.close()
    return found


@attrs.frozen
class Drain:
    """What a backlog showed: events a second, GETs' p99 in ms before and meanwhile, the proxy's CPU an event in us."""

    per_second: float
    p99_before_ms: float
    p99_meanwhile_ms: float
    cpu_us: float


def read_evenly(client: socket.socket, raws: Sequence[bytes], rate: float, is_done: Any) -> list[float]:
    """Time GETs, so many a second, until `is_done()`; return their seconds."""
    times: list[float] = []
    began = time.monotonic()
    number = 0
    while not is_done():
        sent_at = time.monotonic()
        get(client, raws[number % len(raws)])
        times.append(time.monotonic() - sent_at)
        number += 1
        ahead = number / rate - (time.monotonic() - began)
        if ahead > 0:
            time.sleep(ahead)
    return times


def measure_drain(rig: Rig, broker: RabbitMq, number: int, options: argparse.Namespace) -> Drain:
    """Freeze a proxy, fill its queue, and let it go on."""
    redis = rig.redis(f"redis-{number}")
    more = amqp(broker, f"drain-{number}")
    proxy = rig.respite(f"drain-{number}", redis, l1={"admit": "always"}, more=more)
    await_listening([proxy])
    with redis.client() as client:
        for at in range(0, options.backlog, BATCH):
            pipeline = client.pipeline(transaction=False)
            for key in range(at, min(at + BATCH, options.backlog)):
                pipeline.set(f"backlog:{key}", "old")
            pipeline.execute()
    raws = [request("GET", f"hot:{key}") for key in range(100)]
    with open_connection(proxy) as reader, open_connection(redis) as direct:
        for key in range(100):
            get(direct, request("SET", f"hot:{key}", "x" * 100))
        for raw in raws:
            get(reader, raw)
        until = time.monotonic() + options.seconds / 2
        before = read_evenly(reader, raws, options.reads, lambda: time.monotonic() > until)
        os.kill(proxy.process.pid, signal.SIGSTOP)
        try:
            if child("publish-backlog", broker.url, options.backlog).wait(300):
                raise BenchError("the backlog could not be published")
        finally:
            os.kill(proxy.process.pid, signal.SIGCONT)
        start = applied(proxy)
        while applied(proxy) == start:
            time.sleep(0.005)
        began, cpu_s, first = time.monotonic(), proxy.cpu_s(), applied(proxy)
        looked_at = began
        last = first

        def is_drained() -> bool:
            nonlocal looked_at, last
            now = time.monotonic()
            if now - looked_at > 0.2:
                looked_at, last = now, applied(proxy)
                if now - began > 300:
                    raise BenchError(f"{last} of {options.backlog} events are applied")
            return last >= options.backlog

        meanwhile = read_evenly(reader, raws, options.reads, is_drained)
        took_s, used_s = looked_at - began, proxy.cpu_s() - cpu_s
    with redis.client() as client:
        left = sum(1 for _ in client.scan_iter("backlog:*", count=1000))
    if left:
        raise BenchError(f"{left} keys are still there")
    count = last - first
    return Drain(count / took_s, 1000 * quantile(before, 0.99), 1000 * quantile(meanwhile, 0.99), used_s / count * 1e6)


def amqp(broker: RabbitMq, queue: str) -> str:
    """Return the section of the configuration; each measurement has a queue of its own, and nobody else's events."""
    return f'[amqp]\nurl = "{broker.url}"\nqueue = "bench.{queue}"\n'


def applied(proxy: Server) -> int:
    """Return how many events a proxy has applied."""
    return int(proxy.stats()["events"]["applied_total"])


def await_listening(proxies: Sequence[Server]) -> None:
    """Wait until all consume."""
    deadline = time.monotonic() + WAIT_S
    while any(proxy.stats()["events"]["state"] != "up" for proxy in proxies):
        if time.monotonic() > deadline:
            raise BenchError("a proxy does not consume events")
        time.sleep(0.05)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.events", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="of the throughput")
    parser.add_argument("--rate", type=float, default=1000, help="events a second besides the probes")
    parser.add_argument("--seconds", type=float, default=20, help="how long the latency is measured")
    parser.add_argument("--backlog", type=int, default=100_000)
    parser.add_argument("--reads", type=float, default=500, help="GETs a second that are timed")
    parser.add_argument("--out", type=Path, help="where to write the figures (default: bench/results)")
    parser.add_argument("--publish-steadily", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--publish-backlog", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.publish_steadily:
        url, rate, seconds = options.publish_steadily
        publish_steadily(url, float(rate), float(seconds))
        return
    if options.publish_backlog:
        publish_backlog(options.publish_backlog[0], int(options.publish_backlog[1]))
        return
    need_programs(["redis-server", "rabbitmq-server"])
    sharpen_timers()
    disturbance = Disturbance()
    about = {**machine(), "versions": versions(["redis-server"])}
    with Rig() as rig, RabbitMq() as broker:
        latencies = [1000 * one for one in measure_latency(rig, broker, options)]
        p50, p99 = quantile(latencies, 0.5), quantile(latencies, 0.99)
        say(f"latency: {len(latencies)} probes, p50 {p50:.2f} ms, p99 {p99:.2f} ms, at most {max(latencies):.2f} ms")
        alone_ms = 1000 * quantile(measure_broker(broker, options), 0.5)
        drains = []
        for number in range(1, options.rounds + 1):
            drains.append(measure_drain(rig, broker, number, options))
            say(f"round {number}/{options.rounds}  {drains[-1]}")
    ratios = [one.p99_meanwhile_ms / one.p99_before_ms for one in drains]
    rates = [one.per_second for one in drains]
    rows = [
        ("published -> no proxy serves it, p50, ms", f"{p50:.2f}", f"< {GOALS_MS[0]:.0f}"),
        ("the same, p99", f"{p99:.2f}", f"< {GOALS_MS[1]:.0f}"),
        ("published -> a plain consumer has it, p50, ms", f"{alone_ms:.2f}", ""),
        ("events a second, one worker", spread(rates).text(0), f"> {GOAL_PER_S:,}"),
        ("GET p99 meanwhile / before", spread(ratios).text(), f"< {GOAL_P99:.0f}"),
        ("CPU of the proxy an event, us", spread([one.cpu_us for one in drains]).text(1), ""),
    ]
    print(markdown_table(("measure", "found", "goal"), [list(row) for row in rows]))
    result = {
        "script": "events",
        "machine": about,
        "disturbance": disturbance.report(),
        "options": {name: str(value) for name, value in vars(options).items()},
        "latencies_ms": latencies,
        "broker_p50_ms": alone_ms,
        "drains": [attrs.asdict(one) for one in drains],
    }
    say(f"figures: {write_result('events', result, options.out)}")


if __name__ == "__main__":
    run_main(main)
