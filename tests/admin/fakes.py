"""A proxy made of constants, for whatever asks the admin port, and the raw bytes of a conversation with it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from proxy.admin.http import Limits, serve_admin
from proxy.admin.pushing import Push
from proxy.core.figures.snapshot import Snapshot
from proxy.core.figures.stats import MetricFamily, Sample
from proxy.errors import RemoteError
from proxy.events.event import Event

STATS: dict[str, Any] = {
    "version": "0.1.0",
    "uptime_s": 8040.5,
    "upstream": {
        "url": "redis://127.0.0.1:6379",
        "state": "up",
        "server": "redis",
        "version": "7.0.15",
        "tracking": "redirect",
        "tracking_reason": "the server offers CLIENT TRACKING",
    },
    "clients": {"connected": 42, "pinned": 3, "accepted_total": 1234, "rejected_total": 0, "killed_total": 1},
    "l1": {
        "enabled": True,
        "serving": True,
        "entries": 12345,
        "bytes": 43201331,
        "max_bytes": 67108864,
        "hits_total": 1234567,
        "misses_total": 178000,
        "hit_rate": 0.874,
        "evictions_total": 812,
        "invalidations_total": 9400,
        "flushes_total": 1,
        "published_total": 177000,
        "revoked_total": 150,
    },
    "commands": {"total": 2345678, "per_second": 12345.6, "errors_total": 7},
    "latency": {"count": 2345678, "p50_us": 41.0, "p90_us": 130.0, "p99_us": 1250.0},
    "links": [
        {
            "id": 1,
            "kind": "invalidation",
            "db": 0,
            "user": "",
            "protocol": 3,
            "state": "up",
            "outstanding": 0,
            "outbox_bytes": 0,
        },
        {
            "id": 2,
            "kind": "data",
            "db": 0,
            "user": "app",
            "protocol": 2,
            "state": "up",
            "outstanding": 17,
            "outbox_bytes": 2048,
        },
    ],
    "memory": {"rss_bytes": 73400320},
}


# One request that keeps its connection, and one that does not.
GET = b"GET /stats.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
LAST_GET = b"GET /stats.json HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


@attrs.define
class FakeSource:
    """Answers with what the test put in, and notes what it was asked to do."""

    is_ready: bool = True
    answers: dict[str, Any] = attrs.field(factory=lambda: json.loads(json.dumps(STATS)))
    reloaded: dict[str, Any] = attrs.field(factory=lambda: {"applied": [], "needs_restart": [], "problems": []})
    metrics: tuple[MetricFamily, ...] = (
        MetricFamily("respite_commands", "counter", "Commands answered.", (Sample("_total", {}, 3.0),)),
    )
    dropped: dict[str, int] | RemoteError = attrs.field(factory=lambda: {"keys": 2, "entries": 3, "fences": 1})
    asked: list[bytes | str | Event] = attrs.field(factory=list)
    on_drain: Callable[[], None] = lambda: None

    async def ready(self) -> tuple[bool, str]:
        """Say what `is_ready` says."""
        return self.is_ready, "serving" if self.is_ready else "upstream unavailable"

    async def stats(self) -> dict[str, Any]:
        """Return `answers`."""
        return self.answers

    async def families(self) -> Iterable[MetricFamily]:
        """Return `metrics`."""
        return self.metrics

    async def snapshot(self) -> Snapshot:
        """Return `answers` at this moment, with no histograms."""
        return Snapshot(trio.current_time(), self.answers)

    async def explain(self, key: bytes) -> dict[str, Any]:
        """Note the key and echo it."""
        self.asked.append(key)
        return {"key": key, "l1": {"state": "absent", "bytes": None}, "reasons": ["never read", "no lease"]}

    async def reload(self) -> dict[str, Any]:
        """Note it and return `reloaded`."""
        self.asked.append("reload")
        return self.reloaded

    async def invalidate(self, event: Event) -> dict[str, int]:
        """Note the event, and return `dropped` or raise it."""
        self.asked.append(event)
        if isinstance(self.dropped, RemoteError):
            raise self.dropped
        return self.dropped

    def drain(self) -> None:
        """Note it and call `on_drain`."""
        self.asked.append("drain")
        self.on_drain()


@attrs.define
class Port:
    """A running admin port: where it is, and one-shot conversations with it."""

    url: str
    source: FakeSource

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `url`."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host.strip("[]"), int(port)

    async def connect(self) -> trio.SocketStream:
        """Open a connection and send nothing."""
        host, port = self.address
        return await trio.open_tcp_stream(host, port)

    async def talk(self, raw: bytes) -> bytes:
        """Send `raw`, and read until the port closes."""
        stream = await self.connect()
        async with stream:
            await stream.send_all(raw)
            return await read_all(stream)

    async def ask(self, line: str, *headers: str) -> Answer:
        """Send one request that closes its connection afterwards; `line` is "GET /path"."""
        lines = [f"{line} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers, "", ""]
        return Answer.of(await self.talk("\r\n".join(lines).encode()))

    async def still_serves(self) -> bool:
        """Say whether a new client is served."""
        return (await self.ask("GET /healthz")).status == 200


@attrs.frozen
class Answer:
    """One response, taken apart by hand so that h11 does not judge itself."""

    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, raw: bytes) -> Answer:
        """Take the raw bytes of one response apart."""
        head, _, body = raw.partition(b"\r\n\r\n")
        status, *fields = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        return cls(int(status.split(" ")[1]), headers, body)

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


async def read_one(stream: trio.SocketStream) -> Answer:
    """Read one response by its Content-Length and leave the connection open."""
    data = b""
    with trio.fail_after(10):
        while b"\r\n\r\n" not in data:
            chunk = await stream.receive_some()
            assert chunk, "closed before an answer"
            data += chunk
        answer = Answer.of(data)
        body = answer.body
        while len(body) < int(answer.headers["content-length"]):
            body += await stream.receive_some()
    return Answer(answer.status, answer.headers, body)


async def read_all(stream: trio.SocketStream) -> bytes:
    """Read until the end; fails when it does not come."""
    data = b""
    with trio.fail_after(10):
        while chunk := await stream.receive_some():
            data += chunk
    return data


@asynccontextmanager
async def running(
    source: FakeSource | None = None,
    *,
    token: str = "",
    push: Push | None = None,
    limits: Limits | None = None,
    url: str = "http://127.0.0.1:0",
) -> AsyncIterator[Port]:
    """Serve `source` on a free port for the time of the block, then cancel it."""
    served = source or FakeSource()
    async with trio.open_nursery() as nursery:

        async def start(task_status: trio.TaskStatus[str]) -> None:
            await serve_admin(url, token, served, push=push, limits=limits, task_status=task_status)

        yield Port(await nursery.start(start), served)
        nursery.cancel_scope.cancel()
