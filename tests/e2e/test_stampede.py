"""Many clients that want the same thing at the same moment send Redis one read for it."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator

import pytest

from .raw import Arg, clients, encode
from .servers import Kind, Server, wait_for
from .targets import Respite, running_respite

pytestmark = pytest.mark.long("valkey9")

CLIENTS = 1_000
FILES = 2 * CLIENTS + 200
VALUE = b"$5\r\nvalue\r\n"
READS: dict[str, tuple[tuple[Arg, ...], bytes, bytes]] = {
    "GET": (("SET", "k", "value"), VALUE, b"$-1\r\n"),
    "HGETALL": (("HSET", "k", "field", "value"), b"*2\r\n$5\r\nfield\r\n" + VALUE, b"*0\r\n"),
}
"""By command: what writes the key, what is read then, and what is read of a missing key."""


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """Allow so many open sockets to this process and to the ones that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, max(hard, FILES) if hard >= 0 else hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def server(kind: Kind, files: None) -> Iterator[Server]:
    """Run a server of its own for each test."""
    with Server(kind) as started:
        yield started


@pytest.fixture
def respite(server: Server) -> Iterator[Respite]:
    """Run Respite in front of it; while Redis is held up for the tests, L1 stays in service."""
    with running_respite({"upstream": {"url": server.url}, "l1": {"max_staleness": "30s"}}) as started:
        yield started


def _calls(server: Server, command: str) -> int:
    """Return how often Redis has been given a command, by whomever."""
    with server.connect() as client:
        text = client.command("INFO", "commandstats").decode()
    found = re.search(rf"^cmdstat_{command.lower()}:calls=(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


def _stampede(server: Server, respite: Respite, command: str) -> tuple[set[bytes], int]:
    """Let all ask before Redis has answered the first; return what they were answered, and how many reads Redis got."""
    with clients(respite.address, CLIENTS) as herd:
        for client in herd:
            assert client.command("PING") == b"+PONG\r\n"
        reads = _calls(server, command)
        joined = respite.stats()["l1"]["joined_total"]
        server.pause()
        try:
            for client in herd:
                client.send(encode(command, "k"))
            wait_for(
                lambda: respite.stats()["l1"]["joined_total"] >= joined + CLIENTS - 1,
                what="all but one wait for what the first has asked",
                timeout_s=20,
            )
        finally:
            server.resume()
        return {client.frame() for client in herd}, _calls(server, command) - reads


@pytest.mark.parametrize("command", READS)
def test_stampede_on_a_missing_key_sends_one_read(server: Server, respite: Respite, command: str) -> None:
    """A thousand clients that read a key nobody has written are answered by one read."""
    replies, reads = _stampede(server, respite, command)

    assert (replies, reads) == ({READS[command][2]}, 1)


@pytest.mark.parametrize("command", READS)
def test_stampede_on_an_expired_key_sends_one_read(server: Server, respite: Respite, command: str) -> None:
    """A thousand clients that read a key whose time has just ended, in L1 and in Redis, are answered by one read."""
    write, found, missing = READS[command]
    with respite.connect() as client, server.connect() as stranger:
        client.command(*write)
        client.command("PEXPIRE", "k", 300)
        assert client.command(command, "k") == client.command(command, "k") == found
        assert respite.stats()["l1"]["hits_total"] == 1
        # Asked directly: what Respite is asked of a missing key it would keep.
        wait_for(lambda: stranger.command("EXISTS", "k") == b":0\r\n", what="it has expired")

    replies, reads = _stampede(server, respite, command)

    assert (replies, reads) == ({missing}, 1)


@pytest.mark.parametrize("command", READS)
def test_stampede_on_a_changed_key_sends_one_read(server: Server, respite: Respite, command: str) -> None:
    """A thousand clients that read a key which a stranger has just written are answered by one read."""
    write, found, missing = READS[command]
    with respite.connect() as client, server.connect() as stranger:
        assert client.command(command, "k") == client.command(command, "k") == missing
        stranger.command(*write)
        wait_for(lambda: respite.stats()["l1"]["invalidations_total"] > 0, what="the push has come")

    replies, reads = _stampede(server, respite, command)

    assert (replies, reads) == ({found}, 1)
