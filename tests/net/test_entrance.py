"""The entrance of a proxy: what it leaves alone when it ends, and when it is fit to take over."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import trio

from proxy.config.model import Listen, parse_endpoint
from proxy.errors import ListenError
from proxy.log import configure
from proxy.net.door import activation, entrance
from proxy.net.door.entrance import Entrance, await_fit, start_next
from proxy.net.door.handover import HandOverError, Predecessor

from .driver import make_settings, within
from .peer import until

linux = pytest.mark.skipif(sys.platform != "linux", reason="abstract unix sockets, a filter on a socket")


def _listen(*urls: str, admin: str = "") -> Listen:
    return make_settings(listen={"urls": tuple(parse_endpoint(url) for url in urls), "admin": admin}).listen


async def _opened(path: Path) -> Entrance:
    made = Entrance(_listen(f"unix://{path}"), {})
    made.addresses.open(made._listen.urls)
    return made


async def test_end_of_an_entrance_that_nobody_has_after_it(tmp_path: Path) -> None:
    """Its files go, and nobody connects any more."""
    made = await _opened(tmp_path / "s")
    await made.turn_away()
    made.close()
    made.close()

    assert not (tmp_path / "s").exists()


@linux
async def test_end_while_another_proxy_has_the_sockets_already(tmp_path: Path, nursery: trio.Nursery) -> None:
    """It is told to stop while the next one starts: that one's clients must find the way in as it was."""
    made = await _opened(tmp_path / "s")
    await made.took_over()
    nursery.start_soon(made.run, lambda: None)
    assert made.state == "open"
    name = made.addresses.names[0]
    other = await within(trio.to_thread.run_sync(Predecessor.find, [name]), "an answer")
    assert other is not None
    await until(lambda: made.state == "handing over", "it has handed them over")
    await made.turn_away()
    made.close()

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
    for one in other.estate.given:
        one.sock.close()
    other.close()
    nursery.cancel_scope.cancel()


@linux
async def test_one_that_lets_nobody_connect_any_more_gives_nothing_away(nursery: trio.Nursery) -> None:
    """Its sockets drop who comes: the next one would serve nobody with them."""
    made = Entrance(_listen("redis://127.0.0.1:0"), {})
    made.addresses.open(made._listen.urls)
    await made.took_over()
    nursery.start_soon(made.run, lambda: None)
    await made.turn_away()

    with pytest.raises(HandOverError, match="it is stopping"):
        await within(trio.to_thread.run_sync(Predecessor.find, made.addresses.names), "an answer")
    made.close()
    nursery.cancel_scope.cancel()


@linux
async def test_address_that_the_next_one_does_not_have_ends_with_this_one(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    """However soon it is told to go: who waits there is taken in, and its file is removed."""
    made = Entrance(_listen(f"unix://{tmp_path / 's'}", f"unix://{tmp_path / 't'}"), {})
    made.addresses.open(made._listen.urls)
    first, _ = made.addresses.names
    await made.took_over()
    kept: list[frozenset[str]] = []

    def replaced() -> None:
        made._keep_what_goes_on()  # at once: the hand-over has not said its last word yet
        kept.append(made.kept)

    nursery.start_soon(made.run, replaced)
    other = await within(trio.to_thread.run_sync(Predecessor.find, [first]), "an answer")
    assert other is not None
    await within(other.release([first]), "the release")

    assert kept == [frozenset({first})]
    for one in other.estate.given:
        one.sock.close()
    made.close()
    nursery.cancel_scope.cancel()


@linux
@pytest.mark.parametrize("admin", ["", "http://127.0.0.1:0"])
async def test_proxy_at_other_addresses_is_left_alone(tmp_path: Path, nursery: trio.Nursery, admin: str) -> None:
    """No admin port, or one at any port, is nothing that two of them have in common."""
    made = Entrance(_listen(f"unix://{tmp_path / 's'}", admin=admin), {})
    made.addresses.open(made._listen.urls)
    await made.took_over()
    nursery.start_soon(made.run, lambda: None)
    make: Callable[[], Entrance] = lambda: Entrance(_listen(f"unix://{tmp_path / 't'}", admin=admin), {}, replaces=True)  # noqa: E731

    other = await within(trio.to_thread.run_sync(make), "an answer")

    assert not other.takes_over
    made.close()
    nursery.cancel_scope.cancel()


@linux
async def test_next_one_takes_the_place_and_gives_it_on(tmp_path: Path, nursery: trio.Nursery) -> None:
    """Who has taken over is found at the same names by the one after it, with the same sockets."""
    gone: list[int] = []
    first = await _opened(tmp_path / "s")
    await first.took_over()
    nursery.start_soon(first.run, lambda: gone.append(1))
    for number in (1, 2):
        make: Callable[[], Entrance] = lambda: Entrance(_listen(f"unix://{tmp_path / 's'}"), {}, replaces=True)  # noqa: E731
        following = await within(trio.to_thread.run_sync(make), "the sockets")
        assert following.takes_over
        following.addresses.open(following._listen.urls)
        await within(following.took_over(), "the hand-over")
        await until(lambda n=number: len(gone) == n, "the one before goes")  # type: ignore[misc]
        assert first.is_replaced
        await first.turn_away()
        first.close()
        nursery.start_soon(following.run, lambda: gone.append(1))
        first = following

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
    first.close()
    assert not (tmp_path / "s").exists()
    nursery.cancel_scope.cancel()


@linux
@pytest.mark.parametrize("admin", ["", "http://127.0.0.1:1"])
async def test_next_one_may_have_no_admin_port_or_another(tmp_path: Path, nursery: trio.Nursery, admin: str) -> None:
    """Then it leaves the one that it is given to the proxy that goes."""
    first = Entrance(_listen(f"unix://{tmp_path / 's'}", admin="http://127.0.0.1:0"), {})
    first.addresses.open(first._listen.urls)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        first.hold_admin([listening.fileno()])
        await first.took_over()
        nursery.start_soon(first.run, lambda: None)
        listen = _listen(f"unix://{tmp_path / 's'}", admin=admin)

        following = await within(trio.to_thread.run_sync(partial(Entrance, listen, {}, replaces=True)), "the sockets")
        following.addresses.open(listen.urls)

        assert following.take_admin() == []
        following.close()
    first.close()
    nursery.cancel_scope.cancel()


@linux
async def test_next_one_that_fails_leaves_the_files_of_the_one_that_goes_on(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    """What it was given stays, whenever it fails; what it has opened itself goes."""
    first = await _opened(tmp_path / "s")
    await first.took_over()
    nursery.start_soon(first.run, lambda: None)
    urls = [f"unix://{tmp_path / 's'}", f"unix://{tmp_path / 't'}"]
    for also in ([], [f"unix://{tmp_path / 'no-such-directory' / 'u'}"]):
        make: Callable[[], Entrance] = lambda: Entrance(_listen(*urls, *also), {}, replaces=True)  # noqa: B023, E731
        following = await within(trio.to_thread.run_sync(make), "the sockets")
        with pytest.raises(ListenError) if also else nullcontext():
            following.addresses.open(following._listen.urls)
        following.close()
        await until(lambda: first.state == "open", "it goes on")

        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
        assert not (tmp_path / "t").exists()
    first.close()
    nursery.cancel_scope.cancel()


@linux
async def test_sockets_of_systemd_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """It listens on, for the next start: nothing may be left in them that turns clients away."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        fd = os.dup(listening.fileno())
        monkeypatch.setattr(activation, "FIRST", fd)
        monkeypatch.setattr(entrance, "take_given", lambda found: activation.take_given(found, fd))
        made = Entrance(_listen("redis://127.0.0.1:1"), {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
        made.addresses.open(made._listen.urls)
        await made.turn_away()
        made.close()

        with socket.create_connection(listening.getsockname(), timeout=5):
            pass


def test_admin_port_that_systemd_gives_and_the_file_does_not_want_is_refused() -> None:
    """Who connects there would wait for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        made = Entrance(_listen("redis://127.0.0.1:1"), {})
        made._given_admin = [listening]

        with pytest.raises(ListenError, match=r"set listen\.admin"):
            made.take_admin()


async def test_one_that_takes_over_and_hangs_while_it_starts_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy that runs waits for it no longer: it must not serve beside it for ever."""
    made = Entrance(_listen("redis://127.0.0.1:1"), {})
    monkeypatch.setattr(entrance, "SERVES_S", 0.05)
    with made.in_time():  # nobody is replaced: nobody waits
        await trio.sleep(0.1)
    monkeypatch.setattr(Entrance, "takes_over", True)

    with pytest.raises(HandOverError, match="does not serve within"), made.in_time():
        await trio.sleep_forever()


@pytest.mark.parametrize("children", [signal.SIG_DFL, signal.SIG_IGN])
async def test_next_one_that_ends_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], children: signal.Handlers
) -> None:
    """Also where whoever started us has children waited for by nobody: how it ended is not known then."""
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    configure("info", "text")
    before = signal.signal(signal.SIGCHLD, children)
    try:
        await within(start_next(), "its end")
    finally:
        signal.signal(signal.SIGCHLD, before)

    assert "the next proxy has ended" in capfd.readouterr().err


async def test_fit_is_who_can_serve_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis may take a moment; if it takes longer, the proxy that runs is left alone."""
    answers: list[tuple[bool, str]] = [(False, "connecting"), (True, "serving")]

    async def ready() -> tuple[bool, str]:
        await trio.lowlevel.checkpoint()
        return answers.pop(0) if answers else (False, "no answer")

    monkeypatch.setattr(entrance, "_LOOK_S", 0.01)
    await within(await_fit(ready), "it is fit")
    monkeypatch.setattr(entrance, "READY_S", 0.05)

    with pytest.raises(HandOverError, match=r"not fit to take over .no answer.: the proxy that runs goes on"):
        await within(await_fit(ready), "an answer")
