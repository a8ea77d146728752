"""What the admin port answers: one table of paths, and the step from a parsed request to a whole response.

Owns which paths exist and what they give. Who may ask is decided in `access.py`. Knows no socket: `http.py` reads
requests and writes responses.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol
from urllib.parse import unquote, unquote_to_bytes

import attrs

from proxy import __version__
from proxy.admin.access import Gate, Visitor
from proxy.admin.answers import Request, Response, Streaming, in_json, refusal
from proxy.admin.metrics import CONTENT_TYPE, render_metrics
from proxy.admin.pages import Page, read_pages
from proxy.admin.polling import WAIT_MAX_S, Wish, open_events, open_websocket, poll
from proxy.admin.pushing import Push
from proxy.core.figures.snapshot import Snapshot
from proxy.core.figures.stats import MetricFamily
from proxy.errors import RemoteError
from proxy.events.event import Event, EventError, parse_event, with_trace

_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
# What a browser asks before it sends a header of its own; RFC 9110 9.3.7, Fetch 3.3.
_PREFLIGHT: Final = (
    ("Access-Control-Allow-Methods", "GET"),
    ("Access-Control-Allow-Headers", "Authorization, Last-Event-ID"),
    ("Access-Control-Max-Age", "600"),
)
_NO_MONITOR: Final = refusal(404, "nobody keeps a history here", "ask for /stats.json")


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

    async def snapshot(self) -> Snapshot:
        """Return everything at this moment: the body of /stats.json and the histograms behind its quantiles."""
        ...

    async def explain(self, key: bytes) -> dict[str, Any]:
        """Say what is known about a key, and why it is or is not served from L1."""
        ...

    async def reload(self) -> dict[str, Any]:
        """Apply a changed file; return {"applied": [...], "needs_restart": [...], "problems": [...]}.

        And "partly": True, where the file is right and some worker has not applied it.
        """
        ...

    async def invalidate(self, event: Event) -> dict[str, int]:
        """Drop it from both tiers; return {"keys", "entries", "fences"}: unlinked, gone from L1, put in force.

        Raises RemoteError, with the reason, when not all of it was done; asking again does no harm.
        """
        ...

    def drain(self) -> None:
        """Begin to stop: no new clients, what runs is finished. Returns at once; a second call changes nothing."""
        ...


class MonitorSource(Protocol):
    """What the admin port needs from whoever keeps the history of the figures."""

    def report(self) -> dict[str, Any]:
        """Return the body of /report.json."""
        ...

    def history(self, name: str, seconds: float, step: float) -> dict[str, Any]:
        """Return the body of /history.json. Raises ValueError: no such span or step; KeyError: no such figure."""
        ...


@attrs.define
class Site:
    """What one admin port serves, and to whom."""

    source: AdminSource
    token: str = attrs.field(repr=False, default="")
    monitor: MonitorSource | None = None
    push: Push | None = None
    pages: Mapping[str, Page] = attrs.field(factory=read_pages)

    @property
    def gate(self) -> Gate:
        """Who is let in at this moment."""
        if self.push is None:
            return Gate(self.token)
        return Gate(self.token, self.push.settings.tokens, self.push.settings.origins)


@attrs.frozen
class Asked:
    """A request to a path that there is, and by whom. The query's `fields` are undecoded."""

    request: Request
    path: str
    fields: tuple[tuple[str, str], ...]
    visitor: Visitor

    def every(self, name: str) -> list[str]:
        """Return the values of a field, in their order."""
        return [value for one, value in self.fields if one == name]

    def last(self, name: str, default: str) -> str:
        """Return the value of a field, of several the last one."""
        return (self.every(name) or [default])[-1]


@attrs.frozen
class Route:
    """One path: its one method (HEAD comes with GET), a line for people, and what answers it."""

    method: str
    path: str
    about: str
    answer: Callable[[Site, Asked], Awaitable[Response | Streaming]]
    is_public: bool = False
    """Whether anybody is answered, with no token and by whatever name."""
    is_push: bool = False
    """Whether a push token will do, pages from elsewhere may be let in, and the answer may take its time."""


async def respond(request: Request, site: Site) -> Response | Streaming:
    """Answer one request; never raises for what a client sent, lets through what the source raises."""
    query = request.target.partition("?")[2]
    try:
        path = request.path
    except ValueError:
        return refusal(400, "the request target is no URL", "ask for a path such as /stats.json")
    routes = [route for route in ROUTES if route.path == path] or ([_PAGE] if path in site.pages else [])
    if not (routes and routes[0].is_push):
        return await _answer(request, path, tuple(_fields(query)), routes, site)
    cors = site.gate.cors(request)
    if request.method == "OPTIONS" and cors:
        return Response(204, "text/plain", b"", (*cors, *_PREFLIGHT))
    answer = await _answer(request, path, tuple(_fields(query)), routes, site)
    return attrs.evolve(answer, headers=(*answer.headers, *cors)) if isinstance(answer, Response) else answer


def may_take_long(request: Request) -> bool:
    """Say whether the answer to a request may be long in coming."""
    try:
        path = request.path
    except ValueError:
        return False
    return any(route.is_push and route.path == path for route in ROUTES)


async def _answer(
    request: Request, path: str, fields: tuple[tuple[str, str], ...], routes: list[Route], site: Site
) -> Response | Streaming:
    is_push = any(route.is_push for route in routes)
    is_public = any(route.is_public for route in routes)
    visitor = Visitor() if is_public else site.gate.admit(request, dict(fields), is_push=is_push)
    if isinstance(visitor, Response):
        return visitor
    if not routes:
        return refusal(404, f"there is no {path}", "ask for one of `paths`", paths=_paths())
    asked = "GET" if request.method == "HEAD" else request.method
    for route in routes:
        if route.method == asked:
            return await route.answer(site, Asked(request, path, fields, visitor))
    allowed = [method for route in routes for method in ([route.method, "HEAD"] if route.method == "GET" else ["POST"])]
    return attrs.evolve(
        refusal(405, f"{path} takes no {request.method}", f"use {' or '.join(allowed)}", paths=_paths()),
        headers=(("Allow", ", ".join(allowed)),),
    )


def _fields(query: str) -> Iterator[tuple[str, str]]:
    for field in query.split("&"):
        name, _, value = field.partition("=")
        yield name, value


async def _page(site: Site, asked: Asked) -> Response:
    return site.pages[asked.path].answer(asked.request.headers.get("if-none-match", ""))


async def _help(_site: Site, _asked: Asked) -> Response:
    lines = [f"Respite {__version__}", ""]
    lines += [f"{route.method:<5}{route.path:<15}{route.about}" for route in ROUTES]
    return Response(200, "text/plain; charset=utf-8", ("\n".join(lines) + "\n").encode())


async def _healthz(_site: Site, _asked: Asked) -> Response:
    return in_json({"alive": True})


async def _readyz(site: Site, _asked: Asked) -> Response:
    is_ready, reason = await site.source.ready()
    return in_json({"ready": is_ready, "reason": reason}, status=200 if is_ready else 503)


async def _metrics(site: Site, _asked: Asked) -> Response:
    return Response(200, CONTENT_TYPE, render_metrics(await site.source.families()))


async def _stats(site: Site, _asked: Asked) -> Response:
    return in_json(await site.source.stats())


async def _report(site: Site, _asked: Asked) -> Response:
    return _NO_MONITOR if site.monitor is None else in_json(site.monitor.report())


async def _history(site: Site, asked: Asked) -> Response:
    if site.monitor is None:
        return _NO_MONITOR
    try:
        name = unquote(asked.last("figure", ""))
        seconds, step = float(asked.last("seconds", "300")), float(asked.last("step", "1"))
        return in_json(site.monitor.history(name, seconds, step))
    except (KeyError, ValueError) as exc:
        return refusal(400, str(exc.args[0]), "ask for /history.json?figure=hit_rate&seconds=300&step=1")


async def _explain(site: Site, asked: Asked) -> Response:
    named = asked.every("key")
    if len(named) != 1 or _BROKEN_ESCAPE.search(named[0]):
        return refusal(
            400,
            "one key is wanted, percent-encoded",
            "ask for /explain.json?key=user%3A1; a byte that is no letter or digit is %XX, and + stands for itself",
        )
    return in_json(await site.source.explain(unquote_to_bytes(named[0])))


async def _websocket(site: Site, asked: Asked) -> Response | Streaming:
    return await open_websocket(site.push, _wish(site, asked))


async def _events(site: Site, asked: Asked) -> Response | Streaming:
    return await open_events(site.push, _wish(site, asked))


async def _changes(site: Site, asked: Asked) -> Response:
    try:
        wait_s = float(asked.last("wait", "0"))
    except ValueError:
        wait_s = -1
    if not wait_s >= 0:  # NaN is not, either
        return refusal(400, "wait is a number of seconds", f"ask for &wait=10, at most {WAIT_MAX_S:g}")
    return await poll(site.push, _wish(site, asked), wait_s)


def _wish(site: Site, asked: Asked) -> Wish:
    since = unquote(asked.last("since", ""))
    return Wish(asked.request, asked.visitor, asked.every("channels"), since, site.gate.cors(asked.request))


async def _reload(site: Site, _asked: Asked) -> Response:
    outcome = await site.source.reload()
    return in_json(outcome, status=422 if outcome.get("problems") else 200)


async def _invalidate(site: Site, asked: Asked) -> Response:
    try:
        event = with_trace(parse_event(asked.request.body), asked.request.headers.get("traceparent"))
    except EventError as exc:
        return refusal(400, str(exc), 'send JSON such as {"keys": ["user:1"], "patterns": ["list:*"], "tags": ["t"]}')
    try:
        return in_json(await site.source.invalidate(event))
    except RemoteError as exc:
        return refusal(503, f"not all of it was dropped: {exc}", "ask again once Redis answers; twice does no harm")


async def _drain(site: Site, _asked: Asked) -> Response:
    return attrs.evolve(in_json({"draining": True}, status=202), after=site.source.drain)


def _paths() -> list[str]:
    return [f"{route.method} {route.path}" for route in ROUTES]


# What the dashboard is made of besides its page.
_PAGE: Final = Route("GET", "", "", _page, is_public=True)

ROUTES: Final = (
    Route("GET", "/", "the dashboard", _page, is_public=True),
    Route("GET", "/respite.js", "a client for /ws, /events and /changes, for pages of your own", _page, is_public=True),
    Route("GET", "/help", "this list", _help),
    Route("GET", "/healthz", "200 while the process lives; asks for no token", _healthz, is_public=True),
    Route("GET", "/readyz", "200 while clients are served, else 503 with the reason", _readyz),
    Route("GET", "/metrics", "figures for Prometheus", _metrics),
    Route("GET", "/stats.json", "figures for people and scripts: `respite stats`", _stats),
    Route("GET", "/report.json", "cache, queue, polling, overall: health with its reasons", _report),
    Route("GET", "/history.json", "one figure's past, ?figure=NAME&seconds=300&step=1", _history),
    Route("GET", "/explain.json", "what is known about one key, ?key=KEY: `respite explain`", _explain),
    Route("GET", "/ws", "changes as they happen, by WebSocket, ?channels=a,b&since=CURSOR", _websocket, is_push=True),
    Route("GET", "/events", "the same as server-sent events", _events, is_push=True),
    Route("GET", "/changes", "the same for who asks now and then, &wait=SECONDS", _changes, is_push=True),
    Route("POST", "/invalidate", "drop keys, globs and tags from both tiers: `respite invalidate`", _invalidate),
    Route("POST", "/reload", "apply a changed configuration file: `respite reload`", _reload),
    Route("POST", "/drain", "finish what runs, then exit: `respite drain`", _drain),
)
