"""Questions and answers between two ends of a socket pair, in one process."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from proxy.errors import RemoteError
from proxy.supervisor.channel import MESSAGE_MAX, QUEUED, Channel, Handler, NoAnswerError


@attrs.define
class Pair:
    """Both ends, running."""

    left: Channel
    right: Channel
    nursery: trio.Nursery
    right_scope: trio.CancelScope


@asynccontextmanager
async def _pair(
    left: Mapping[str, Handler] | None = None, right: Mapping[str, Handler] | None = None
) -> AsyncIterator[Pair]:
    ours, theirs = socket.socketpair()
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        pair = Pair(Channel(ours, left or {}), Channel(theirs, right or {}), nursery, scope)

        async def run_right() -> None:
            with scope:
                await pair.right.run()

        nursery.start_soon(pair.left.run)
        nursery.start_soon(run_right)
        yield pair
        nursery.cancel_scope.cancel()


async def _echo(*arguments: object) -> object:
    return arguments


async def _never() -> None:
    await trio.sleep_forever()


async def test_channel_carries_questions_both_ways_at_once() -> None:
    """Each end asks and is asked; an answer may itself need one from the other end."""

    async def twice(value: int) -> int:
        return int(await pair.right.ask("half", value * 4))

    async def half(value: int) -> int:
        return value // 2

    async with _pair({"half": half}, {"twice": twice}) as pair:
        assert await pair.left.ask("twice", 21) == 42


async def test_channel_carries_large_and_many() -> None:
    """A message larger than any socket buffer arrives whole, among many small ones."""
    large = bytes(range(256)) * 20_000
    answers: dict[int, object] = {}

    async with _pair(right={"echo": _echo}) as pair:

        async def ask(number: int) -> None:
            answers[number] = await pair.left.ask("echo", number, large if number % 10 == 0 else b"")

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(ask, number)

    assert answers == {number: (number, large if number % 10 == 0 else b"") for number in range(50)}


async def test_channel_questions_begin_in_their_order() -> None:
    """Those of a peer that was not read for a while come all at once; the last one is the one that counts."""
    begun: list[object] = []

    async def note(number: int) -> None:
        begun.append(number)

    ours, theirs = socket.socketpair()
    asking, asked = Channel(ours, {}), Channel(theirs, {"note": note})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asking.run)
        async with trio.open_nursery() as questions:
            for number in range(20):
                questions.start_soon(asking.ask, "note", number)
                await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(asked.run)
        nursery.cancel_scope.cancel()

    assert begun == list(range(20))


async def test_channel_slow_question_holds_up_no_other() -> None:
    """Answers come in whatever order they are ready."""
    async with _pair(right={"echo": _echo, "never": _never}) as pair:
        pair.nursery.start_soon(_ask_and_fail, pair.left, "never")
        await trio.testing.wait_all_tasks_blocked()

        assert await pair.left.ask("echo", 1) == (1,)


async def _ask_and_fail(channel: Channel, name: str) -> None:
    with pytest.raises(NoAnswerError):
        await channel.ask(name, timeout_s=60)


async def test_channel_question_without_an_answer_in_time_fails(autojump_clock: trio.testing.MockClock) -> None:
    """The deadline is the asker's, and the channel serves on; the answer that comes late harms nobody."""
    started = trio.Event()

    async def late() -> str:
        await started.wait()
        return "late"

    async with _pair(right={"echo": _echo, "late": late}) as pair:
        before = trio.current_time()
        with pytest.raises(NoAnswerError, match="within 2 s"):
            await pair.left.ask("late", timeout_s=2)
        assert trio.current_time() - before == 2
        started.set()

        assert await pair.left.ask("echo") == ()


async def test_channel_question_that_fails_there_fails_here(capsys: pytest.CaptureFixture[str]) -> None:
    """The words of the error come back; a mistake of ours is logged where it was made, a refusal is not."""

    async def wrong() -> None:
        raise ZeroDivisionError("by zero")

    async def refuse() -> None:
        raise RemoteError("it is starting")

    async def unpicklable() -> object:
        return lambda: None

    async with _pair(right={"wrong": wrong, "refuse": refuse, "unpicklable": unpicklable, "echo": _echo}) as pair:
        with pytest.raises(NoAnswerError, match="it is starting"):
            await pair.left.ask("refuse")
        assert "question failed" not in "".join(capsys.readouterr())
        with pytest.raises(NoAnswerError, match="by zero"):
            await pair.left.ask("wrong")
        assert "question failed" in "".join(capsys.readouterr())
        with pytest.raises(NoAnswerError):
            await pair.left.ask("unpicklable")
        with pytest.raises(NoAnswerError, match="unknown"):
            await pair.left.ask("unknown")

        assert await pair.left.ask("echo") == ()


async def test_channel_end_fails_every_question() -> None:
    """When the other process has gone, nobody waits for it, and whoever asks later is told at once."""
    async with _pair(right={"never": _never}) as pair:
        for _ in range(3):
            pair.nursery.start_soon(_ask_and_fail, pair.left, "never")
        await trio.testing.wait_all_tasks_blocked()
        pair.right_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()

        with pytest.raises(NoAnswerError, match="gone"):
            await pair.left.ask("never", timeout_s=60)
        with trio.fail_after(5):
            await _until_alone(pair)


async def _until_alone(pair: Pair) -> None:
    while pair.nursery.child_tasks:
        await trio.sleep(0.001)


async def test_channel_peer_that_reads_nothing_is_given_up() -> None:
    """What waits to be sent is bounded: the next question fails at once, and no memory grows."""
    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel(ours, {})
        failed = 0

        async def ask() -> None:
            nonlocal failed
            try:
                await channel.ask("x", b"x" * 10_000, timeout_s=60)
            except NoAnswerError:
                failed += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.run)
            for _ in range(QUEUED + 200):
                nursery.start_soon(ask)
                await trio.sleep(0)
            await trio.testing.wait_all_tasks_blocked()
            assert 0 < failed <= 200
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("garbage", [struct.pack("!I", MESSAGE_MAX + 1), b"\0\0"])
async def test_channel_garbage_or_half_a_message_is_the_end(garbage: bytes) -> None:
    """What is no message of ours ends the channel instead of filling memory, and so does an end in the middle."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours, {})
    with theirs:
        theirs.sendall(garbage)
        theirs.shutdown(socket.SHUT_WR)
        with trio.fail_after(5):
            await channel.run()


async def test_channel_cancelled_question_is_forgotten() -> None:
    """Its answer comes to nobody; the next one is not taken for it."""
    async with _pair(right={"never": _never, "echo": _echo}) as pair:
        with trio.move_on_after(0.01):
            await pair.left.ask("never", timeout_s=60)

        assert await pair.left.ask("echo", 7) == (7,)
