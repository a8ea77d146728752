"""The hand-over between two proxies: the sockets, the word to go, and who goes on when it does not come about."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import trio

from proxy.config.model import parse_endpoint
from proxy.log import configure
from proxy.net.door import handover
from proxy.net.door.addresses import ADMIN, Given
from proxy.net.door.handover import Estate, HandOverError, Offer, Predecessor
from proxy.net.door.listener import bind

from .driver import within
from .peer import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="abstract unix sockets")


class Old:
    """The proxy that runs: what it hands over, and what it was told."""

    def __init__(self, count: int = 1) -> None:
        self.name = f"test:{uuid.uuid4()}"
        self.given = [Given(socket.create_server(("127.0.0.1", 0)), ADMIN if number else "") for number in range(count)]
        self.gone: list[tuple[int, frozenset[str]]] = []
        self.refuses = ""
        self.offer = Offer(self._estate, lambda pid, names: self.gone.append((pid, names)))
        self.offer.open([self.name])

    def _estate(self) -> Estate:
        if self.refuses:
            raise HandOverError(self.refuses)
        return Estate(self.given, "http://127.0.0.1:1", in_place=True, about={"notify": "@n"})

    def close(self) -> None:
        """Be gone."""
        self.offer.close()
        for one in self.given:
            one.sock.close()


@pytest.fixture
def old() -> Iterator[Old]:
    """Be there to be replaced; `run` of its offer is the test's to start."""
    made = Old()
    yield made
    made.close()


async def _find(names: Sequence[str]) -> Predecessor | None:
    return await within(trio.to_thread.run_sync(partial(Predecessor.find, names)), "an answer")


async def _found(old: Old) -> Predecessor:
    found = await _find([f"test:{uuid.uuid4()}", old.name])
    assert found is not None
    return found


def _close(predecessor: Predecessor) -> None:
    for one in predecessor.estate.given:
        one.sock.close()
    predecessor.close()


async def test_nobody_there_is_nobody_to_replace() -> None:
    """A start like any other."""
    assert await _find([f"test:{uuid.uuid4()}"]) is None


async def test_hand_over_passes_every_socket_and_the_old_one_is_told_to_go(nursery: trio.Nursery) -> None:
    """More sockets than one message takes, each the same queue as before; afterwards nobody is found there."""
    old = Old(230)
    nursery.start_soon(old.offer.run)
    predecessor = await _found(old)
    estate = predecessor.estate

    assert [one.sock.getsockname() for one in estate.given] == [one.sock.getsockname() for one in old.given]
    assert [one.name for one in estate.given] == [one.name for one in old.given]
    assert not any(os.get_inheritable(one.sock.fileno()) for one in estate.given)
    assert (estate.admin, estate.in_place, estate.about) == ("http://127.0.0.1:1", True, {"notify": "@n"})
    assert predecessor.pid == os.getpid()
    assert old.gone == []
    with ExitStack() as stack:
        client = stack.enter_context(socket.create_connection(old.given[0].sock.getsockname()))
        old.given[0].sock.close()  # the queue lives on, with who waits in it
        client.sendall(b"asked")
        accepted = stack.enter_context(estate.given[0].sock.accept()[0])
        assert accepted.recv(64) == b"asked"

    await within(predecessor.release(["tcp:a"]), "the release")

    assert old.gone == [(os.getpid(), frozenset({"tcp:a"}))]
    assert await _find([old.name]) is None
    _close(predecessor)
    old.close()


async def test_new_one_that_fails_leaves_the_old_one_as_it_was(old: Old, nursery: trio.Nursery) -> None:
    """It ends before it serves: the old one is asked by the next as if nothing had been."""
    nursery.start_soon(old.offer.run)
    failing = await _found(old)
    assert old.offer.is_busy
    _close(failing)
    await until(lambda: not old.offer.is_busy, "the old one has noticed")
    assert old.gone == []

    second = await _found(old)
    await within(second.release([]), "the release")

    assert len(old.gone) == 1
    _close(second)
    nursery.cancel_scope.cancel()


async def test_only_one_takes_over_at_a_time(old: Old, nursery: trio.Nursery) -> None:
    """Two would both serve."""
    nursery.start_soon(old.offer.run)
    first = await _found(old)

    with pytest.raises(HandOverError, match="another one is taking over already"):
        await _found(old)

    _close(first)
    nursery.cancel_scope.cancel()


async def test_refusal_is_told_in_words(old: Old, nursery: trio.Nursery) -> None:
    """The one that wanted to take over does not start."""
    nursery.start_soon(old.offer.run)
    old.refuses = "it is stopping"

    with pytest.raises(HandOverError, match="does not hand over: it is stopping"):
        await _found(old)
    nursery.cancel_scope.cancel()


async def test_new_one_that_takes_too_long_is_told_that_the_old_one_stays(
    old: Old, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not serve beside it for ever: whoever hears that leaves."""
    monkeypatch.setattr(handover, "START_S", 0.05)
    nursery.start_soon(old.offer.run)
    slow = await _found(old)
    await until(lambda: not old.offer.is_busy, "the old one has given up")

    with pytest.raises(HandOverError, match="stays: it has not served within"):
        await within(slow.release(["tcp:a"]), "the release")

    assert old.gone == []
    _close(slow)
    nursery.cancel_scope.cancel()


async def test_old_one_that_died_meanwhile_leaves_all_to_the_new(old: Old, nursery: trio.Nursery) -> None:
    """There is nobody to be told, and nobody else who serves."""
    nursery.start_soon(old.offer.run)
    predecessor = await _found(old)
    nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        await until(lambda: not old.offer.is_busy, "it has gone")

        await within(predecessor.release(["tcp:a"]), "the release")
    _close(predecessor)


@pytest.mark.parametrize("side", ["old", "new"])
async def test_another_user_is_refused_by_either_side(
    old: Old, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    """Names are anybody's to take and to ask at: the kernel says who is there."""

    def peer(sock: object) -> tuple[int, int]:
        asked_by = "new" if isinstance(sock, socket.socket) else "old"
        return 1, os.getuid() + (asked_by == side)

    nursery.start_soon(old.offer.run)
    await trio.testing.wait_all_tasks_blocked()
    monkeypatch.setattr(handover, "_peer", peer)
    if side == "new":
        assert Predecessor.find([old.name]) is None  # who sits on a name of ours is nobody to wait for
    else:
        with pytest.raises(HandOverError, match="does not hand over"):
            await _found(old)
    assert old.gone == []
    nursery.cancel_scope.cancel()


async def test_parent_is_known_by_its_pid_and_not_by_its_name_alone(old: Old, nursery: trio.Nursery) -> None:
    """Containers that share a network each have a process 1: that of another is not the one that has started us."""
    nursery.start_soon(old.offer.run)
    other = Offer(lambda: Estate((), "", in_place=False, about={}), lambda *_: None)
    other.open([f"pid:{os.getpid() + 1}", f"pid:{os.getpid()}"])
    nursery.start_soon(other.run)

    assert await _find([f"pid:{os.getpid() + 1}"]) is None
    found = await _find([f"pid:{os.getpid()}"])
    assert found is not None
    found.close()
    other.close()
    nursery.cancel_scope.cancel()


async def test_path_is_one_of_a_file_system(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Containers that share a network have files of their own: the same path there is another socket."""
    path = tmp_path / "s"
    with bind(parse_endpoint(f"unix://{path}")):
        offer = Offer(lambda: Estate((), "", in_place=False, about={}), lambda *_: None)
        offer.open([f"unix:{path}"])
        nursery.start_soon(offer.run)
        found = await _find([f"unix:{path}"])
        assert found is not None
        found.close()
    path.unlink()
    with bind(parse_endpoint(f"unix://{path.with_name('t')}")), bind(parse_endpoint(f"unix://{path}")):
        assert await _find([f"unix:{path}"]) is None
        assert await _find([f"unix:{tmp_path}/\0abstract"]) is None  # no path at all, as systemd may give one
    offer.close()
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("words", [b"", b"{", b"[]", b'{"other": 1}'])
async def test_who_says_nothing_of_sense_gets_nothing(old: Old, nursery: trio.Nursery, words: bytes) -> None:
    """Who only connects, or means something else, is given no socket; the proxy goes on."""
    nursery.start_soon(old.offer.run)
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stray:
        await stray.connect(handover._abstract(old.name))
        if words:
            await stray.send(words)
        stray.shutdown(socket.SHUT_WR)
        assert b"sockets" not in await within(stray.recv(1 << 16), "the end")

    assert not old.offer.is_busy
    _close(await _found(old))
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("words", [b"{", b"[]", b'{"other": 1}', b'{"serving": 3}'])
async def test_new_one_that_speaks_otherwise_ends_nothing(old: Old, nursery: trio.Nursery, words: bytes) -> None:
    """A version to come may: the proxy that runs goes on, whatever it hears."""
    nursery.start_soon(old.offer.run)
    strange = await _found(old)
    strange._sock.send(words)
    await until(lambda: not old.offer.is_busy, "it has given up")
    assert old.gone == []
    _close(strange)

    _close(await _found(old))
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("words", [b"{", b"[]", b'{"sockets": [1], "more": false}', b'{"sockets": []}'])
async def test_old_one_that_speaks_otherwise_is_told_of_in_words(words: bytes) -> None:
    """An older version may: the start ends with what to do."""
    name = f"test:{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(handover._abstract(name))
        listening.listen()

        def answer() -> None:
            with listening.accept()[0] as sock:
                sock.recv(1 << 16)
                sock.send(words)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, answer)
            with pytest.raises(HandOverError, match="does not hand over: it answers in another way"):
                await _find([name])


async def test_old_one_that_hangs_is_told_of_in_words(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes the connection for it, and nobody answers."""
    monkeypatch.setattr(handover, "_ANSWER_S", 0.05)

    with pytest.raises(HandOverError, match="it does not answer; if it hangs, end it"):
        await _find([old.name])


async def test_end_of_an_offer_leaves_its_descriptors_to_others(old: Old, nursery: trio.Nursery) -> None:
    """While what runs is finished the admin port goes on: a connection that gets the number of one is served."""
    [fd] = [sock.fileno() for sock in old.offer._listening]
    nursery.start_soon(old.offer.run)
    await trio.testing.wait_all_tasks_blocked()
    mine, other = socket.socketpair()
    old.offer.close()
    with mine, other, socket.socket(fileno=os.dup2(mine.fileno(), fd, inheritable=False)) as again:
        other.send(b"x")
        await within(trio.lowlevel.wait_readable(again), "a byte")


async def test_system_that_has_no_such_sockets_only_cannot_be_replaced(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A sandbox may refuse them: the proxy serves, and its log says what does not work."""

    def refuses(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(handover.socket, "socket", refuses)
    configure("info", "text")
    offer = Offer(lambda: Estate((), "", in_place=False, about={}), lambda *_: None)
    offer.open(["tcp:a"])

    assert "cannot be replaced" in capfd.readouterr().err
    with pytest.raises(HandOverError, match="not permitted"):
        Predecessor.find(["tcp:a"])
