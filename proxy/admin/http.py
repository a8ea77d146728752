"""The admin port's sockets: h11 on trio, one task a connection.

Owns the listeners and every connection's life. Decides nothing about an answer (`routes.py` does). A peer can cost it
one of `max_connections` places for the time of a deadline, and no more:

    accept -> [first byte: idle_s] -> [whole request: request_s] -> answer -> [write: write_s] -> again, or close

When all places are taken, the connection that has waited longest without sending a whole request makes room, so that a
probe still gets in while somebody holds connections open. Whatever one peer does ends its own connection only.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Final, Self

import attrs
import h11
import trio

from proxy import __version__
from proxy.admin.answers import Kind, Request, Response, Streaming, refusal
from proxy.admin.pushing import Push
from proxy.admin.routes import AdminSource, MonitorSource, Site, may_take_long, respond
from proxy.admin.sse import serve_events
from proxy.admin.websocket import serve_websocket
from proxy.config.endpoint import is_loopback, parse_admin_url
from proxy.errors import ListenError
from proxy.log import get_logger

_LOG: Final = get_logger("proxy.admin")
# Requests are a few hundred bytes; a page of memory is plenty.
_READ_BYTES: Final = 4096
_BODILESS: Final = (204, 304)  # have no body, and so no length of one
_NOT_UNDERSTOOD: Final = "send an HTTP/1.1 request, such as `curl http://HOST:PORT/stats.json`"


@attrs.frozen
class Limits:
    """What one peer may take. The defaults suit people, probes and scrapers; tests use shorter ones."""

    max_connections: int = 128
    idle_s: float = 75.0  # a scraper comes back every 15 to 60 s and should find its connection open
    request_s: float = 10.0
    write_s: float = 10.0
    linger_s: float = 1.0  # how long a refused sender is read on, so that the refusal is not lost to a reset
    header_bytes: int = 32 * 1024  # 256 channels of a hundred characters, percent-encoded
    body_bytes: int = 64 * 1024


async def serve_admin(
    url: str,
    token: str,
    source: AdminSource,
    *,
    monitor: MonitorSource | None = None,
    push: Push | None = None,
    limits: Limits | None = None,
    listeners: Iterable[trio.SocketListener] = (),
    closing: trio.Event | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the admin port at `url` until cancelled; reports, as its started value, the URL it listens on.

    `listeners` are those that `open_admin` has opened for it; once `closing` is set they are closed, and nobody new is
    accepted, while those who are connected are served on.

    With a `token`, everything wants it but /healthz and the dashboard's files; without one only loopback may be bound.
    Port 0 takes a free port. `monitor` None: there is no history; `push` None: nobody is told of changes. It is run
    here. Cancellation closes every connection at once, whatever state its peer is in.

    Raises ListenError, before it has started, when the URL is wrong, cannot be bound, or needs a token.
    """
    opened = list(listeners) or await open_admin(url, token)
    server = _Server(Site(source, token, monitor, push), limits or Limits())
    host, port = opened[0].socket.getsockname()[:2]
    task_status.started(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    async with trio.open_nursery() as nursery:
        if push is not None:
            nursery.start_soon(push.run)
        async with trio.open_nursery() as accepting:
            accepting.start_soon(partial(trio.serve_listeners, server.handle, opened, handler_nursery=nursery))
            await (trio.Event() if closing is None else closing).wait()
            accepting.cancel_scope.cancel()
        await trio.sleep_forever()


async def open_admin(url: str, token: str, given: Iterable[socket.socket] = ()) -> list[trio.SocketListener]:
    """Listen at `url`, or take the sockets that listen already; the caller closes them, or `serve_admin` does.

    Raises ListenError when the URL is wrong, cannot be bound, or needs a token.
    """
    try:
        host, port = parse_admin_url(url)
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in given]
        listeners = listeners or await trio.open_tcp_listeners(port, host=host)
    except ValueError as exc:
        raise ListenError(f"admin port: {exc}") from exc
    except OSError as exc:
        raise ListenError(f"admin port {url} cannot be opened: {exc.strerror or exc}") from exc
    # Judged by what was bound, not by the name: where localhost points is somebody else's file.
    if not token and not all(is_loopback(listener.socket.getsockname()[0]) for listener in listeners):
        for listener in listeners:
            listener.socket.close()
        raise ListenError(
            f"admin port {url} can be reached from other machines: set listen.admin_token, or bind 127.0.0.1"
        )
    return listeners


@attrs.define
class _Server:
    """What all connections share. `waiting` holds those without a whole request, longest first."""

    site: Site
    limits: Limits
    connected: int = 0
    waiting: dict[trio.CancelScope, None] = attrs.field(factory=dict)

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end; raises nothing but Cancelled, and closes the stream."""
        try:
            async with stream:
                connection = _Connection.over(stream, self)
                with self.place():
                    if self.connected > self.limits.max_connections and not self._make_room():
                        await connection.refuse(503, "too many connections to the admin port", "try again in a moment")
                        return
                    streaming = await connection.serve()
                if streaming is not None and self.site.push is not None:
                    await connection.give_to(streaming, self.site.push)
        except trio.BrokenResourceError:
            _LOG.debug("admin peer left")
        except Exception:
            _LOG.exception("admin connection failed")

    @contextmanager
    def place(self, count: int = 1) -> Iterator[None]:
        """Take a place among `max_connections` for the block; -1 gives it up for so long."""
        self.connected += count
        try:
            yield
        finally:
            self.connected -= count

    @contextmanager
    def wait(self) -> Iterator[trio.CancelScope]:
        """Put the enclosed wait under a scope that ends it when its place is needed; the caller moves its deadline."""
        with trio.CancelScope() as scope:
            self.waiting[scope] = None
            try:
                yield scope
            finally:
                self.waiting.pop(scope, None)

    def _make_room(self) -> bool:
        scope = next(iter(self.waiting), None)
        if scope is None:
            return False
        del self.waiting[scope]
        scope.cancel()
        return True


@attrs.define
class _Connection:
    """One peer: a h11 state machine and the stream it describes."""

    stream: trio.SocketStream
    server: _Server
    http: h11.Connection
    wait_s: float
    """How long the next request's first byte may take: short on a new connection, longer between two requests."""
    is_head: bool = False
    """Whether the present request asks for the headers alone; h11 does not keep the body back by itself."""

    @classmethod
    def over(cls, stream: trio.SocketStream, server: _Server) -> Self:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=server.limits.header_bytes)
        return cls(stream, server, http, server.limits.request_s)

    async def serve(self) -> Streaming | None:
        """Answer requests until the peer or a limit ends the connection, or one is answered by a stream.

        A cancelled answer is cut where it was.
        """
        while True:
            try:
                request = await self._next_request()
            except h11.RemoteProtocolError as exc:
                if exc.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
                    why = f"address and headers are larger than {self.server.limits.header_bytes} bytes"
                    await self.refuse(431, why, "send less of them: fewer channels at a time, or a glob for many")
                elif exc.error_status_hint == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                    await self.refuse(exc.error_status_hint, str(exc), "send it in parts: fewer keys at a time")
                else:
                    await self.refuse(exc.error_status_hint, str(exc), _NOT_UNDERSTOOD)
                return None
            if request is None:
                return None
            response = await self._answer(request)
            if isinstance(response, Streaming):
                return response
            try:
                await self._send(response)
            finally:
                if response.after is not None:
                    response.after()
            if self.http.our_state is not h11.DONE or self.http.their_state is not h11.DONE:
                await self._linger()
                return None
            self.http.start_next_cycle()
            self.is_head = False  # what comes next may be no request at all, and its refusal has a body
            self.wait_s = self.server.limits.idle_s

    async def refuse(self, status: int, error: str, help_text: str) -> None:
        """Answer and end the connection, if an answer can still be sent."""
        if self.http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._send(refusal(status, error, help_text), is_last=True)
            await self._linger()

    async def give_to(self, streaming: Streaming, push: Push) -> None:
        """Hand the connection over to a stream, with what its peer has sent already; returns when that has ended."""
        match streaming.kind:
            case Kind.WEBSOCKET:
                await serve_websocket(self.stream, streaming, push, self.http.trailing_data[0])
            case Kind.EVENTS:
                await serve_events(self.stream, streaming, push)

    async def _answer(self, request: Request) -> Response | Streaming:
        try:
            if may_take_long(request):
                return await self._answer_in_time(request)
            return await respond(request, self.server.site)
        except trio.BrokenResourceError:
            raise
        except Exception:
            # The query is left out: it may hold a key.
            path = request.target.partition("?")[0]
            _LOG.exception("admin request failed", method=request.method, path=path)
            return refusal(500, f"{path} failed", "the proxy's log has the details; please report it")

    async def _answer_in_time(self, request: Request) -> Response | Streaming:
        """Answer what may take long, in no place of the many; for a peer that leaves nothing is waited for.

        One that says no more may have left, or may want its answer still: it has it at once.

        Raises BrokenResourceError when it has left.
        """
        with self.server.place(-1):
            answer: Response | Streaming | None = None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._leave, request, nursery.cancel_scope)
                answer = await respond(request, self.server.site)
                nursery.cancel_scope.cancel()
            if answer is None:
                raise trio.BrokenResourceError("the peer has left")
            return answer

    async def _leave(self, request: Request, scope: trio.CancelScope) -> None:
        """Hurry the request of a peer that says no more; cancel a scope when it is gone. Who asks for more is there."""
        try:
            if not await self.stream.socket.recv(1, socket.MSG_PEEK):
                request.hurry.set()
        except OSError:
            scope.cancel()

    async def _next_request(self) -> Request | None:
        """Read one request with its body; None when the peer has gone, is too slow, or its place was needed."""
        limits = self.server.limits
        head: h11.Request | None = None
        body = bytearray()
        with self.server.wait() as scope:
            scope.deadline = trio.current_time() + self.wait_s
            is_begun = False
            while True:
                event = self.http.next_event()
                if not is_begun and (event is not h11.NEED_DATA or self.http.trailing_data[0]):
                    is_begun = True
                    scope.deadline = trio.current_time() + limits.request_s
                match event:
                    case h11.NEED_DATA:
                        if self.http.they_are_waiting_for_100_continue:
                            await self._write(self.http.send(h11.InformationalResponse(status_code=100, headers=[])))
                        self.http.receive_data(await self.stream.receive_some(_READ_BYTES))
                    case h11.Request():
                        head, self.is_head = event, event.method == b"HEAD"
                    case h11.Data():
                        body += event.data
                        if len(body) > limits.body_bytes:
                            raise h11.RemoteProtocolError(f"the body is larger than {limits.body_bytes} bytes", 413)
                    case h11.EndOfMessage() if head is not None:
                        return _request(head, bytes(body))
                    case _:  # ConnectionClosed, and PAUSED, which start_next_cycle has ruled out
                        return None
        if is_begun and trio.current_time() >= scope.deadline:  # else its place was needed
            await self.refuse(408, f"no whole request within {limits.request_s:g} s", _NOT_UNDERSTOOD)
        return None

    async def _send(self, response: Response, *, is_last: bool = False) -> None:
        headers = [
            ("Date", formatdate(usegmt=True)),
            ("Server", f"respite/{__version__}"),
            ("Content-Type", response.content_type),
            *(() if response.status in _BODILESS else (("Content-Length", str(len(response.body))),)),
            ("Cache-Control", response.cache_control),
            ("X-Content-Type-Options", "nosniff"),
            *response.headers,
        ]
        reason = HTTPStatus(response.status).phrase
        if is_last:
            headers.append(("Connection", "close"))
        events: list[h11.Event] = [
            h11.Response(status_code=response.status, headers=headers, reason=reason),
            h11.EndOfMessage(),
        ]
        if not self.is_head and response.body:
            events.insert(1, h11.Data(data=response.body))
        await self._write(b"".join(self.http.send(event) or b"" for event in events))

    async def _write(self, data: bytes | None) -> None:
        with trio.move_on_after(self.server.limits.write_s) as scope:
            await self.stream.send_all(data or b"")
        if scope.cancelled_caught:
            raise trio.BrokenResourceError("the peer does not read")

    async def _linger(self) -> None:
        """Read what a peer still sends after our last word: closing on unread bytes resets, and the answer is lost."""
        with trio.move_on_after(self.server.limits.linger_s):
            await self.stream.send_eof()
            while await self.stream.receive_some(_READ_BYTES):
                pass


def _request(head: h11.Request, body: bytes) -> Request:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    return Request(head.method.decode("latin-1"), head.target.decode("latin-1"), headers, body)
