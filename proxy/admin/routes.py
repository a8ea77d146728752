"""What the admin port answers: one table of paths, and the step from a parsed request to a whole response.

Owns who may ask (token, host, origin), which paths exist, and the words of every refusal. Knows no socket: `http.py`
reads requests and writes responses. A refusal is JSON: `error` says what is wrong and `help` what to do.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes, urlsplit

import attrs

from proxy import __version__
from proxy.admin.metrics import CONTENT_TYPE, render_metrics
from proxy.config.endpoint import is_loopback
from proxy.core.stats import MetricFamily
from proxy.errors import RemoteError
from proxy.events.event import Event, EventError, parse_event
from proxy.log import short

_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


class AdminSource(Protocol):
    """What the admin port needs from the proxy: one worker, which answers at once, or all of them, which are asked.

    Called on the trio thread. A cancelled call changes nothing but what it has already been asked for.
    """

    async def ready(self) -> tuple[bool, str]:
        """Say whether clients are being served, and why or why not in one line."""
        ...

    async def stats(self) -> dict[str, Any]:
        """Return the body of /stats.json."""
        ...

    async def families(self) -> Iterable[MetricFamily]:
        """Return every metric with its present value."""
        ...

    async def explain(self, key: bytes) -> dict[str, Any]:
        """Say what is known about a key, and why it is or is not served from L1."""
        ...

    async def reload(self) -> dict[str, Any]:
        """Apply a changed file; return {"applied": [...], "needs_restart": [...], "problems": [...]}."""
        ...

    async def invalidate(self, event: Event) -> dict[str, int]:
        """Drop it from both tiers; return {"keys", "entries", "fences"}: unlinked, gone from L1, put in force.

        Raises RemoteError, with the reason, when not all of it was done; asking again does no harm.
        """
        ...

    def drain(self) -> None:
        """Begin to stop: no new clients, what runs is finished. Returns at once; a second call changes nothing."""
        ...


@attrs.frozen
class Request:
    """A whole request. Header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""


@attrs.frozen
class Response:
    """A whole answer. `after`, if given, runs once the bytes are on their way: what ends the port is answered first."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    after: Callable[[], None] | None = None


@attrs.frozen
class Asked:
    """What a path is asked for besides itself: the query, undecoded, and the body."""

    query: str
    body: bytes


@attrs.frozen
class Route:
    """One path: its one method (HEAD comes with GET), a line for people, and what answers it."""

    method: str
    path: str
    about: str
    answer: Callable[[AdminSource, Asked], Awaitable[Response]]
    is_public: bool = False


async def respond(request: Request, token: str, source: AdminSource) -> Response:
    """Answer one request; never raises for what a client sent, lets through what `source` raises."""
    try:
        path, _, query = request.target.partition("?")
        if "://" in path:  # the absolute form, which proxies send; RFC 9112 3.2.2
            path = urlsplit(path).path
    except ValueError:
        return refusal(400, "the request target is no URL", "ask for a path such as /stats.json")
    routes = [route for route in ROUTES if route.path == path]
    if not (routes and routes[0].is_public):
        refused = _check_token(request, token) if token else _check_local(request)
        if refused is not None:
            return refused
    if not routes:
        return refusal(404, f"there is no {path}", "ask for one of `paths`", paths=_paths())
    asked = "GET" if request.method == "HEAD" else request.method
    for route in routes:
        if route.method == asked:
            return await route.answer(source, Asked(query, request.body))
    allowed = [method for route in routes for method in ([route.method, "HEAD"] if route.method == "GET" else ["POST"])]
    return attrs.evolve(
        refusal(405, f"{path} takes no {request.method}", f"use {' or '.join(allowed)}", paths=_paths()),
        headers=(("Allow", ", ".join(allowed)),),
    )


def refusal(status: int, error: str, help_text: str, **more: object) -> Response:
    """Make the answer to what cannot be served: what is wrong, what to do."""
    return _json({"error": error, "help": help_text, **more}, status=status)


def _check_token(request: Request, token: str) -> Response | None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Compared in constant time, as bytes: str comparison refuses what is not ASCII.
    if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), token.encode()):
        return None
    return attrs.evolve(
        refusal(
            401, "this admin port wants a token", "send `Authorization: Bearer TOKEN`, the TOKEN of listen.admin_token"
        ),
        headers=(("WWW-Authenticate", 'Bearer realm="respite"'),),
    )


def _check_local(request: Request) -> Response | None:
    """Refuse web pages: a browser on this machine reaches loopback, and any site can make it ask.

    A name other than ours in Host is how DNS rebinding looks; a foreign Origin is how a form on a foreign page looks.
    """
    host = request.headers.get("host", "")
    origin = request.headers.get("origin", "")
    try:
        hosts = [urlsplit(url).hostname or "" for url in (f"//{host}" if host else "", origin) if url]
    except ValueError:
        hosts = [""]
    if all(is_loopback(name) for name in hosts):
        return None
    return refusal(
        403,
        f"without a token only this machine's own names are served, not {host!r} from {origin or 'no origin'!r}",
        "ask for 127.0.0.1 or localhost, or set listen.admin_token",
    )


async def _index(_source: AdminSource, _asked: Asked) -> Response:
    lines = [f"Respite {__version__}", ""]
    lines += [f"{route.method:<5}{route.path:<15}{route.about}" for route in ROUTES]
    return Response(200, "text/plain; charset=utf-8", ("\n".join(lines) + "\n").encode())


async def _healthz(_source: AdminSource, _asked: Asked) -> Response:
    return _json({"alive": True})


async def _readyz(source: AdminSource, _asked: Asked) -> Response:
    is_ready, reason = await source.ready()
    return _json({"ready": is_ready, "reason": reason}, status=200 if is_ready else 503)


async def _metrics(source: AdminSource, _asked: Asked) -> Response:
    return Response(200, CONTENT_TYPE, render_metrics(await source.families()))


async def _stats(source: AdminSource, _asked: Asked) -> Response:
    return _json(await source.stats())


async def _explain(source: AdminSource, asked: Asked) -> Response:
    named = [value for name, _, value in (field.partition("=") for field in asked.query.split("&")) if name == "key"]
    if len(named) != 1 or _BROKEN_ESCAPE.search(named[0]):
        return refusal(
            400,
            "one key is wanted, percent-encoded",
            "ask for /explain.json?key=user%3A1; a byte that is no letter or digit is %XX, and + stands for itself",
        )
    return _json(await source.explain(unquote_to_bytes(named[0])))


async def _reload(source: AdminSource, _asked: Asked) -> Response:
    outcome = await source.reload()
    return _json(outcome, status=422 if outcome.get("problems") else 200)


async def _invalidate(source: AdminSource, asked: Asked) -> Response:
    try:
        event = parse_event(asked.body)
    except EventError as exc:
        return refusal(400, str(exc), 'send JSON such as {"keys": ["user:1"], "patterns": ["list:*"], "tags": ["t"]}')
    try:
        return _json(await source.invalidate(event))
    except RemoteError as exc:
        return refusal(503, f"not all of it was dropped: {exc}", "ask again once Redis answers; twice does no harm")


async def _drain(source: AdminSource, _asked: Asked) -> Response:
    return attrs.evolve(_json({"draining": True}, status=202), after=source.drain)


def _json(body: Mapping[str, Any], *, status: int = 200) -> Response:
    # allow_nan: NaN is no JSON, and a figure that is NaN is a mistake to be seen in a test, not by a parser elsewhere.
    text = json.dumps(body, default=_as_text, allow_nan=False)
    return Response(status, "application/json", text.encode() + b"\n")


def _as_text(value: object) -> str:
    return short(value) if isinstance(value, bytes) else str(value)


def _paths() -> list[str]:
    return [f"{route.method} {route.path}" for route in ROUTES]


ROUTES: Final = (
    Route("GET", "/", "this page", _index),
    Route("GET", "/healthz", "200 while the process lives; asks for no token", _healthz, is_public=True),
    Route("GET", "/readyz", "200 while clients are served, else 503 with the reason", _readyz),
    Route("GET", "/metrics", "figures for Prometheus", _metrics),
    Route("GET", "/stats.json", "figures for people and scripts: `respite stats`", _stats),
    Route("GET", "/explain.json", "what is known about one key, ?key=KEY: `respite explain`", _explain),
    Route("POST", "/invalidate", "drop keys, globs and tags from both tiers: `respite invalidate`", _invalidate),
    Route("POST", "/reload", "apply a changed configuration file: `respite reload`", _reload),
    Route("POST", "/drain", "finish what runs, then exit: `respite drain`", _drain),
)
