"""Roll-out and roll-back: proxies that write envelopes, proxies that do not, and clients that know of none.

Every key has one writer, which remembers what it wrote last; all others read it, each its own way, and must find that.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import pytest
import redis

from proxy.values.envelope import MAGIC

from .servers import Kind, Server, wait_for
from .targets import Respite, Settings, running_respite

CLASSES: Mapping[str, Any] = {
    "compression": {"min_bytes": "100B"},
    "class": [
        {"name": "versioned", "match": ["v:*"], "version": True},
        {"name": "compressed", "match": ["c:*"], "compress": True, "dictionary": True},
    ],
}
WHOLE = (0, 4, 5)  # of a writer's ways those that look at no stored bytes
PLAIN = {**CLASSES, "rollout": {"write_envelopes": False}}
KEYS_EACH = 8
TRAFFIC_S = 1.5


@pytest.fixture(scope="module")
def server(redis7: Kind) -> Iterator[Server]:
    """Run one Redis for all tests here."""
    with Server(redis7) as started:
        yield started


@pytest.fixture
def direct(server: Server) -> Iterator[redis.Redis]:
    """Give a client that has never heard of Respite, and the emptied server."""
    with redis.Redis(port=server.port) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="module")
def sealing(server: Server) -> Iterator[Respite]:
    """Run one proxy that writes envelopes for all tests here."""
    with running_respite(on(server, CLASSES)) as started:
        wait_for(lambda: is_up(started), what="it is up")
        yield started


@pytest.fixture(scope="module")
def plain(server: Server) -> Iterator[Respite]:
    """Run one proxy that was told to write none."""
    with running_respite(on(server, PLAIN)) as started:
        wait_for(lambda: is_up(started), what="it is up")
        yield started


def on(server: Server, settings: Settings) -> Settings:
    """Return settings of a proxy before that server."""
    return {"upstream": {"url": server.url}, **settings}


def is_up(respite: Respite) -> bool:
    """Tell whether a proxy knows the server's clock, and so gives versions."""
    return bool(respite.stats()["values"]["announcements"] == "subscribed")


def is_enveloped(direct: redis.Redis, key: str) -> bool:
    """Tell how a value is stored."""
    return (direct.get(key) or b"").startswith(MAGIC)


def value_of(key: str, number: int) -> bytes:
    """Make a value that says of which key and write it is; of a length between 20 bytes and some kilobytes."""
    return b"%b %d " % (key.encode(), number) + b"and it goes on and on; " * (number * 7 % 90)


@attrs.define
class Writer:
    """Who writes some keys through one port, in these of the ways of `_step`; `written` is what they hold."""

    port: int
    name: str
    ways: Sequence[int] = range(6)
    written: dict[str, int] = attrs.Factory(dict)
    wrong: list[str] = attrs.Factory(list)
    done: int = 0

    @property
    def keys(self) -> list[str]:
        """Its keys, of both classes."""
        return [f"{'vc'[at % 2]}:{self.name}:{at}" for at in range(KEYS_EACH)]

    def write(self, ends: threading.Event) -> None:
        """Write and read back, in every way, until it ends."""
        rng = random.Random(self.name)
        with redis.Redis(port=self.port) as client:
            number = 0
            while not ends.is_set():
                number += 1
                key = rng.choice(self.keys)
                self._step(client, rng.choice(self.ways), key, number)
                self.written[key] = number
                self.done += 1

    def _step(self, client: redis.Redis, how: int, key: str, number: int) -> None:
        value = value_of(key, number)
        if how == 0:
            client.mset({key: value})
        elif how == 1:
            pipeline = client.pipeline(transaction=True)
            self._expect(key, value, pipeline.set(key, value, ex=1000).get(key).strlen(key).execute()[1])
        elif how == 2:
            self._expect(key, value, client.eval("redis.call('SET', KEYS[1], ARGV[1]) return ARGV[1]", 1, key, value))
        elif how == 3:
            client.set(key, value[:10])
            client.append(key, value[10:])
        else:
            client.set(key, value, ex=1000)
        self._expect(key, value, client.get(key))

    def _expect(self, key: str, value: bytes, found: bytes | None) -> None:
        if found != value:
            self.wrong.append(f"{self.name}: {key} is {found!r:.80}, not {value!r:.80}")


@attrs.define
class Reader:
    """Who reads all keys through one port. One of old may be served for as long as L1 has not heard of the new one."""

    port: int
    writers: list[Writer]
    wrong: list[str] = attrs.Factory(list)
    done: int = 0

    def read(self, ends: threading.Event) -> None:
        """Read until it ends: no value is of another key, is cut, or sealed."""
        rng = random.Random(self.port)
        keys = [key for writer in self.writers for key in writer.keys]
        with redis.Redis(port=self.port) as client:
            while not ends.is_set():
                some = rng.sample(keys, 3)
                found = [client.get(some[0]), *client.mget(some[1:])]
                for key, value in zip(some, found, strict=True):
                    if value is not None and not is_whole(key, value):
                        self.wrong.append(f"{key} is {value!r:.80}")
                self.done += 1


def is_whole(key: str, value: object) -> bool:
    """Tell whether a value is one that was written to a key, or the beginning that an APPEND had not yet filled up."""
    if not isinstance(value, bytes):
        return False  # an error in its place
    words = value.split(b" ", 2)
    if len(value) == 10:
        return value_of(key, 10**9).startswith(value[:4])
    return len(words) == 3 and words[1].isdigit() and value == value_of(key, int(words[1]))


def run_all(*jobs: Callable[[threading.Event], None], between: Callable[[], None] = lambda: None) -> None:
    """Run jobs at once for a while; `between` is called half-way."""
    ends = threading.Event()
    threads = [threading.Thread(target=job, args=[ends]) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        time.sleep(TRAFFIC_S / 2)
        between()
        time.sleep(TRAFFIC_S / 2)
    finally:
        ends.set()
        for thread in threads:
            thread.join(30)


def test_two_proxies_and_a_direct_client_read_nothing_wrong(
    server: Server, direct: redis.Redis, sealing: Respite
) -> None:
    """One proxy is restarted to write none, the other is not, a third party writes plain; then all is unwrapped."""
    with running_respite(on(server, CLASSES)) as second:
        old = write_and_restart(second, direct)
        writers = [Writer(sealing.port, "sealing"), Writer(second.port, "plain"), Writer(server.port, "direct")]
        readers = [Reader(port, writers) for port in (sealing.port, sealing.port, second.port, second.port)]
        run_all(*(writer.write for writer in writers), *(reader.read for reader in readers))

        assert [each.wrong[:3] for each in (*writers, *readers)] == [[]] * (len(writers) + len(readers))
        assert min(each.done for each in (*writers, *readers)) > 20
        expected = {key: value_of(key, number) for writer in writers for key, number in writer.written.items()}
        expected |= old
        for port in (sealing.port, second.port):
            with redis.Redis(port=port) as client:
                wait_for(
                    lambda client=client: client.mget(list(expected)) == list(expected.values()), what="all read alike"
                )
        assert [proxy.stats()["values"]["damaged_total"] for proxy in (sealing, second)] == [0, 0]
    assert any(is_enveloped(direct, key) for key in writers[0].keys)
    assert not any(is_enveloped(direct, key) for writer in writers[1:] for key in writer.keys)
    ends = {key: direct.pexpiretime(key) for key in expected}

    report = unwrap(server)

    assert (report["finished"], report["damaged"], report["left"]) == (True, 0, [])
    assert report["unwrapped"] >= len(old) / 2
    assert dict(zip(expected, direct.mget(list(expected)), strict=True)) == expected
    assert all(abs(direct.pexpiretime(key) - ends[key]) < 1000 for key in expected)


def write_and_restart(respite: Respite, direct: redis.Redis) -> dict[str, bytes]:
    """Have a proxy write envelopes, and start it anew to write none; return what it wrote."""
    wait_for(lambda: is_up(respite), what="it is up")
    old = {f"{name}:old:{number}": value_of("old", 30 + number) for name in "vc" for number in range(20)}
    with redis.Redis(port=respite.port) as client:
        for key, value in old.items():
            client.set(key, value, ex=500)
    assert all(is_enveloped(direct, key) for key in old if key.startswith("v"))
    respite.settings = {**{name: respite.settings[name] for name in ("listen", "upstream")}, **PLAIN}
    respite.write_config()
    respite.restart()
    wait_for(lambda: is_up(respite), what="it is up again")
    return old


def unwrap(server: Server) -> dict[str, Any]:
    """Run `respite unwrap` on all keys and give its report."""
    command = [sys.executable, "-m", "proxy", "unwrap", "--upstream", server.url, "--match", "*", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_unwrap_under_traffic_loses_nothing(
    server: Server, direct: redis.Redis, sealing: Respite, plain: Respite
) -> None:
    """A proxy that writes envelopes no more serves while they are taken out; afterwards there are none."""
    expected = {f"{'vc'[number % 2]}:still:{number}": value_of("still", number) for number in range(500)}
    with redis.Redis(port=sealing.port) as client:
        client.mset(expected)
    writers = [Writer(plain.port, "one"), Writer(plain.port, "two")]
    reader = Reader(plain.port, writers)
    reports: list[dict[str, Any]] = []

    run_all(*(each.write for each in writers), reader.read, between=lambda: reports.append(unwrap(server)))

    assert [each.wrong[:3] for each in (*writers, reader)] == [[], [], []]
    assert reports[0]["left"] == []
    assert reports[0]["unwrapped"] >= 250
    assert dict(zip(expected, direct.mget(list(expected)), strict=True)) == expected
    assert not any(is_enveloped(direct, key) for writer in writers for key in writer.keys)


@pytest.mark.parametrize("rollout", [{"mode": "shadow"}, {"mode": "off"}, {"percent": 0}], ids=str)
def test_client_that_is_not_rolled_out_writes_plain_and_reads_opened(
    server: Server, direct: redis.Redis, sealing: Respite, rollout: Mapping[str, Any]
) -> None:
    """It has no classes, and yet it never sees what those write that have them."""
    settings = {**CLASSES, "rollout": rollout}
    with (
        running_respite(on(server, settings)) as other,
        redis.Redis(port=sealing.port) as one,
        redis.Redis(port=other.port) as two,
    ):
        wait_for(lambda: is_up(other), what="it is up")
        value = value_of("v:1", 30)
        for key in ("v:1", "c:1"):
            one.set(key, value, ex=500)
            assert is_enveloped(direct, key)
            assert [two.get(key), two.get(key), *two.mget(key)] == [value] * 3
            assert two.strlen(key) == len(value)
            assert two.eval("return redis.call('GET', KEYS[1])", 1, key) == value
            assert two.pipeline().get(key).getrange(key, 0, 3).execute() == [value, value[:4]]
            one.set(key, value, ex=500)
            assert two.append(key, "!") == len(value) + 1
            assert one.get(key) == value + b"!"
            two.set(key, value[::-1])
            assert direct.get(key) == value[::-1]
            two.pipeline().mset({key: value}).execute()
            assert direct.get(key) == value
            wait_for(lambda key=key: one.get(key) == value, what="L1 has heard")


def test_percent_splits_clients(server: Server, direct: redis.Redis) -> None:
    """Some connections write envelopes, the others plain; all read the same."""
    with running_respite(on(server, {**CLASSES, "rollout": {"percent": 50}})) as respite:
        wait_for(lambda: is_up(respite), what="it is up")
        clients = [redis.Redis(port=respite.port) for _ in range(40)]
        for number, client in enumerate(clients):
            client.set(f"v:{number}", value_of("v", number))
        forms = [is_enveloped(direct, f"v:{number}") for number in range(40)]
        for client in clients:
            assert client.mget([f"v:{at}" for at in range(40)]) == [value_of("v", at) for at in range(40)]
            client.close()
        assert 3 < sum(forms) < 37


@pytest.mark.parametrize(
    ("steps", "ways"),
    [
        ([CLASSES, PLAIN, CLASSES, PLAIN, CLASSES, PLAIN], range(6)),
        # What looks at stored bytes must know the class: to take one away, write_envelopes and unwrap come first.
        ([CLASSES, {}, PLAIN, CLASSES, {"class": CLASSES["class"][:1]}, {}], WHOLE),
    ],
    ids=["write_envelopes", "classes"],
)
def test_reload_under_traffic_shows_nothing_sealed(
    server: Server, direct: redis.Redis, steps: Sequence[Settings], ways: Sequence[int]
) -> None:
    """On, off, on: no client is dropped, none sees a sealed byte; an envelope of a class that is gone is opened."""
    with running_respite(on(server, steps[-1])) as respite, redis.Redis(port=respite.port) as client:
        wait_for(lambda: is_up(respite), what="it is up")
        writers = [Writer(respite.port, "one", ways), Writer(respite.port, "two", ways)]
        reader = Reader(respite.port, writers)
        accepted: list[int] = []
        sealed: list[bool] = []
        client.ping()

        def switch() -> None:
            accepted.append(respite.stats()["clients"]["accepted_total"])
            for number, classes in enumerate(steps):
                kept = {name: respite.settings[name] for name in ("listen", "upstream")}
                respite.settings = {**kept, **classes}
                respite.write_config()
                respite.signal(signal.SIGHUP)
                wait_for(lambda number=number: respite.errors.count("reloaded") == number + 1, what="the reload")
                for name in "vc":
                    client.set(f"{name}:of:{number}", value_of(name, 40 + number))
                sealed.append(is_enveloped(direct, f"v:of:{number}"))
                time.sleep(0.1)
            for number in range(len(steps)):
                for name in "vc":
                    assert [client.get(f"{name}:of:{number}")] * 2 == [value_of(name, 40 + number)] * 2

        run_all(*(each.write for each in writers), reader.read, between=switch)

        assert [each.wrong[:3] for each in (*writers, reader)] == [[], [], []]
        assert min(writers[0].done, writers[1].done, reader.done) > 20
        assert sealed == ["class" in step and "rollout" not in step for step in steps]
        stats = respite.stats()
        assert stats["clients"]["accepted_total"] == accepted[0]  # nobody has come back
        assert stats["values"]["damaged_total"] == 0
        assert stats["values"]["opened_total"] > 0
