"""Notices to a web server that a test plays, with real sockets."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
import trio
import trustme

from proxy.admin import webhook
from proxy.admin.webhook import MOST, Webhooks

OK = b"HTTP/1.1 204 No Content\r\n\r\n"


@attrs.define
class Hook:
    """A web server: what it got, and what it answers next; b"" hangs up, None never answers."""

    answers: list[bytes | None] = attrs.field(factory=list)
    heads: list[bytes] = attrs.field(factory=list)
    bodies: list[Any] = attrs.field(factory=list)
    port: int = 0
    came: trio.Event = attrs.field(factory=trio.Event)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Read one request and answer it."""
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = await stream.receive_some()
            if not chunk:
                return
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        size = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-len"))
        while len(body) < size:
            body += await stream.receive_some()
        self.heads.append(head)
        self.bodies.append(json.loads(body))
        self.came.set()
        self.came = trio.Event()
        answer = self.answers.pop(0) if self.answers else OK
        if answer is None:
            await trio.sleep_forever()
        elif answer:
            await stream.send_all(answer)
        await stream.aclose()

    async def wait(self, count: int) -> None:
        """Return once so many have come."""
        with trio.fail_after(10):
            while len(self.bodies) < count:
                await self.came.wait()


@asynccontextmanager
async def _hook(
    *answers: bytes | None, wrap: Callable[[trio.abc.Stream], trio.abc.Stream] = lambda stream: stream
) -> AsyncIterator[Hook]:
    hook = Hook(list(answers))

    async def handle(stream: trio.SocketStream) -> None:
        try:
            await hook.serve(wrap(stream))
        except trio.BrokenResourceError:
            await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        hook.port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield hook
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _running() -> AsyncIterator[Webhooks]:
    webhooks = Webhooks()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(webhooks.run)
        yield webhooks
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(webhook, "LONGEST_PAUSE_S", 0.002)


async def test_offer_is_posted_as_json_to_path_and_query() -> None:
    """One POST a notice, in their order, with what a web server wants to know."""
    async with _hook() as hook, _running() as webhooks:
        for number in range(3):
            webhooks.offer({"text": f"n{number} ä"}, f"http://127.0.0.1:{hook.port}/hooks/s3cret?a=b")
        await hook.wait(3)

    assert [one["text"] for one in hook.bodies] == ["n0 ä", "n1 ä", "n2 ä"]
    lines = hook.heads[0].decode().split("\r\n")
    assert lines[0] == "POST /hooks/s3cret?a=b HTTP/1.1"
    assert f"Host: 127.0.0.1:{hook.port}" in lines
    assert "Content-Type: application/json" in lines


@pytest.mark.parametrize(
    ("user", "said"), [("ops:p%40ss@", "b3BzOnBAc3M="), ("t0ken@", "dDBrZW46"), (":x@", "Ong="), ("", "")]
)
async def test_offer_with_credentials_in_the_url_sends_them(user: str, said: str) -> None:
    """As every client of the web does: a receiver that asks for a password gets it, and nobody else."""
    async with _hook() as hook, _running() as webhooks:
        webhooks.offer({"n": 0}, f"http://{user}127.0.0.1:{hook.port}/hook")
        await hook.wait(1)

    lines = hook.heads[0].decode().split("\r\n")
    assert [line for line in lines if line.startswith("Authorization")] == [f"Authorization: Basic {said}"][: len(said)]
    assert f"Host: 127.0.0.1:{hook.port}" in lines


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 429 Slow Down\r\n\r\n",
        b"",
        b"what\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 No\r\n\r\n",
    ],
)
async def test_offer_that_is_not_taken_is_posted_again(answer: bytes) -> None:
    """A server that is busy, restarts or stammers gets it once more, and the ones after it in their order."""
    async with _hook(answer, answer) as hook, _running() as webhooks:
        for number in range(2):
            webhooks.offer({"n": number}, f"http://127.0.0.1:{hook.port}/")
        await hook.wait(4)

    assert [one["n"] for one in hook.bodies] == [0, 0, 0, 1]
    assert webhooks.dropped == 0


@pytest.mark.parametrize("status", [302, 400, 401, 404, 410])
async def test_offer_that_is_refused_for_good_is_given_up(status: int) -> None:
    """What is wrong with it stays wrong; a redirect is not followed: it could lead anywhere."""
    answer = f"HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:1/\r\n\r\n".encode()
    with structlog.testing.capture_logs() as logs:
        async with _hook(answer) as hook, _running() as webhooks:
            for number in range(2):
                webhooks.offer({"n": number}, f"http://127.0.0.1:{hook.port}/s3cret")
            await hook.wait(2)

    assert [one["n"] for one in hook.bodies] == [0, 1]
    assert webhooks.dropped == 1
    (said,) = logs
    assert (said["webhook"], said["why"]) == (f"http://127.0.0.1:{hook.port}", f"it was answered with {status}")
    assert "s3cret" not in str(logs)


async def test_offer_that_is_never_taken_is_given_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten attempts; it is said at the first and at the last."""
    monkeypatch.setattr(webhook, "ATTEMPTS", 4)
    with structlog.testing.capture_logs() as logs:
        async with _hook(*[b"HTTP/1.1 500 No\r\n\r\n"] * 4) as hook, _running() as webhooks:
            webhooks.offer({"n": 0}, f"http://127.0.0.1:{hook.port}/")
            webhooks.offer({"n": 1}, f"http://127.0.0.1:{hook.port}/")
            await hook.wait(5)

    assert [one["n"] for one in hook.bodies] == [0, 0, 0, 0, 1]
    assert [one["event"] for one in logs] == [
        "a notice was not taken, it is posted again",
        "a notice was not taken, it is given up",
    ]


async def test_offer_to_one_that_never_answers_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a deadline, and others have a task of their own."""
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.2)
    async with _hook(None) as silent, _hook() as hook, _running() as webhooks:
        webhooks.offer({"n": 0}, f"http://127.0.0.1:{silent.port}/")
        webhooks.offer({"n": 1}, f"http://127.0.0.1:{hook.port}/")
        await hook.wait(1)
        assert len(silent.bodies) <= 1
        await silent.wait(2)

    assert [one["n"] for one in silent.bodies] == [0, 0]


async def test_offer_of_more_than_can_wait_forgets_the_oldest() -> None:
    """Nothing grows while nobody takes them; the newest is what counts."""
    webhooks = Webhooks()
    for number in range(MOST + 5):
        webhooks.offer({"n": number}, "http://127.0.0.1:1/")

    assert webhooks.dropped == 5
    (target,) = webhooks._targets.values()
    assert len(target.bodies) == MOST
    assert json.loads(target.bodies[0])["n"] == 5


async def test_offer_before_anybody_listens_waits_for_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is refused is an attempt as any other."""
    monkeypatch.setattr(webhook, "LONGEST_PAUSE_S", 1.0)
    hook = Hook()
    socket = trio.socket.socket()
    await socket.bind(("127.0.0.1", 0))  # nobody else gets the port, and nobody listens yet
    async with _running() as webhooks, trio.open_nursery() as nursery:
        with structlog.testing.capture_logs() as logs:
            webhooks.offer({"n": 0}, f"http://127.0.0.1:{socket.getsockname()[1]}/")
            with trio.fail_after(10):
                while not logs:
                    await trio.sleep(0.001)
        socket.listen()
        nursery.start_soon(trio.serve_listeners, hook.serve, [trio.SocketListener(socket)])
        await hook.wait(1)
        nursery.cancel_scope.cancel()

    assert hook.bodies == [{"n": 0}]


async def test_offer_over_tls_checks_the_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes to who has a certificate of an authority of the system, and to nobody else."""
    authority, other = trustme.CA(), trustme.CA()
    contexts = [ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2)]
    authority.issue_cert("localhost").configure_cert(contexts[0])
    other.issue_cert("localhost").configure_cert(contexts[1])
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setattr(webhook, "ATTEMPTS", 1)

    def wrap(context: ssl.SSLContext) -> Callable[[trio.abc.Stream], trio.abc.Stream]:
        return lambda stream: trio.SSLStream(stream, context, server_side=True)

    with structlog.testing.capture_logs() as logs:
        async with (
            _hook(wrap=wrap(contexts[0])) as right,
            _hook(wrap=wrap(contexts[1])) as wrong,
            _running() as webhooks,
        ):
            webhooks.offer({"n": 0}, f"https://localhost:{wrong.port}/")
            with trio.fail_after(10):
                while not webhooks.dropped:
                    await trio.sleep(0.01)
            webhooks.offer({"n": 1}, f"https://localhost:{right.port}/x")
            await right.wait(1)

    assert (right.bodies, wrong.bodies) == ([{"n": 1}], [])
    assert ["a notice was not taken, it is given up"] == [one["event"] for one in logs]
    assert "certificate verify failed" in logs[0]["why"]
