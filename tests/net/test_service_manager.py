"""What systemd is told, and that its watchdog is fed only while the reactor turns."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from proxy.cache.l1 import L1
from proxy.core.engine import Engine
from proxy.core.figures.stats import Stats
from proxy.core.tracking import Tracking
from proxy.net.pulse import Pulse
from proxy.net.reactor import Reactor, make_poller
from proxy.net.service_manager import ServiceManager

from .peer import until


class Heard:
    """Stands for systemd: a datagram socket, and what came to it."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(address)
        self.address = address

    def all(self) -> list[str]:
        """Return what has come since the last call."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[Heard]:
    """Listen as systemd does."""
    with closing(Heard(str(tmp_path / "notify"))) as made:
        yield made


class Blindable:
    """The poller of this system; blind, it finds nothing, as after a mistake of ours in what is registered."""

    def __init__(self) -> None:
        self._poller = make_poller()
        self.register = self._poller.register
        self.modify = self._poller.modify
        self.unregister = self._poller.unregister
        self.fileno = self._poller.fileno
        self.close = self._poller.close
        self.is_blind = False

    def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]:
        """Return what is ready, or nothing."""
        return [] if self.is_blind else self._poller.poll(timeout, maxevents)


def _reactor(poller: Blindable) -> Reactor:
    engine = Engine(L1(1 << 20), Stats(), enabled=True, max_age_s=60.0, max_value_bytes=1 << 20)
    return Reactor(engine, Tracking(engine, wanted="off", max_staleness_s=2.0), poller=poller)


# -- who is told -------------------------------------------------------------------------------------------------------


def test_environment_names_who_is_told_and_is_cleared_for_children(heard: Heard) -> None:
    """What systemd put there is used once: a child with the same environment speaks for nobody."""
    environment = {"NOTIFY_SOCKET": heard.address, "WATCHDOG_USEC": "30000000", "PATH": "/bin"}

    manager = ServiceManager.of(environment)

    assert manager.watchdog_s == 30
    assert environment == {"PATH": "/bin"}
    manager.ready("fine")
    assert heard.all() == ["READY=1\nSTATUS=fine"]


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({"WATCHDOG_PID": str(os.getpid()), "WATCHDOG_USEC": "500000"}, 0.5),
        ({"WATCHDOG_PID": "1", "WATCHDOG_USEC": "500000"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
        ({}, 0),
    ],
)
def test_watchdog_of_another_process_is_not_fed(environment: dict[str, str], watchdog_s: float) -> None:
    """The time counts only where it is meant for this process."""
    assert ServiceManager.of({"NOTIFY_SOCKET": "/run/x", **environment}).watchdog_s == watchdog_s


@pytest.mark.parametrize("address", ["", "vsock:2:1234"])
async def test_nobody_is_told_where_nobody_asked(address: str) -> None:
    """Without a socket of ours every word is silence, and there is nothing to feed."""
    manager = ServiceManager.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"})

    manager.ready("fine")
    manager.stopping()
    with manager.reloading():
        pass
    await manager.watch(trio.sleep_forever)
    assert manager.watchdog_s == 0


def test_next_process_speaks_for_the_service(heard: Heard) -> None:
    """The old one names it and says no word of an end; the next says that it is ready, to the same socket."""
    old = ServiceManager(heard.address, 30.0)
    old.ready("old")
    following = ServiceManager.of({})
    following.follow(old.about())
    old.replaced_by(4711)
    with old.reloading():
        pass
    following.ready("new")

    assert heard.all() == ["READY=1\nSTATUS=old", "MAINPID=4711", "READY=1\nSTATUS=new"]
    assert following.watchdog_s == 30.0


def test_next_process_that_has_its_own_manager_keeps_it(heard: Heard) -> None:
    """It was started by another unit: that one waits to hear of it."""
    own = ServiceManager(heard.address, 5.0)
    own.follow({"notify": "/run/other", "watchdog_s": 30.0})
    own.ready("own")

    assert (own.watchdog_s, heard.all()) == (5.0, ["READY=1\nSTATUS=own"])


def test_abstract_address_begins_with_a_zero_byte() -> None:
    """An address that begins with @ has no file."""
    with closing(Heard(f"\0respite-test-{os.getpid()}")) as heard:
        ServiceManager(f"@respite-test-{os.getpid()}").stopping()

        (message,) = heard.all()
    assert message.startswith("STOPPING=1\n")


def test_manager_that_has_gone_is_no_trouble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody at the socket, or a socket that is full: the word is dropped, and the log says so once."""
    manager = ServiceManager(str(tmp_path / "gone"))

    manager.ready("fine")
    manager.stopping()

    written = capsys.readouterr()
    assert (written.out + written.err).count("systemd cannot be told") == 1


def test_reload_is_told_before_and_after(heard: Heard) -> None:
    """Between RELOADING and READY the settings are read; the moment is one of the monotonic clock, in microseconds."""
    manager = ServiceManager(heard.address)
    manager.ready("fine")
    heard.all()

    with manager.reloading():
        (before,) = heard.all()

    head, _, at_us = before.partition("\nMONOTONIC_USEC=")
    assert head == "RELOADING=1"
    assert abs(int(at_us) / 1e6 - float(Path("/proc/uptime").read_text().split()[0])) < 60
    assert heard.all() == ["READY=1\nSTATUS=fine"]


def test_reload_is_not_told_while_not_ready(heard: Heard) -> None:
    """Before the start line and after a stop the READY of a reload would say that clients are served."""
    manager = ServiceManager(heard.address)
    with manager.reloading():
        pass
    assert heard.all() == []

    manager.ready("fine")
    heard.all()
    with manager.reloading():
        manager.stopping()
    with manager.reloading():
        pass

    assert [word.partition("\n")[0] for word in heard.all()] == ["RELOADING=1", "STOPPING=1"]


# -- the watchdog ------------------------------------------------------------------------------------------------------


async def test_watchdog_is_fed_three_times_in_its_time(heard: Heard, autojump_clock: MockClock) -> None:
    """While the reactor turns, in an hour of 30 s each 360 feeds come."""
    manager, reactor = ServiceManager(heard.address, 30.0), _reactor(Blindable())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        with closing(Pulse(reactor)) as pulse, trio.move_on_after(95):
            await manager.watch(pulse.beat)
        nursery.cancel_scope.cancel()
    reactor.close()

    assert heard.all() == ["WATCHDOG=1"] * 10


async def test_watchdog_is_not_fed_while_the_reactor_finds_nothing(heard: Heard, autojump_clock: MockClock) -> None:
    """The loop goes round, timers run, and still no feed comes; once the reactor sees again they come again."""
    poller = Blindable()
    manager, reactor = ServiceManager(heard.address, 30.0), _reactor(poller)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        pulse = Pulse(reactor)
        nursery.start_soon(manager.watch, pulse.beat)
        await trio.sleep(25)
        assert heard.all() == ["WATCHDOG=1"] * 3

        poller.is_blind = True
        for _ in range(100):  # it is awake all the time: no clock jumps
            await trio.lowlevel.checkpoint()
        autojump_clock.jump(3600)
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        assert heard.all() == []

        poller.is_blind = False
        await until(lambda: heard.all() == ["WATCHDOG=1"], "the next feed")
        nursery.cancel_scope.cancel()
    pulse.close()
    reactor.close()


async def test_watchdog_is_not_fed_once_the_reactor_has_ended(heard: Heard, autojump_clock: MockClock) -> None:
    """A reactor whose task is gone is as dead as one that hangs."""
    manager, reactor = ServiceManager(heard.address, 30.0), _reactor(Blindable())
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as running:
            pulse = Pulse(reactor)
            nursery.start_soon(manager.watch, pulse.beat)
            with trio.move_on_after(5):
                await reactor.run()
            running.cancel()
        assert heard.all() == ["WATCHDOG=1"]

        await trio.sleep(3600)
        assert heard.all() == []
        nursery.cancel_scope.cancel()
    pulse.close()
    reactor.close()


async def test_pulse_is_felt_by_all_who_wait(autojump_clock: MockClock) -> None:
    """Two who ask at once are both answered, and later ones again; thousands that nobody answers block nobody."""
    poller = Blindable()
    reactor = _reactor(poller)
    with closing(Pulse(reactor)) as pulse:
        for _ in range(2000):
            with trio.move_on_after(0):
                await pulse.beat()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reactor.run)
            for _ in range(2):
                async with trio.open_nursery() as waiting:
                    waiting.start_soon(pulse.beat)
                    waiting.start_soon(pulse.beat)
            nursery.cancel_scope.cancel()
    reactor.close()
