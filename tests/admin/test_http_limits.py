"""What one peer can take of the admin port: slow, silent, stalled, too many, and still there at the end."""

from __future__ import annotations

import socket
import struct

import pytest
import trio

from proxy.admin.http import Limits

from .fakes import GET, LAST_GET, Answer, FakeSource, read_all, read_one, running

SHORT = Limits(idle_s=0.2, request_s=0.2, write_s=0.2, linger_s=0.1)


def large() -> FakeSource:
    """Make a source whose figures are more than every buffer between two sockets of one machine holds."""
    return FakeSource(answers={"padding": "x" * (32 << 20)})


async def test_serve_admin_silent_client_is_closed() -> None:
    """A connection on which nothing is said ends without a word."""
    async with running(limits=SHORT) as port:
        assert await port.talk(b"") == b""


async def test_serve_admin_half_request_times_out() -> None:
    """A request that stays half is answered with 408 and ended."""
    async with running(limits=SHORT) as port:
        answer = Answer.of(await port.talk(GET[:-2]))

    assert (answer.status, answer.headers["connection"]) == (408, "close")


async def test_serve_admin_half_body_times_out() -> None:
    """A body that stays half is no request, and does nothing."""
    async with running(limits=SHORT) as port:
        answer = Answer.of(
            await port.talk(b"POST /drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
        )

    assert answer.status == 408
    assert port.source.asked == []


async def test_serve_admin_trickling_client_has_one_deadline() -> None:
    """A byte now and then does not buy more time (slow loris)."""
    async with running(limits=SHORT) as port, await port.connect() as stream:
        await stream.send_all(GET[:-2])
        answers: list[bytes] = []
        async with trio.open_nursery() as nursery:

            async def trickle() -> None:
                while True:
                    await stream.send_all(b"X: y\r\n")
                    await trio.sleep(0.02)

            nursery.start_soon(trickle)
            with trio.fail_after(10):
                answers.append(await stream.receive_some())
            nursery.cancel_scope.cancel()

    assert Answer.of(answers[0]).status == 408


async def test_serve_admin_kept_connection_is_closed_when_idle() -> None:
    """Between two requests a connection may rest for so long, then it is closed without a word."""
    async with running(limits=SHORT) as port, await port.connect() as stream:
        await stream.send_all(GET)
        await read_one(stream)

        assert await read_all(stream) == b""


async def test_serve_admin_half_request_on_a_kept_connection_has_the_deadline_of_a_request() -> None:
    """The longer time a kept connection may rest ends with the next request's first byte."""
    async with running(limits=Limits(idle_s=60, request_s=0.2)) as port, await port.connect() as stream:
        await stream.send_all(GET)
        await read_one(stream)
        await stream.send_all(GET[:10])

        assert Answer.of(await read_all(stream)).status == 408


async def test_serve_admin_client_that_does_not_read_is_cut_off() -> None:
    """An answer nobody takes is held for the write deadline and no longer; others are served meanwhile."""
    async with running(large(), limits=SHORT) as port, await port.connect() as stalled:
        await stalled.send_all(GET)
        assert await port.still_serves()
        with trio.fail_after(10):
            while True:  # until the port has closed, which a send finds out
                try:
                    await stalled.send_all(b"GET")
                except trio.BrokenResourceError:
                    break
                await trio.sleep(0.01)


async def test_serve_admin_reset_by_peer_ends_that_connection_only(capsys: pytest.CaptureFixture[str]) -> None:
    """A peer that resets in the middle of anything is no error of ours."""
    async with running(large()) as port:
        for sent in (b"", GET[:10], GET, GET + GET[:10]):
            stream = await port.connect()
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if sent:
                await stream.send_all(sent)
            stream.socket.close()
        assert await port.still_serves()

    assert "failed" not in capsys.readouterr().err


async def test_serve_admin_full_port_closes_the_longest_waiting() -> None:
    """When all places are taken by connections that ask nothing, the oldest makes room for who asks."""
    async with running(limits=Limits(max_connections=3)) as port:
        idle = [await port.connect() for _ in range(3)]
        for stream in idle:  # an answer each, so that they wait in this order
            await stream.send_all(GET)
            await read_one(stream)
        await idle[0].send_all(GET[:20])  # half a request is no better than none

        answer = await port.ask("GET /stats.json")

        assert answer.status == 200
        assert await read_all(idle[0]) == b""
        for stream in idle[1:]:
            await stream.send_all(LAST_GET)
            assert Answer.of(await read_all(stream)).status == 200
        for stream in idle:
            await stream.aclose()


async def test_serve_admin_full_of_busy_connections_says_so() -> None:
    """When every place is held by somebody being answered, who comes is told to come back."""
    async with running(large(), limits=Limits(max_connections=2)) as port:
        busy = [await port.connect() for _ in range(2)]
        for stream in busy:
            await stream.send_all(GET)
            with trio.fail_after(10):
                assert await stream.receive_some(1) == b"H"  # its answer has begun, and does not end

        answer = await port.ask("GET /stats.json")

        assert answer.status == 503
        for stream in busy:
            await stream.aclose()
        with trio.fail_after(10):
            while not await port.still_serves():
                await trio.sleep(0.005)


async def test_serve_admin_cancelled_ends_at_once_whatever_clients_do() -> None:
    """A stalled reader, a half request and an idle connection do not hold up the end."""
    async with running(large()) as port:
        streams = [await port.connect() for _ in range(3)]
        await streams[0].send_all(GET)
        with trio.fail_after(10):
            await streams[0].receive_some(1)
        await streams[1].send_all(GET[:10])
        await streams[2].send_all(GET.replace(b"/stats.json", b"/healthz"))
        await read_one(streams[2])
        began = trio.current_time()
    took_s = trio.current_time() - began

    assert took_s < 0.1
    with pytest.raises(OSError, match="connect"):
        await port.connect()
    for stream in streams:
        await stream.aclose()
