"""What strangers may try on the admin port that other tests do not: bodies in bodies, bombs, floods of headers."""

from __future__ import annotations

import pytest

from .fakes import GET, Answer, running
from .listening import HANDSHAKE, make_push

DEEP = b"[" * 30_000


@pytest.mark.parametrize("body", [DEEP, b'{"keys":' * 7000, b'{"keys": ["a"], "x": ' + DEEP, b"1" * 30_000])
async def test_body_nested_without_end_is_refused_and_nothing_done(body: bytes) -> None:
    """A body is read as far as it makes sense; what goes deeper than any reader is a 400, and the port serves on."""
    async with running() as port:
        head = (
            f"POST /invalidate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        answer = Answer.of(await port.talk(head.encode() + body))

        assert answer.status == 400
        assert port.source.asked == []
        assert await port.still_serves()


async def test_websocket_that_offers_compression_gets_none() -> None:
    """permessage-deflate would let a kilobyte become a megabyte here: it is never agreed on."""
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    lines = ["GET /ws?channels=a HTTP/1.1", "Host: localhost", *HANDSHAKE, offer, "", ""]
    async with running(push=make_push()) as port, await port.connect() as stream:
        await stream.send_all("\r\n".join(lines).encode())
        head = (await stream.receive_some()).partition(b"\r\n\r\n")[0].lower()

    assert head.startswith(b"http/1.1 101 ")
    assert b"sec-websocket-extensions" not in head


@pytest.mark.parametrize(
    "flood",
    [
        b"".join(b"X-%d: y\r\n" % number for number in range(5000)),
        b"X: " + b"y" * 100_000 + b"\r\n",
        b"X:y\r\n" * 10_000,
    ],
)
async def test_flood_of_headers_is_refused(flood: bytes) -> None:
    """Many, or one without end: what comes before the body has its bound."""
    async with running() as port:
        answer = Answer.of(await port.talk(GET[:-2] + flood + b"\r\n"))

        assert answer.status == 431
        assert await port.still_serves()


async def test_url_without_end_is_refused() -> None:
    """A path and a query are part of that bound."""
    async with running() as port:
        answer = Answer.of(
            await port.talk(b"GET /changes?channels=" + b"a," * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        )

        assert answer.status in (400, 414, 431)
        assert await port.still_serves()
