"""The first words with a server on the invalidation link: is it ready, and what is it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proxy.core.session import Identity
from proxy.errors import HandshakeError, RemoteError
from proxy.net.links.dial import Stream, Upstream, open_stream
from proxy.net.links.gate import check_ready
from proxy.wire.encode import command
from proxy.wire.greeting import QUESTIONS, Greeting, read_greeting

_FIRST: Final = (command("PING"), *QUESTIONS)


async def greet(upstream: Upstream, identity: Identity, also_cached: Sequence[str]) -> tuple[Stream, Greeting]:
    """Connect, and hear what the server is. Raises RemoteError; nothing stays open then."""
    try:
        stream, raw = await open_stream(upstream, identity, 0, 3, "respite-control", *_FIRST)
    except HandshakeError as exc:
        if not exc.reply.lower().startswith(b"-err unknown command"):
            raise
        # No HELLO: a server before 6, which cannot track. Its commands are still worth knowing.
        stream, raw = await open_stream(upstream, identity, 0, 2, "respite-control", *_FIRST)
        raw[3] = b":0\r\n"
    check_ready(stream, raw[0])
    try:
        return stream, read_greeting(raw[1:], also_cached)
    except RemoteError:
        stream.close()
        raise
