"""The admin port on real sockets: well-behaved peers, broken ones, failures of our own, and where it may listen."""

from __future__ import annotations

import random
import socket
import struct

import pytest
import trio
import trio.testing

from proxy.admin.http import Limits, serve_admin
from proxy.core.figures.stats import MetricFamily, Sample
from proxy.errors import ListenError
from proxy.events.event import Event

from .fakes import GET, LAST_GET, STATS, Answer, FakeSource, Port, read_all, read_one, running


async def _eventually_logged(capsys: pytest.CaptureFixture[str], words: str) -> str:
    seen = ""
    with trio.fail_after(10):
        while words not in seen:
            seen += capsys.readouterr().err
            await trio.sleep(0.005)
    return seen


async def test_serve_admin_reports_where_it_listens_and_answers() -> None:
    """The started value is the URL with the port that was taken; an answer is whole, dated and not to be kept."""
    async with running() as port:
        answer = await port.ask("GET /stats.json")

    assert port.url.startswith("http://127.0.0.1:")
    assert port.address[1] != 0
    assert (answer.status, answer.json) == (200, STATS)
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["date"].endswith(" GMT")


async def test_serve_admin_connection_serves_request_after_request() -> None:
    """A scraper keeps its connection."""
    async with running() as port, await port.connect() as stream:
        for _ in range(3):
            await stream.send_all(GET)
            assert (await read_one(stream)).json == STATS


async def test_serve_admin_pipelined_requests_are_answered_in_order() -> None:
    """Requests sent at once are answered one after the other."""
    async with running() as port:
        raw = await port.talk(GET.replace(b"/stats.json", b"/healthz") + GET + LAST_GET.replace(b"GET", b"HEAD"))

    assert raw.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert raw.index(b'{"alive": true}') < raw.index(b'{"version"')
    assert raw.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("size", [1, 7])
async def test_serve_admin_request_in_pieces_is_the_same_request(size: int) -> None:
    """Where a request is split does not matter."""
    async with running() as port, await port.connect() as stream:
        for start in range(0, len(LAST_GET), size):
            await stream.send_all(LAST_GET[start : start + size])
            await trio.lowlevel.checkpoint()
        answer = Answer.of(await read_all(stream))

    assert answer.json == STATS


async def test_serve_admin_head_sends_the_length_and_no_body() -> None:
    """HEAD answers as GET does, without the body, and leaves the connection in step."""
    async with running() as port, await port.connect() as stream:
        await stream.send_all(GET.replace(b"GET", b"HEAD") + LAST_GET)
        raw = await read_all(stream)

    head, _, rest = raw.partition(b"\r\n\r\n")
    full = Answer.of(rest)
    assert f"content-length: {len(full.body)}".encode() in head.lower()
    assert full.json == STATS


async def test_serve_admin_http_1_0_without_host_is_served() -> None:
    """The oldest of probes work."""
    async with running() as port:
        answer = Answer.of(await port.talk(b"GET /readyz HTTP/1.0\r\n\r\n"))

    assert answer.status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"Content-Length: 0\r\n\r\n",
    ],
)
async def test_serve_admin_body_is_read_and_dropped(body: bytes) -> None:
    """A body nobody wants does no harm, and the next request is found behind it."""
    async with running() as port:
        raw = await port.talk(b"POST /reload HTTP/1.1\r\nHost: localhost\r\n" + body + LAST_GET)

    assert raw.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert port.source.asked == ["reload"]


async def test_serve_admin_expecting_client_is_told_to_continue() -> None:
    """A client that waits for 100 Continue before its body gets it. RFC 9110 10.1.1."""
    request = b"POST /reload HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    async with running() as port, await port.connect() as stream:
        await stream.send_all(request)
        with trio.fail_after(10):
            interim = await stream.receive_some()
        await stream.send_all(b"hi")
        answer = await read_one(stream)

    assert interim.startswith(b"HTTP/1.1 100 ")
    assert answer.status == 200


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 9999999\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n"]
)
async def test_serve_admin_large_body_is_refused_and_nothing_done(framing: bytes) -> None:
    """A body over the limit ends the connection with 413, which the sender gets to read while it still sends."""
    limits = Limits(body_bytes=1000)
    async with running(limits=limits) as port:
        raw = await port.talk(b"POST /drain HTTP/1.1\r\nHost: localhost\r\n" + framing + b"x" * 100_000)

    assert Answer.of(raw).status == 413
    assert b"send it in parts" in raw
    assert port.source.asked == []


async def test_serve_admin_large_header_is_refused() -> None:
    """A header over the limit is answered with 431; memory is never taken for it."""
    async with running() as port:
        raw = await port.talk(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Big: " + b"x" * 200_000 + b"\r\n\r\n")
        survives = await port.still_serves()

    assert Answer.of(raw).status == 431
    assert b"larger than 32768 bytes" in raw
    assert survives


@pytest.mark.parametrize(
    "garbage",
    [
        b"*1\r\n$4\r\nPING\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
    ],
)
async def test_serve_admin_bad_request_is_refused_in_json(garbage: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no HTTP gets a 400 that says so, and leaves no trace in the log."""
    async with running() as port:
        answer = Answer.of(await port.talk(garbage))
        survives = await port.still_serves()

    assert answer.status == 400
    assert set(answer.json) == {"error", "help"}
    assert survives
    assert "Traceback" not in capsys.readouterr().err


async def test_serve_admin_random_bytes_never_harm_another_client(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever bytes come, a second client is served as before, and no error of ours is logged."""
    seeded = random.Random(20241124)
    async with running() as port, await port.connect() as bystander:
        for _ in range(60):
            noise = seeded.randbytes(seeded.randrange(1, 400))
            damaged = bytearray(LAST_GET)
            damaged[seeded.randrange(len(damaged))] = seeded.randrange(256)
            stream = await port.connect()
            async with stream:
                await stream.send_all(seeded.choice([noise, bytes(damaged), bytes(damaged[:-4]) + noise]))
                await stream.send_eof()
                await read_all(stream)
            await bystander.send_all(GET)
            assert (await read_one(bystander)).json == STATS

    assert "failed" not in capsys.readouterr().err


class _Failing(FakeSource):
    def stats(self) -> dict[str, object]:
        raise RuntimeError("no figures today")


async def test_serve_admin_failing_source_is_a_500_and_one_log_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Our own mistake costs one answer: the connection goes on, the log has the trace and not the query."""
    async with running(_Failing()) as port, await port.connect() as stream:
        await stream.send_all(GET.replace(b"/stats.json", b"/stats.json?key=very-private"))
        failed = await read_one(stream)
        await stream.send_all(GET.replace(b"/stats.json", b"/healthz"))
        following = await read_one(stream)
        logged = await _eventually_logged(capsys, "no figures today")

    assert (failed.status, following.status) == (500, 200)
    assert b"no figures today" not in failed.body
    assert "path=/stats.json" in logged
    assert "very-private" not in logged


async def test_serve_admin_drain_that_ends_the_port_is_still_answered() -> None:
    """Who asks for the end is told that it has begun, though it takes the port with it."""
    life = trio.CancelScope()
    source = FakeSource(on_drain=life.cancel)

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        with life:
            await serve_admin("http://127.0.0.1:0", "", source, task_status=task_status)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            url = await nursery.start(serve)
            answer = await Port(url, source).ask("POST /drain")

    assert (answer.status, answer.json) == (202, {"draining": True})
    assert source.asked == ["drain"]


async def test_serve_admin_drain_happens_though_nobody_waits_for_the_answer() -> None:
    """A drain that was asked for is done, even when whoever asked has gone."""
    drained = trio.Event()
    async with running(FakeSource(on_drain=drained.set)) as port:
        stream = await port.connect()
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.send_all(b"POST /drain HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await stream.aclose()

        with trio.fail_after(10):
            await drained.wait()


@pytest.mark.parametrize(
    ("url", "token", "words"),
    [
        ("redis://127.0.0.1:0", "", "http://"),
        ("http://127.0.0.1:99999", "", "port"),
        ("http://0.0.0.0:0", "", "admin_token"),
        ("http://no-such-host.invalid:0", "", "cannot be opened"),
        ("http://192.0.2.1:0", "t", "cannot be opened"),
    ],
)
async def test_serve_admin_address_that_cannot_be_served_raises(url: str, token: str, words: str) -> None:
    """A wrong, open or impossible address is refused before anything is served."""
    with pytest.raises(ListenError, match=words), trio.fail_after(10):
        await serve_admin(url, token, FakeSource())


async def test_serve_admin_taken_port_raises() -> None:
    """A port that somebody else has is named in the error."""
    async with running() as port:
        with pytest.raises(ListenError, match=port.url), trio.fail_after(10):
            await serve_admin(port.url, "", FakeSource())


async def test_serve_admin_open_bind_with_a_token_wants_it() -> None:
    """Beyond loopback the port serves who has the token; a probe needs none."""
    async with running(url="http://0.0.0.0:0", token="t0k") as served:
        port = Port(served.url.replace("0.0.0.0", "127.0.0.1"), served.source)
        statuses = [
            (await port.ask("GET /healthz")).status,
            (await port.ask("GET /stats.json")).status,
            (await port.ask("GET /stats.json", "Authorization: Bearer t0k")).status,
        ]

    assert statuses == [200, 401, 200]


async def test_serve_admin_many_metrics_arrive_whole() -> None:
    """An answer larger than a socket buffer arrives to its last byte."""
    samples = tuple(Sample("", {"n": str(n)}, float(n)) for n in range(30_000))
    async with running(FakeSource(metrics=(MetricFamily("respite_x", "gauge", "X.", samples),))) as port:
        answer = await port.ask("GET /metrics")

    assert len(answer.body) == int(answer.headers["content-length"])
    assert answer.body.endswith(b'respite_x{n="29999"} 29999.0\n')


async def test_port_hands_a_body_over_whole() -> None:
    """What is posted reaches the proxy, in however many pieces it came."""
    async with running() as port:
        stream = await port.connect()
        async with stream:
            head = "POST /invalidate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 17\r\n\r\n"
            await stream.send_all(head.encode())
            for piece in (b'{"keys"', b': ["a:1', b'"]}'):
                await trio.testing.wait_all_tasks_blocked()
                await stream.send_all(piece)
            answer = Answer.of(await read_all(stream))

        assert (answer.status, port.source.asked) == (200, [Event((b"a:1",))])


async def test_port_body_larger_than_the_limit_is_refused() -> None:
    """Nobody makes the port hold more than its limit; nothing of it is acted on."""
    async with running(limits=Limits(body_bytes=100)) as port:
        head = "POST /invalidate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 101\r\n\r\n"
        answer = Answer.of(await port.talk(head.encode() + b" " * 101))

        assert (answer.status, port.source.asked) == (413, [])
        assert "100 bytes" in answer.json["error"]
