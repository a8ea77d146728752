"""Notices of alerts to URLs: a POST of JSON each, in their order, tried again until they are taken or too old.

    offer --> one queue a URL, bounded, the oldest goes first --> one task a URL: POST, wait longer each time it fails

Owns the requests, their deadlines and their repeats. A URL may hold a secret: only its scheme and host are ever
logged. Redirects are not followed: a notice goes where it was told to, nowhere else.
"""

from __future__ import annotations

import json
import random
import ssl
from base64 import b64encode
from collections import deque
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

import attrs
import h11
import trio

from proxy import __version__
from proxy.config.alert_conditions import Notify
from proxy.log import get_logger

TIMEOUT_S: Final = 10.0  # of one attempt, from the look-up of the name to the status
MOST: Final = 100  # that wait for one URL
MOST_URLS: Final = 64
ATTEMPTS: Final = 10
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 120.0
_CHUNK: Final = 65536
# The other side was late or busy; any other refusal is its last word.
_TRY_AGAIN: Final = frozenset({408, 425, 429})
log = get_logger("webhook")


class WebhookError(Exception):
    """A notice was not taken. `is_final`: nor will it ever be."""

    def __init__(self, why: str, *, is_final: bool = False) -> None:
        super().__init__(why)
        self.is_final = is_final


@attrs.define
class _Target:
    url: SplitResult
    shown: str
    bodies: deque[bytes] = attrs.field(factory=deque)
    filled: trio.Event = attrs.field(factory=trio.Event)


class Webhooks:
    """Posts to any number of URLs; one that is slow holds up no other."""

    def __init__(self) -> None:
        self.dropped = 0
        self._targets: dict[str, _Target] = {}
        self._new: trio.Event = trio.Event()
        self._unserved: deque[_Target] = deque()
        self._context: ssl.SSLContext | None = None

    def offer(self, body: Mapping[str, Any], target: str) -> None:
        """Have it posted; of more than MOST that wait for one URL, the oldest is forgotten."""
        found = self._targets.get(target)
        if found is None:
            if len(self._targets) >= MOST_URLS:  # only reloads, again and again, bring so many
                self.dropped += 1
                return
            found = _Target(urlsplit(target), Notify("webhook", target).display)
            self._targets[target] = found
            self._unserved.append(found)
            self._new.set()
        if len(found.bodies) >= MOST:
            found.bodies.popleft()
            self.dropped += 1
            log.warning("too many notices wait for a webhook, the oldest is forgotten", webhook=found.shown)
        found.bodies.append(json.dumps(body).encode())
        found.filled.set()

    async def run(self) -> None:
        """Post until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                while self._unserved:
                    nursery.start_soon(self._serve, self._unserved.popleft())
                self._new = trio.Event()
                await self._new.wait()

    async def _serve(self, target: _Target) -> None:
        while True:
            while not target.bodies:
                target.filled = trio.Event()
                await target.filled.wait()
            await self._deliver(target, target.bodies.popleft())

    async def _deliver(self, target: _Target, body: bytes) -> None:
        pause_s = FIRST_PAUSE_S
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with trio.fail_after(TIMEOUT_S):
                    await self._post(target.url, body)
            except (WebhookError, OSError, trio.BrokenResourceError, trio.TooSlowError) as exc:
                why = _why(exc)
                is_last = attempt == ATTEMPTS or (isinstance(exc, WebhookError) and exc.is_final)
                if is_last:
                    self.dropped += 1
                    log.warning("a notice was not taken, it is given up", webhook=target.shown, why=why)
                    return
                if attempt == 1:
                    log.warning("a notice was not taken, it is posted again", webhook=target.shown, why=why)
            else:
                return
            await trio.sleep(pause_s * (0.5 + random.random() / 2))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _post(self, url: SplitResult, body: bytes) -> None:
        """Post once. Raises WebhookError for an answer other than 2xx, OSError and trio's for the way there."""
        host = url.hostname or ""
        port = url.port or (443 if url.scheme == "https" else 80)
        stream: trio.abc.Stream = await trio.open_tcp_stream(host, port)
        async with stream:
            if url.scheme == "https":
                if self._context is None:  # reads all authorities of the system, which takes tens of milliseconds
                    self._context = await trio.to_thread.run_sync(ssl.create_default_context)
                stream = trio.SSLStream(stream, self._context, server_hostname=host, https_compatible=True)
            status = await _exchange(stream, _request(url, body), body)
        if not 200 <= status < 300:
            is_final = 300 <= status < 500 and status not in _TRY_AGAIN
            raise WebhookError(f"it was answered with {status}", is_final=is_final)


def _why(exc: Exception) -> str:
    if isinstance(exc, trio.TooSlowError):
        return "no answer in time"
    return str(exc) or str(exc.__cause__ or "") or type(exc).__name__  # of TLS only the cause has words


def _request(url: SplitResult, body: bytes) -> h11.Request:
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    headers = [
        ("Host", url.netloc.rpartition("@")[2]),
        ("User-Agent", f"respite/{__version__}"),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    credentials, at, _ = url.netloc.rpartition("@")
    if at:  # percent-encoded in the URL; RFC 7617
        user, _, password = credentials.partition(":")
        pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
        headers.append(("Authorization", f"Basic {b64encode(pair).decode()}"))
    return h11.Request(method="POST", target=target, headers=headers)


async def _exchange(stream: trio.abc.Stream, request: h11.Request, body: bytes) -> int:
    """Send a request and return the status of its answer, whose body nobody wants."""
    connection = h11.Connection(h11.CLIENT)
    raw = [connection.send(request), connection.send(h11.Data(data=body)), connection.send(h11.EndOfMessage())]
    await stream.send_all(b"".join(part for part in raw if part))
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(_CHUNK)))
            elif isinstance(event, h11.Response):
                return event.status_code
            elif not isinstance(event, h11.InformationalResponse):
                raise WebhookError("it hung up without an answer")
    except h11.RemoteProtocolError as exc:
        raise WebhookError(f"its answer is no HTTP: {exc}") from exc
