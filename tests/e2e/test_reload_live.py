"""Every key that a reload applies is changed, twice, under real clients: none is dropped, and none waits in vain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .contract import is_alive
from .live_keys import changes
from .load import Kind, load, pushed
from .raw import encode
from .servers import Kind as ServerKind
from .servers import Server, wait_for
from .targets import running_respite
from .workers import post

STEADY = [Kind("single", pause_s=0.01), Kind("piped", depth=20, pause_s=0.02)]  # on one connection each, for ever


@pytest.fixture
def server(redis7: ServerKind) -> Iterator[Server]:
    """Run one Redis."""
    with Server(redis7) as started:
        yield started


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.long)])
def test_reload_of_every_live_key_under_load_drops_nobody(server: Server, tmp_path: Path, every: int) -> None:
    """Each change is applied at once; who was there before the first is served as before after the last."""
    with running_respite({"upstream": {"url": server.url}}) as respite:
        base = dict(respite.settings)
        with (
            respite.connect() as idle,
            respite.connect() as blocked,
            respite.connect() as queuing,
            respite.connect() as listening,
            load(respite.address, STEADY) as running,
        ):
            assert is_alive(idle)
            blocked.send(encode("BLPOP", "blocked", "0"))
            assert queuing.command("MULTI") == b"+OK\r\n"
            assert listening.command("SUBSCRIBE", "news").endswith(b"$4\r\nnews\r\n:1\r\n")
            wait_for(lambda: server.info("blocked_clients") == "1", what="the blocked client")
            done = []
            for change in changes(base, tmp_path / "scratch.toml", every):
                respite.settings = change.sections
                respite.write_config()
                status, answer = post(respite, "/reload")
                head = change.key.partition(".")[0]
                assert (status, answer["needs_restart"], answer["problems"]) == (200, [], []), change
                assert ("class" if head == "class" else change.key) in answer["applied"], change
                assert is_alive(idle), change.key
                assert queuing.command("RPUSH", "queued", change.key) == b"+QUEUED\r\n", change.key
                done.append(change.key)

            assert len(done) > 100 / every
            told = running.stop()
            assert (told.refused, told.unanswered, told.half, told.errors) == (0, [], [], [])
            assert told.connections == 2 * len(STEADY)
            assert sorted(pushed(server)) == sorted(told.acked)
            assert queuing.command("EXEC").startswith(b"*%d\r\n" % len(done))
            with server.connect() as direct:
                direct.command("RPUSH", "blocked", "x")
                direct.command("PUBLISH", "news", "y")
            assert blocked.frame() == encode("blocked", "x")
            assert listening.frame() == encode("message", "news", "y")
