"""What a run of events plays with: the truth of an app, who caches it, and who announces its changes.

Owns the threads of a run. Every event names one key that is cached again and again (`doc:`) and one of its own
(`once:`): the first shows that order and duplicates do no harm, the second that not one event was lost.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import attrs
import pika
import pika.exceptions
import redis

WINDOW: Final = 400  # events that may overtake each other
CONFIRM_TRIES_S: Final = 120.0
GARBAGE: Final = (
    b"",
    b"{",
    b"\xff\xfe\x00garbage",
    b"[1, 2, 3]",
    b'{"key": ["doc:1"]}',
    b'{"keys": "doc:1"}',
    b'{"keys": [], "patterns": [], "tags": []}',
    b'{"keys": ["doc:1"], "version": "yesterday"}',
    b"[" * 5000,
    b'{"keys": [1e999]}',
)


@attrs.define
class Truth:
    """The data that an app has in its database: a version a key. `lock` orders changes and who caches them."""

    keys: int
    lock: threading.Lock = attrs.field(factory=threading.Lock)
    versions: dict[str, int] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        start = int(time.time() * 1000) - 1000
        self.versions.update({f"doc:{number}": start for number in range(self.keys)})

    def change(self, key: str) -> int:
        """Change a key; return its new version, in milliseconds."""
        with self.lock:
            version = self.versions[key] = max(self.versions[key] + 1, int(time.time() * 1000))
            return version

    def cache(self, client: redis.Redis, key: str) -> None:
        """Put what is true at this moment into the cache: no change happens between the reading and the writing."""
        with self.lock:
            version = self.versions[key]
            client.execute_command("RESPITE", "SETV", key, version, f"{key}={version}")


@attrs.define
class Publisher:
    """Announces changes, again until the broker confirms. Counts what it has sent for sure."""

    url: str
    exchange: str
    seed: int
    name: str = "app-1"
    published: int = 0
    repeated: int = 0
    garbage: list[str] = attrs.field(factory=list)  # message ids
    seq: int = 0
    _connection: pika.BlockingConnection | None = None

    def publish(self, bodies: Sequence[tuple[str, bytes]]) -> None:
        """Send messages, as (id, body), each until it is confirmed."""
        for message_id, body in bodies:
            self._publish(message_id, body)

    def _publish(self, message_id: str, body: bytes) -> None:
        deadline = time.monotonic() + CONFIRM_TRIES_S
        properties = pika.BasicProperties(delivery_mode=2, message_id=message_id, content_type="application/json")
        while True:
            try:
                channel = self._channel()
                channel.basic_publish(self.exchange, "doc.changed", body, properties, mandatory=True)
            except (pika.exceptions.AMQPError, OSError):
                self.close()
                assert time.monotonic() < deadline, "the broker takes nothing"
                time.sleep(0.05)
            else:
                return

    def _channel(self) -> pika.adapters.blocking_connection.BlockingChannel:
        if self._connection is None or self._connection.is_closed:
            self._connection = pika.BlockingConnection(pika.URLParameters(self.url))
            self._opened = self._connection.channel()
            self._opened.confirm_delivery()
        return self._opened

    _opened: pika.adapters.blocking_connection.BlockingChannel = attrs.field(init=False, default=None)

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                connection.close()
        except (pika.exceptions.AMQPError, OSError):
            pass

    def run(self, truth: Truth, first: int, count: int, *, per_second: float = 0.0) -> None:
        """Announce `count` changes in no order, some of them twice, one in a hundred of them unreadable."""
        chance = random.Random(self.seed)
        keys = list(truth.versions)
        began = time.monotonic()
        window: list[tuple[str, bytes]] = []
        for number in range(first, first + count):
            key = chance.choice(keys)
            self.seq += 1
            event = {
                "id": f"event-{number}",
                "keys": [key, f"once:{number}"],
                "version": truth.change(key),
                "publisher": self.name,
                "seq": self.seq,
            }
            message = f"event-{number}", json.dumps(event).encode()
            window.append(message)
            self.published += 1
            if chance.random() < 0.03:
                self.repeated += 1
                window.append(message)
            if chance.random() < 0.01:
                name = f"garbage-{number}"
                self.garbage.append(name)
                window.append((name, chance.choice(GARBAGE)))
            if len(window) >= WINDOW:
                chance.shuffle(window)
                self.publish(window[WINDOW // 2 :])
                del window[WINDOW // 2 :]
            if per_second and (ahead := (number - first) / per_second - (time.monotonic() - began)) > 0:
                time.sleep(ahead)
        chance.shuffle(window)
        self.publish(window)


@attrs.define
class Readers:
    """Clients that read through the proxies and cache what is missing, whatever dies meanwhile."""

    truth: Truth
    urls: Sequence[str]
    seed: int
    stop: threading.Event = attrs.field(factory=threading.Event)
    reads: int = 0
    fills: int = 0
    errors: int = 0

    def run(self, number: int) -> None:
        """Read until told to stop."""
        chance = random.Random(self.seed * 1000 + number)
        keys = list(self.truth.versions)
        clients = [redis.Redis.from_url(url, socket_timeout=10) for url in self.urls]
        while not self.stop.is_set():
            key = chance.choice(keys)
            client = chance.choice(clients)
            try:
                self.reads += 1
                if client.get(key) is None:
                    self.fills += 1
                    self.truth.cache(client, key)
            except (redis.RedisError, OSError):
                self.errors += 1
                time.sleep(0.02)

    @contextmanager
    def running(self, count: int) -> Iterator[None]:
        """Have so many of them read for the length of a `with` block."""
        threads = [threading.Thread(target=self.run, args=(number,), daemon=True) for number in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join(20)
                assert not thread.is_alive(), "a reader waits for an answer that never comes"
