"""The reactor: both pollers, fairness to other tasks, and what a mistake in an owner does."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import trio

from proxy.cache.l1 import L1
from proxy.core.engine import Engine
from proxy.core.figures.stats import Stats
from proxy.core.tracking import Tracking
from proxy.net import reactor as reactor_module
from proxy.net import timers as timers_module
from proxy.net.reactor import PEER_CLOSED, READ, WRITE, Poller, Reactor, SelectorPoller, make_poller
from proxy.wire.encode import command

from ..e2e.servers import Server
from .conftest import Bugs, Serve
from .driver import Client
from .peer import until
from .scripted import HandClock

PONG = b"+PONG\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


async def test_worker_on_selectors_serves(redis: Server, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without epoll everything works: L1, pinned links, pushes, large replies to slow readers, half-closed clients."""
    monkeypatch.setattr(reactor_module, "make_poller", SelectorPoller)
    monkeypatch.setattr(timers_module, "STALL_S", 60.0)
    proxy = await serve(redis)
    client, other, slow = await proxy.connect(), await proxy.connect(), await proxy.connect_narrow()
    assert await client.command("SET", "k", "v") == b"+OK\r\n"
    await proxy.settled()
    assert [await client.command("GET", "k") for _ in range(3)] == [b"$1\r\nv\r\n"] * 3
    assert proxy.stats()["l1"]["hits_total"] == 2
    assert await other.command("SUBSCRIBE", "ch") == b"*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n"
    assert await client.command("PUBLISH", "ch", "hi") == b":1\r\n"
    assert (await other.frame()).endswith(b"$2\r\nhi\r\n")

    assert await client.command("SETRANGE", "large", 40_000_000, "x") == b":40000001\r\n"
    await slow.send("GET", "large")
    await until(lambda: proxy.worker.stalled, "the link is read no further")
    (connection,) = proxy.worker.stalled
    held = connection.unsent_bytes
    polls = _count_polls(proxy.worker.reactor, monkeypatch)
    for _ in range(20):
        assert await client.command("INCR", "n") != b""
    assert connection.unsent_bytes <= held
    assert polls() < 1000  # a poller that is told of a socket nobody reads never rests
    assert (await slow.exactly(len(b"$40000001\r\n") + 40_000_003)).endswith(b"x\r\n")

    half = await proxy.connect()
    await half.send_raw(command("DEBUG", "SLEEP", "0.1"))
    assert isinstance(half.stream, trio.SocketStream)
    await half.stream.send_eof()
    assert await half.until_closed() == b"+OK\r\n"


def _count_polls(reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    count = 0
    usual = reactor.enter

    def enter() -> float:
        nonlocal count
        count += 1
        return usual()

    monkeypatch.setattr(reactor, "enter", enter)
    return lambda: count


# -- fairness ----------------------------------------------------------------------------------------------------------


@pytest.mark.alone
async def test_reactor_under_load_lets_other_tasks_run(redis: Server, serve: Serve) -> None:
    """While clients keep the reactor busy without a pause, another trio task still runs every few milliseconds."""
    proxy = await serve(redis)
    clients = [await proxy.connect() for _ in range(20)]
    assert await clients[0].command("SET", "k", "v") == b"+OK\r\n"
    await proxy.settled()
    turns: list[float] = []

    async def flood(client: Client, *words: str) -> None:
        while True:
            await client.stream.send_all(command(*words) * 500)
            await client.exactly(500 * len(PONG))  # as long as the value's reply

    async with trio.open_nursery() as nursery:
        for at, client in enumerate(clients):
            nursery.start_soon(flood, client, *(("GET", "k") if at % 2 else ("PING",)))
        end = trio.current_time() + 10.0
        while len(turns) < 31 and (now := trio.current_time()) < end:
            await trio.lowlevel.checkpoint()
            turns.append(trio.current_time() - now)
        nursery.cancel_scope.cancel()

    assert len(turns) == 31
    assert sorted(turns)[15] < 0.2


async def test_reactor_with_a_socket_that_is_always_ready_yields() -> None:
    """An owner that does not read what is there cannot keep the event loop for itself."""
    reactor = _reactor()
    ours, theirs = socket.socketpair()
    theirs.send(b"x")
    patience = 200_000

    class Reluctant(_Owner):
        def on_event(self, mask: int) -> None:
            super().on_event(mask)
            if self.events == patience:
                ours.recv(1)

    owner = Reluctant()
    reactor.add(ours.fileno(), owner)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        for _ in range(20):
            await trio.sleep(0.001)
        nursery.cancel_scope.cancel()

    assert 20 < owner.events < patience
    reactor.remove(ours.fileno())
    reactor.close()
    ours.close()
    theirs.close()


async def test_reactor_reads_the_clock_after_it_has_waited_for_more(pair: Pair) -> None:
    """What comes while the reactor lingers is judged by the time it came: L1 whose proof ran out is not served."""
    ours, theirs = pair
    clock = HandClock()
    poller = make_poller()

    class Late:
        """Waits for nothing; in its first wait the time passes, and something comes."""

        waits = 0

        def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]:
            if timeout and not self.waits:
                self.waits += 1
                clock.now += 5.0
                theirs.send(b"x")
            return poller.poll(0, maxevents)

        def __getattr__(self, name: str) -> Any:
            return getattr(poller, name)

    late = Late()
    engine = Engine(L1(1 << 20), Stats(), enabled=True, max_age_s=60, max_value_bytes=1 << 20)
    tracking = Tracking(engine, wanted="redirect", max_staleness_s=2.0)
    reactor = Reactor(engine, tracking, poller=cast(Poller, late), clock=clock)
    seen: list[tuple[float, bool]] = []

    class Reader(_Owner):
        def on_event(self, mask: int) -> None:
            ours.recv(1)
            seen.append((engine.now, engine.l1.serving))

    tracking.serve_until = clock.now + 2.0
    engine.serve()
    reactor.add(ours.fileno(), Reader())
    theirs.send(b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        await until(lambda: len(seen) == 2, "both are read")
        nursery.cancel_scope.cancel()

    assert late.waits == 1
    assert seen == [(100.0, True), (105.0, False)]
    reactor.remove(ours.fileno())
    reactor.close()


def test_reactor_turn_serves_what_is_ready_and_waits_for_nothing(pair: Pair) -> None:
    """Whoever holds the loop lets clients be served in between, and goes on at once when there are none."""
    ours, theirs = pair
    reactor = _reactor()

    class Reader(_Owner):
        def on_event(self, mask: int) -> None:
            super().on_event(mask)
            ours.recv(1)
            reactor.dirty_clients.append(self)

    reader = Reader()
    reactor.add(ours.fileno(), reader)
    reactor.turn()
    theirs.send(b"x")
    reactor.turn()
    reactor.turn()

    assert (reader.events, reader.flushes) == (1, 1)
    reactor.remove(ours.fileno())
    reactor.close()


@pytest.mark.parametrize("hurries", [True, False])
async def test_reactor_lingers_only_while_nobody_hurries(pair: Pair, hurries: bool) -> None:
    """Its wait for more is a wait for all other tasks, too: events of the broker do not stand it."""
    ours, theirs = pair
    poller = make_poller()
    waits: list[float] = []

    class Noting:
        def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]:
            waits.append(timeout)
            return poller.poll(0, maxevents)

        def __getattr__(self, name: str) -> Any:
            return getattr(poller, name)

    clock = HandClock()
    engine = Engine(L1(1 << 20), Stats(), enabled=True, max_age_s=60, max_value_bytes=1 << 20)
    tracking = Tracking(engine, wanted="auto", max_staleness_s=1.0)
    reactor = Reactor(engine, tracking, poller=cast(Poller, Noting()), clock=clock)

    class Reader(_Owner):
        def on_event(self, mask: int) -> None:
            super().on_event(mask)
            ours.recv(1)

    reader = Reader()
    reactor.add(ours.fileno(), reader)
    if hurries:
        reactor.hurry(1.0)
    theirs.send(b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        await until(lambda: reader.events == 1, "it is read")
        nursery.cancel_scope.cancel()

    assert any(waits) is not hurries
    reactor.remove(ours.fileno())
    reactor.close()


# -- mistakes ----------------------------------------------------------------------------------------------------------


class _Owner:
    """Counts its events; raises when it is told to."""

    def __init__(self, *, raises: bool = False) -> None:
        self.events = 0
        self.flushes = 0
        self.crashes = 0
        self._raises = raises

    def on_event(self, mask: int) -> None:
        """Count, or raise."""
        self.events += 1
        if self._raises:
            raise RuntimeError("planted in on_event")

    def flush(self) -> None:
        """Count, or raise."""
        self.flushes += 1
        if self._raises:
            raise RuntimeError("planted in flush")

    def on_crash(self) -> None:
        """Count."""
        self.crashes += 1


def _reactor() -> Reactor:
    engine = Engine(L1(1 << 20), Stats(), enabled=True, max_age_s=60.0, max_value_bytes=1 << 20)
    return Reactor(engine, Tracking(engine, wanted="auto", max_staleness_s=1.0))


async def test_reactor_goes_on_when_an_owner_raises(bugs: Bugs) -> None:
    """An exception in one owner ends that owner; those behind it in the same wake-up are served."""
    reactor = _reactor()
    pairs = [socket.socketpair() for _ in range(3)]
    owners = [_Owner(), _Owner(raises=True), _Owner()]
    for (ours, theirs), owner in zip(pairs, owners, strict=True):
        reactor.add(ours.fileno(), owner)
        theirs.send(b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        await until(lambda: all(owner.events for owner in owners), "every owner was woken")
        nursery.cancel_scope.cancel()

    assert [owner.crashes > 0 for owner in owners] == [False, True, False]
    assert all("planted in on_event" in seen for seen in bugs.seen)
    bugs.seen.clear()
    for ours, theirs in pairs:
        reactor.remove(ours.fileno())
        ours.close()
        theirs.close()
    reactor.close()


def test_reactor_flush_goes_on_when_one_raises(bugs: Bugs) -> None:
    """An exception while one link or client sends ends that one; all others have sent, links first."""
    reactor = _reactor()
    links, clients = [[_Owner(), _Owner(raises=True), _Owner()] for _ in range(2)]
    reactor.dirty_links += links
    reactor.dirty_clients += clients

    reactor.flush()

    assert [owner.flushes for owner in links + clients] == [1] * 6
    assert [owner.crashes for owner in links + clients] == [0, 1, 0] * 2
    assert len(bugs.seen) == 2
    bugs.seen.clear()
    reactor.close()


def test_reactor_flush_ends_only_when_nothing_is_left_to_send() -> None:
    """What a flush makes others collect is sent in the same wake-up."""
    reactor = _reactor()
    late = _Owner()

    class Client(_Owner):
        def flush(self) -> None:
            super().flush()
            if self.flushes == 1:
                reactor.dirty_links.append(late)
                reactor.dirty_clients.append(self)

    client = Client()
    reactor.dirty_clients.append(client)

    reactor.flush()

    assert (late.flushes, client.flushes) == (1, 2)
    reactor.close()


def test_reactor_enter_stops_serving_l1_the_moment_it_is_not_proven() -> None:
    """Whoever comes first after `serve_until`, L1 is dark before it decides anything."""
    now = 100.0
    engine = Engine(L1(1 << 20), Stats(), enabled=True, max_age_s=60.0, max_value_bytes=1 << 20)
    tracking = Tracking(engine, wanted="auto", max_staleness_s=1.0)
    reactor = Reactor(engine, tracking, clock=lambda: now)
    tracking.choose(resp3=True, version=(7, 0))
    tracking.begin(7, reactor.enter())
    assert engine.l1.serving

    now = 100.999
    reactor.enter()
    assert engine.l1.serving
    now = 101.0
    reactor.enter()

    assert not engine.l1.serving
    reactor.close()


def test_reactor_forgets_a_socket_once() -> None:
    """Removing a socket twice, or one never added, is no error: whoever closes first wins."""
    reactor = _reactor()
    ours, theirs = socket.socketpair()
    reactor.add(ours.fileno(), _Owner())

    reactor.remove(ours.fileno())
    reactor.remove(ours.fileno())
    ours.close()
    theirs.close()
    reactor.close()


def test_selector_poller_has_the_numbers_of_epoll() -> None:
    """Masks mean the same with every poller."""
    select = pytest.importorskip("select")
    if not hasattr(select, "epoll"):
        pytest.skip("this system has no epoll to compare with")

    assert (READ, WRITE, PEER_CLOSED) == (select.EPOLLIN, select.EPOLLOUT, select.EPOLLRDHUP)
    assert SelectorPoller._events(READ) == selectors.EVENT_READ
