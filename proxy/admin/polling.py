"""The three ways to listen, up to where a stream begins: /ws, /events, and /changes for who can only ask.

    /ws       handshake of RFC 6455     -> Streaming, websocket.py
    /events   text/event-stream         -> Streaming, sse.py
    /changes  {"cursor": "E-7", "changes": [..], "complete": true, "poll_after_ms": 10000}

Owns what they have in common: how channels are named in a URL, who may hear them, and how a subscription is refused.
A client that polls has no place of its own: between two polls there is its cursor, and nothing else.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote_to_bytes

import attrs
import trio
from wsproto.utilities import generate_accept_token

from proxy.admin.access import SUBPROTOCOL, Visitor, denial, offered_subprotocols, unknown
from proxy.admin.answers import JSON, Kind, Request, Response, Streaming, refusal
from proxy.admin.pushing import Push, watched
from proxy.core.feed.feed import FeedError, Subscription

WAIT_MAX_S: Final = 30.0
# As many as fit a page of memory or two; who has more to hear asks again at once.
_CHANGES_A_POLL: Final = 1000
_RETRY_S: Final = 5
_HELP: Final = "ask for ?channels=ticket%3A7,tag%3Aqueue-1: keys, globs and tags, percent-encoded, with commas between"
_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@attrs.frozen
class Wish:
    """What somebody wants to hear: the query's `channels` and `since`, undecoded, and who it is."""

    request: Request
    visitor: Visitor
    channels: Sequence[str]
    since: str
    cors: tuple[tuple[str, str], ...]


async def open_websocket(push: Push | None, wish: Wish) -> Response | Streaming:
    """Accept a WebSocket, or say why not. Source: RFC 6455 4.2."""
    headers = wish.request.headers
    tokens = [token.strip() for token in headers.get("connection", "").lower().split(",")]
    if headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in tokens:
        return _upgrade("this path speaks WebSocket")
    if headers.get("sec-websocket-version") != "13":
        return _upgrade("only version 13 of WebSocket is spoken")
    key = headers.get("sec-websocket-key", "")
    if wish.request.method != "GET" or not _is_nonce(key):
        return refusal(400, "this is no handshake of a WebSocket", "see RFC 6455, section 4.1")
    subscription = await _subscribe(push, wish)
    if isinstance(subscription, Response):
        return subscription
    accepted = [("Upgrade", "websocket"), ("Connection", "Upgrade")]
    accepted.append(("Sec-WebSocket-Accept", generate_accept_token(key.encode()).decode()))
    if offered := offered_subprotocols(wish.request):
        # A browser that offered some takes none for a refusal.
        accepted.append(("Sec-WebSocket-Protocol", SUBPROTOCOL if SUBPROTOCOL in offered else offered[0]))
    return Streaming(Kind.WEBSOCKET, _head(101, accepted), subscription, wish.visitor.may_hear, wish.visitor.token)


async def open_events(push: Push | None, wish: Wish) -> Response | Streaming:
    """Accept a stream of server-sent events, or say why not."""
    if wish.request.method != "GET":
        return Response(200, "text/event-stream", b"")
    resumed = attrs.evolve(wish, since=wish.request.headers.get("last-event-id") or wish.since)
    subscription = await _subscribe(push, resumed)
    if isinstance(subscription, Response):
        return subscription
    headers = [
        ("Content-Type", "text/event-stream"),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Accel-Buffering", "no"),  # what stands between may not wait for more
        ("Connection", "close"),
        *wish.cors,
    ]
    return Streaming(Kind.EVENTS, _head(200, headers), subscription, wish.visitor.may_hear, wish.visitor.token)


async def poll(push: Push | None, wish: Wish, wait_s: float) -> Response:
    """Answer with what has changed since a cursor: at once, or when something has, at the latest after `wait_s`.

    A proxy that goes, and a request that is in a hurry, are answered with what there is.
    A cancellation loses nothing: who asks again with the same cursor hears it then.
    """
    subscription = await _subscribe(push, wish, polls=True)
    if isinstance(subscription, Response):
        return subscription
    assert push is not None
    try:
        with push.waiting():
            await watched(subscription)
        is_complete = subscription.begin()
        if not subscription.has_more and wait_s > 0:
            subscription.on_ready = wish.request.hurry.set
            with push.waiting(), trio.move_on_after(min(wait_s, WAIT_MAX_S)):
                await wish.request.hurry.wait()
        if not push.knows(wish.visitor.token):
            return unknown(is_push=True)
        changes = subscription.take(_CHANGES_A_POLL)
        after_ms = 0 if subscription.has_more else round(push.feed.poll_after(subscription.channels) * 1000)
        head = {"cursor": subscription.cursor, "complete": is_complete, "poll_after_ms": after_ms}
    finally:
        subscription.close()
    body = b'%b,"changes":[%b]}\n' % (json.dumps(head).encode()[:-1], b",".join(changes))
    return Response(200, JSON, body)


def read_channels(named: Iterable[str]) -> list[str]:
    """Read channels from the values of `channels=`, each once. Raises FeedError for what is badly encoded."""
    found: dict[str, None] = {}
    for name in (name for value in named for name in value.split(",") if name):
        if _BROKEN_ESCAPE.search(name):
            raise FeedError(f"{name[:80]!r} is badly encoded")
        found[unquote_to_bytes(name).decode("utf-8", "surrogateescape")] = None
    return list(found)


async def _subscribe(push: Push | None, wish: Wish, *, polls: bool = False) -> Subscription | Response:
    if push is None or push.settings.max_subscribers == 0:
        return refusal(404, "changes are told to nobody here", "set push.max_subscribers")
    try:
        channels = read_channels(wish.channels)
        if refused := await push.weigh(channels, wish.visitor.may_hear):
            return refusal(403, denial(refused), "ask for less, or for another token")
        if push.is_stopping:
            return _full("the proxy is going away")
        return push.feed.subscribe(channels, wish.since, poll=polls)
    except FeedError as exc:
        return _full(str(exc)) if exc.is_full else refusal(400, str(exc), _HELP)


def _full(why: str) -> Response:
    answer = refusal(503, why, "try again in a while, or raise push.max_subscribers")
    return attrs.evolve(answer, headers=(("Retry-After", str(_RETRY_S)),))


def _upgrade(why: str) -> Response:
    answer = refusal(426, why, "connect with a WebSocket client, or ask for /events or /changes")
    headers = (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"))
    return attrs.evolve(answer, headers=headers)


def _is_nonce(key: str) -> bool:
    try:
        return len(b64decode(key, validate=True)) == 16
    except ValueError:
        return False


def _head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
