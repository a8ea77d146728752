"""The admin port: HTTP as anybody may send it, and WebSocket frames behind a handshake.

What must hold: every connection ends; nothing is logged as a failure of ours, and 500 is never an answer; what is
answered is HTTP, and after a handshake frames of a WebSocket.
"""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn

import attrs
import h11
import structlog
import trio
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage
from wsproto.frame_protocol import Opcode
from wsproto.utilities import ProtocolError

from proxy.admin import access, answers, http, outlet, polling, pushing, routes, sse, websocket
from proxy.admin.http import Limits, _Server
from proxy.admin.pages import read_pages
from proxy.admin.pushing import Push
from proxy.admin.routes import Site
from proxy.config.load import default_settings
from proxy.core.feed.feed import Feed
from proxy.values.rules import Rules

from ...admin.fakes import FakeSource
from ...admin.listening import HANDSHAKE as HANDSHAKE_LINES
from ...wire.feeding import cut
from ..target import Target, dice, expect

_LIMITS: Final = Limits()
_BYTES_MAX: Final = 64 << 20
_READ_BYTES: Final = 256 * 1024
_PUSH: Final = attrs.evolve(default_settings().push, heartbeat_s=5.0, max_subscribers=8)
_PAGES: Final = read_pages()


def _server() -> _Server:
    """Make the port anew: what one connection leaves behind must not change what the next one is answered."""
    feed = Feed(_PUSH, Rules(()), now_ms=lambda: 1_732_272_000_000, epoch="life")
    feed.watched([b""])
    return _Server(Site(FakeSource(), "", None, Push(feed, _PUSH, write_s=5.0), _PAGES), _LIMITS)


async def _answered(pieces: list[bytes]) -> bytes:
    """Return all that a connection is answered that sends pieces and then no more."""
    ours, theirs = socket.socketpair()
    server = _server()
    assert server.site.push is not None
    out = bytearray()
    async with (
        trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as peer,
        trio.open_nursery() as nursery,
    ):

        async def say() -> None:
            with suppress(trio.BrokenResourceError):
                for piece in pieces:
                    await peer.send_all(piece)
                await peer.send_eof()

        nursery.start_soon(server.site.push.run)
        nursery.start_soon(server.handle, trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
        nursery.start_soon(say)
        with suppress(trio.BrokenResourceError):
            while chunk := await peer.receive_some(_READ_BYTES):
                out += chunk
                expect(len(out) < _BYTES_MAX, "an answer without end")
        nursery.cancel_scope.cancel()
    expect(server.connected == 0 and not server.waiting, "a place is still taken", server)
    return bytes(out)


@contextmanager
def _failures() -> Iterator[list[BaseException]]:
    """Collect what is logged as an error: the exception where it is one."""
    found: list[BaseException] = []

    def note(_logger: Any, method: str, line: MutableMapping[str, Any]) -> NoReturn:
        if method in {"error", "exception", "critical"}:
            found.append(sys.exc_info()[1] or AssertionError(f"logged: {line}"))
        raise structlog.DropEvent

    processors = structlog.get_config()["processors"]
    before = list(processors)
    processors[:] = [note]
    try:
        yield found
    finally:
        processors[:] = before


async def _talk(data: bytes) -> bytes:
    pieces = [data] if dice(data).random() < 0.7 else cut(data, dice(data))
    with _failures() as failures:
        out = await _answered(pieces)
    if failures:
        raise failures[0]
    return out


def _expect_http(out: bytes) -> None:
    """Check that what was answered are whole HTTP responses, up to one that begins a stream."""
    while out:
        head, _, rest = out.partition(b"\r\n\r\n")
        status, *fields = head.split(b"\r\n")
        expect(status.startswith(b"HTTP/1.1 ") and status[9:12].isdigit(), "no HTTP is answered", head)
        expect(status[9:12] != b"500", "the port has failed", head)
        named = {name.lower(): value.strip() for name, _, value in (field.partition(b":") for field in fields)}
        if status[9:12] == b"101" or b"text/event-stream" in named.get(b"content-type", b""):
            return
        size = 0 if status[9:10] == b"1" or status[9:12] in {b"204", b"304"} else int(named[b"content-length"])
        out = rest if rest.startswith(b"HTTP/1.1 ") and size else rest[size:]  # HEAD: as long as it says, and empty


async def _http(data: bytes) -> None:
    _expect_http(await _talk(data))


def _request(line: str, *headers: str, body: str = "") -> bytes:
    return "\r\n".join((f"{line} HTTP/1.1", "Host: 127.0.0.1", *headers, "", body)).encode()


_PATHS: Final = (
    *(
        "/",
        "/respite.js",
        "/help",
        "/healthz",
        "/readyz",
        "/metrics",
        "/stats.json",
        "/report.json",
        "/reload",
        "/drain",
    ),
    *("/history.json?figure=hit_rate&seconds=300&step=1", "/explain.json?key=a%ff", "/invalidate", "/ws?channels=a"),
    *("/events?channels=a,tag:b,c*&since=life-0", "/changes?channels=a&wait=5", "/changes?channels=respite:figures"),
)
_HTTP_TOKENS: Final = (
    *(path.encode() for path in _PATHS),
    *(b"GET ", b"POST ", b"HEAD ", b"OPTIONS ", b"PUT ", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"\r\n", b"\r\n\r\n"),
    *(b"Host: 127.0.0.1\r\n", b"Host: a.b\r\n", b"Origin: http://x\r\n", b"Origin: null\r\n", b"Connection: close\r\n"),
    *(
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
    ),
    *(
        b"Expect: 100-continue\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: Upgrade\r\n",
        b"Sec-WebSocket-Version: 13\r\n",
    ),
    *(
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        b"Sec-WebSocket-Protocol: respite\r\n",
        b"Authorization: x\r\n",
    ),
    *(
        b"Last-Event-ID: life-1\r\n",
        b"traceparent: 00-x\r\n",
        b"Accept: application/openmetrics-text\r\n",
        b"Content-Type: application/json\r\n",
    ),
    *(
        b"?channels=",
        b"&channels=",
        b"&since=life-0",
        b"?key=",
        b"%ff",
        b"%",
        b"%00",
        b"http://[::1",
        b"//",
        b"#",
        b"*",
    ),
    *(
        b'{"keys": ["a"]}',
        b'{"patterns": ["["]}',
        b"?access_token=",
        b"&wait=",
        b"&seconds=",
        b"&step=",
        b"?figure=",
        b"; q=",
        b"\0",
        b"\xff",
    ),
    *(b"-1", b"nan", b"1e999", b"gzip", b"tag:", b"respite:", b"*", b"[a-", b"life-999999999999999999"),
)


def _make_request(rng: random.Random) -> bytes:
    line = f"{rng.choice(('GET', 'GET', 'POST', 'HEAD'))} {rng.choice(_PATHS)}"
    headers = rng.sample(
        [token.decode("latin-1").strip() for token in _HTTP_TOKENS if b": " in token], rng.randrange(5)
    )
    return _request(line, *headers) + rng.choice((b"", b"", _request("GET /healthz"), rng.choice(_HTTP_TOKENS)))


HTTP: Final = Target(
    "http",
    _http,
    [
        http,
        routes,
        access,
        answers,
        polling,
        pushing,
        sse,
        h11._connection,
        h11._readers,
        h11._headers,
        h11._receivebuffer,
    ],
    [
        *(_request(f"GET {path}") for path in _PATHS),
        _request("POST /invalidate", "Content-Type: application/json", "Content-Length: 15", body='{"keys": ["a"]}'),
        _request("POST /invalidate", "Transfer-Encoding: chunked", body="5\r\nhello\r\n0\r\n\r\n"),
        _request("HEAD /stats.json") + _request("GET /healthz", "Connection: close"),
        _request("GET /ws?channels=a", *HANDSHAKE_LINES),
    ],
    _HTTP_TOKENS,
    _make_request,
    short_inputs=40,
)


_HANDSHAKE: Final = _request("GET /ws?channels=a", *HANDSHAKE_LINES)


def _frame(opcode: int, payload: bytes, *, is_last: bool = True) -> bytes:
    """Write a frame of a client, masked with zeros: its payload can be read, and changed."""
    first = opcode | (0x80 if is_last else 0)
    if len(payload) < 126:
        return bytes((first, 0x80 | len(payload))) + b"\0\0\0\0" + payload
    return bytes((first, 0x80 | 126)) + len(payload).to_bytes(2, "big") + b"\0\0\0\0" + payload


async def _websocket(data: bytes) -> None:
    out = await _talk(_HANDSHAKE + data)
    head, _, rest = out.partition(b"\r\n\r\n")
    expect(head.startswith(b"HTTP/1.1 101 "), "no handshake is answered", head)
    reader = Connection(ConnectionType.CLIENT)
    reader.receive_data(rest)
    try:
        for event in reader.events():
            expect(not isinstance(event, BytesMessage), "bytes are said", event)
    except ProtocolError as exc:
        raise AssertionError(f"what is answered is no WebSocket: {exc}") from exc


_SAYINGS: Final = (
    *(b'{"subscribe": ["a"]}', b'{"unsubscribe": ["a"]}', b'{"subscribe": ["tag:x", "list:*"]}', b"[]", b"{}", b"7"),
    *(b'{"subscribe": ["respite:figures"]}', b'{"subscribe": [7]}', b'{"subscribe": ["\\ud800"]}', b"\xff", b"["),
)


def _make_frames(rng: random.Random) -> bytes:
    frames = []
    for _ in range(rng.randrange(1, 4)):
        opcode = rng.choice((1, 1, 1, 1, 2, 0, 8, 9, 10))
        frames.append(_frame(opcode, rng.choice(_SAYINGS), is_last=rng.random() < 0.8))
    return b"".join(frames)


WEBSOCKET: Final = Target(
    "websocket",
    _websocket,
    [websocket, outlet, pushing],
    [
        *(_frame(Opcode.TEXT, saying) for saying in _SAYINGS),
        _frame(Opcode.TEXT, b'{"subscribe"', is_last=False) + _frame(Opcode.CONTINUATION, b': ["b"]}'),
        _frame(Opcode.PING, b"x") + _frame(Opcode.PONG, b"y") + _frame(Opcode.CLOSE, b"\x03\xe8bye"),
        _frame(Opcode.BINARY, b"x"),
        _frame(Opcode.TEXT, b"x" * 200),
    ],
    (
        *(b"\x81\x80\0\0\0\0", b"\x01\x80\0\0\0\0", b"\x80\x80\0\0\0\0", b"\x89\x80\0\0\0\0", b"\x88\x80\0\0\0\0"),
        *(b"\x88\x82\0\0\0\0\x03\xe8", b"\xc1\x80\0\0\0\0", b"\x81\x00", b"\x83\x80\0\0\0\0", b"\x81\xfe\xff\xff"),
        *(b"\x81\xff" + b"\xff" * 8, b"\x81\xff" + b"\0" * 8, b"\x89\xfe\0\x7e", b"subscribe", b'"', b"[", b"]", b"{"),
        *(b"}", b":", b",", b"tag:", b"respite:alerts", b"*", b"[a-", b"\\", b"\\ud800", b"\xed\xa0\x80", b"\xc3"),
    ),
    _make_frames,
    short_inputs=40,
)
