"""The invalidation link: how it tracks, when L1 is served, what its loss does, and what a strange server does to it."""

from __future__ import annotations

import pytest

from proxy.net.invalidation import control as control_module
from proxy.wire.encode import bulk

from ..e2e.servers import Server, ServerOptions, find_kind
from .conftest import Serve
from .driver import Client, Proxy, warm
from .peer import Peer, PeerLink, error, until

UNKNOWN_HELLO = error("ERR unknown command `HELLO`, with args beginning with: `3`, ")
STALENESS_S = 0.3
NOT_CACHED_TWICE = [b"$3\r\nnew\r\n"] * 2


async def _served(peer: Peer, proxy: Proxy) -> Client:
    """Connect a client whose key `warm` is `v`, and in L1."""
    client = await proxy.connect()
    assert await client.command("SET", "warm", "v") == b"+OK\r\n"
    await proxy.settled()
    assert await warm(client) == b"$1\r\nv\r\n"
    return client


async def _is_hit(peer: Peer, client: Client, expected: bytes = b"$1\r\nv\r\n") -> bool:
    """Read `warm` and tell whether the peer was not asked."""
    asked = len(peer.seen("GET"))
    assert await client.command("GET", "warm") == expected
    return len(peer.seen("GET")) == asked


# -- how the server tracks ---------------------------------------------------------------------------------------------


async def test_control_to_a_server_without_hello_speaks_resp2_and_tracks_nothing(peer: Peer, serve: Serve) -> None:
    """A server before 6 is served without L1, and the reason says why."""
    peer.on("HELLO", UNKNOWN_HELLO)
    peer.on("INFO", bulk(b"# Server\r\nredis_version:5.0.14\r\n"))
    proxy = await serve(peer)
    client = await proxy.connect()

    assert await client.command("SET", "k", "new") == b"+OK\r\n"
    assert [await client.command("GET", "k") for _ in range(2)] == NOT_CACHED_TWICE
    upstream = proxy.stats()["upstream"]
    assert (upstream["state"], upstream["server"], upstream["tracking"]) == ("up", "redis 5.0.14", "off")
    assert "5.0.14 cannot track" in upstream["tracking_reason"]
    assert len(peer.seen("GET")) == 2
    assert [one for one in peer.seen("CLIENT") if one.words[1].upper() == b"TRACKING"] == []
    assert (await client.command("HELLO", "3")).startswith(b"-ERR unknown command")


async def test_control_to_a_server_that_refuses_redirect_broadcasts(peer: Peer, serve: Serve) -> None:
    """Where CLIENT TRACKING REDIRECT is refused all changes are announced instead, and L1 works."""

    def tracking(link: PeerLink, words: list[bytes]) -> bytes:
        if b"REDIRECT" in words:
            return error("ERR REDIRECT is not supported here")
        return peer.model.run(link.model, words)

    peer.on("CLIENT TRACKING", tracking)
    proxy = await serve(peer)
    client = await proxy.connect()
    assert await client.command("SET", "warm", "v") == b"+OK\r\n"
    await until(lambda: proxy.worker.tracking.mode == "broadcast", "broadcast is chosen")
    await proxy.settled()

    assert await warm(client) == b"$1\r\nv\r\n"
    assert await _is_hit(peer, client)
    assert proxy.stats()["upstream"]["tracking_reason"] == "the server refuses CLIENT TRACKING REDIRECT"
    peer.model.foreign("SET", "warm", "new")
    peer.pump()
    await until(lambda: proxy.stats()["l1"]["entries"] == 0, "the push is applied")
    assert not await _is_hit(peer, client, b"$3\r\nnew\r\n")


@pytest.mark.parametrize("wanted", ["auto", "broadcast"])
async def test_control_to_a_server_that_refuses_tracking_switches_l1_off(peer: Peer, serve: Serve, wanted: str) -> None:
    """Where CLIENT TRACKING is refused altogether nothing is cached, and the reason quotes the server."""
    peer.on("CLIENT TRACKING", error("ERR tracking is not for you"))
    proxy = await serve(peer, l1={"tracking": wanted})
    client = await proxy.connect()
    await client.command("SET", "k", "new")
    await until(lambda: "not for you" in proxy.stats()["upstream"]["tracking_reason"], "the reason is told")

    assert [await client.command("GET", "k") for _ in range(2)] == NOT_CACHED_TWICE
    assert (proxy.stats()["upstream"]["tracking"], proxy.stats()["l1"]["serving"]) == ("off", False)
    assert proxy.stats()["upstream"]["state"] == "up"
    assert len(peer.seen("GET")) == 2


async def test_control_told_not_to_track_serves_up_to_max_age(peer: Peer, serve: Serve) -> None:
    """With l1.tracking off entries live for max_age, whatever changes."""
    proxy = await serve(peer, l1={"tracking": "off", "max_age_s": 0.2})
    client = await _served(peer, proxy)
    peer.model.foreign("SET", "warm", "new")

    assert await _is_hit(peer, client)
    await until(lambda: proxy.worker.reactor.clock() > _deadline(proxy), "max_age has passed")
    assert not await _is_hit(peer, client, b"$3\r\nnew\r\n")


def _deadline(proxy: Proxy) -> float:
    (namespace,) = proxy.worker.engine.l1.namespaces.values()
    return max(entry.deadline for entry in namespace.resident.values())


# -- silence -----------------------------------------------------------------------------------------------------------


async def test_control_silent_beyond_max_staleness_suspends_l1_and_keeps_it(peer: Peer, serve: Serve) -> None:
    """L1 is not served while nothing proves that pushes arrive; the next PONG brings it back, unflushed."""
    proxy = await serve(peer, l1={"max_staleness_s": STALENESS_S})
    client = await _served(peer, proxy)
    assert await _is_hit(peer, client)
    accepted, flushes = peer.accepted, proxy.stats()["l1"]["flushes_total"]

    peer.hold("control")
    await until(lambda: not proxy.stats()["l1"]["serving"], "L1 is suspended")

    assert not await _is_hit(peer, client)
    assert len(peer.of("control")) == 1
    peer.go_on("control")
    await until(lambda: proxy.stats()["l1"]["serving"], "L1 is served again")
    assert await _is_hit(peer, client)
    assert (peer.accepted, proxy.stats()["l1"]["flushes_total"]) == (accepted, flushes)


async def test_control_silent_suspends_l1_within_max_staleness(peer: Peer, serve: Serve) -> None:
    """From the moment pushes stop arriving, nothing older than max_staleness is served."""
    proxy = await serve(peer, l1={"max_staleness_s": STALENESS_S})
    client = await _served(peer, proxy)

    peer.hold("control")
    peer.model.foreign("SET", "warm", "new")
    peer.pump()
    changed_at = proxy.worker.reactor.clock()
    last_hit_at = 0.0
    reply = b""
    while reply != b"$3\r\nnew\r\n":
        asked_at = proxy.worker.reactor.clock()
        reply = await client.command("GET", "warm")
        if reply == b"$1\r\nv\r\n":
            last_hit_at = asked_at
        assert asked_at - changed_at < 5

    assert last_hit_at - changed_at <= STALENESS_S


async def test_control_applies_the_pushes_of_the_silence_before_l1_is_served_again(peer: Peer, serve: Serve) -> None:
    """What changed while the link was silent is dropped when it speaks again."""
    proxy = await serve(peer, l1={"max_staleness_s": STALENESS_S})
    client = await _served(peer, proxy)

    peer.hold("control")
    peer.model.foreign("SET", "warm", "new")
    peer.pump()
    await until(lambda: not proxy.stats()["l1"]["serving"], "L1 is suspended")
    peer.go_on("control")
    await until(lambda: proxy.stats()["l1"]["serving"], "L1 is served again")

    assert await client.command("GET", "warm") == b"$3\r\nnew\r\n"


async def test_control_silent_beyond_the_response_timeout_is_given_up(peer: Peer, serve: Serve) -> None:
    """A link that answers nothing for response_timeout is closed and opened anew."""
    proxy = await serve(peer, l1={"max_staleness_s": 0.1}, upstream={"response_timeout_s": 0.4})
    await _served(peer, proxy)
    (link,) = peer.of("control")

    peer.hold("control")
    await until(lambda: link.is_closed, "the silent link is closed")
    peer.go_on("control")

    await until(lambda: proxy.stats()["upstream"]["state"] == "up", "a new link stands")


async def test_control_is_pinged_four_times_in_max_staleness(peer: Peer, serve: Serve) -> None:
    """The link is pinged so often that one late answer does not suspend L1."""
    proxy = await serve(peer, l1={"max_staleness_s": STALENESS_S})
    began = proxy.worker.reactor.clock()
    await until(lambda: len(peer.seen("PING", "control")) >= 9, "nine pings")

    assert 1.4 * STALENESS_S < proxy.worker.reactor.clock() - began < 4 * STALENESS_S


# -- loss --------------------------------------------------------------------------------------------------------------


async def test_control_killed_flushes_l1_and_leases_only_what_the_new_link_hears_of(peer: Peer, serve: Serve) -> None:
    """After a loss everything is dropped; reads are leased again only once their link redirects to the new one."""
    proxy = await serve(peer)
    client = await _served(peer, proxy)
    (old,) = peer.of("control")

    peer.stop("data")
    old.close()
    await until(lambda: proxy.stats()["l1"]["serving"] and peer.of("control"), "a new invalidation link stands")
    (new,) = peer.of("control")
    assert proxy.stats()["l1"]["entries"] == 0
    assert not proxy.links("data")[0]["tracked"]
    leased = len(peer.seen("PTTL"))
    await client.send("GET", "warm")
    await until(lambda: proxy.links("data")[0]["outstanding"] == 2, "CLIENT TRACKING and GET are sent")
    peer.go_on("data")

    assert await client.frame() == b"$1\r\nv\r\n"
    assert len(peer.seen("PTTL")) == leased
    (link,) = peer.of("data")
    assert link.model.redirect == new.model.id
    await warm(client)
    assert await _is_hit(peer, client)
    assert len(peer.seen("PTTL")) == leased + 1


async def test_control_killed_while_redis_refuses_leaves_l1_dark(peer: Peer, serve: Serve) -> None:
    """As long as no invalidation link stands L1 is neither filled nor served, though data links answer."""
    proxy = await serve(peer)
    client = await _served(peer, proxy)
    peer.close_on("INFO")

    peer.kill("control")
    await until(lambda: proxy.stats()["upstream"]["state"] == "unreachable", "the loss is noticed")

    for _ in range(3):
        assert not await _is_hit(peer, client)
    assert not proxy.stats()["l1"]["serving"]
    peer.as_usual("INFO")
    await proxy.settled()
    await warm(client)
    assert await _is_hit(peer, client)


async def test_control_null_push_drops_everything(peer: Peer, serve: Serve) -> None:
    """FLUSHALL by somebody else is announced without keys: nothing stays."""
    proxy = await serve(peer)
    client = await _served(peer, proxy)

    peer.model.foreign("FLUSHALL")
    peer.pump()
    await until(lambda: proxy.stats()["l1"]["entries"] == 0, "L1 is empty")

    assert await client.command("GET", "warm") == b"$-1\r\n"


# -- who may -----------------------------------------------------------------------------------------------------------


async def test_control_drops_l1_when_acls_change(peer: Peer, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of ACLs that did not pass through here is noticed, and what was allowed is dropped."""
    monkeypatch.setattr(control_module, "WATCH_EVERY_S", 0.02)
    proxy = await serve(peer, l1={"max_staleness_s": 0.2})
    await _served(peer, proxy)
    flushes = proxy.stats()["l1"]["flushes_total"]

    peer.model.acl_version += 1
    await until(lambda: proxy.stats()["l1"]["flushes_total"] == flushes + 1, "L1 is dropped")

    assert proxy.stats()["clients"]["connected"] == 1


async def test_control_closes_the_sessions_of_a_deleted_user(
    redis: Server, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis closes the connections of a user that is deleted, and so does Respite, only these."""
    monkeypatch.setattr(control_module, "WATCH_EVERY_S", 0.02)
    proxy = await serve(redis, l1={"max_staleness_s": 0.2})
    alice, bob, nobody = [await proxy.connect() for _ in range(3)]
    assert await alice.command("AUTH", "alice", "pw") == b"+OK\r\n"
    assert await bob.command("AUTH", "bob", "pw") == b"+OK\r\n"
    await until(lambda: proxy.worker.control.watch.acl_digest, "the ACLs have been seen")

    with redis.connect() as direct:
        assert direct.command("ACL", "DELUSER", "alice") == b":1\r\n"

    assert await alice.until_closed() == b""
    assert await bob.command("ACL", "WHOAMI") == b"$3\r\nbob\r\n"
    assert await nobody.command("ACL", "WHOAMI") == b"$7\r\ndefault\r\n"


async def test_control_that_is_not_let_in_adopts_a_clients_credentials(serve: Serve) -> None:
    """With no credentials of its own the invalidation link logs in as the first client that Redis has let in."""
    with Server(find_kind("redis7"), ServerOptions(password="pw")) as server:
        proxy = await serve(server)
        client = await proxy.connect()
        assert proxy.stats()["upstream"]["state"] == "refused"
        assert await client.command("GET", "k") == b"-NOAUTH Authentication required.\r\n"
        assert await client.command("AUTH", "pw") == b"+OK\r\n"
        await until(lambda: proxy.stats()["upstream"]["state"] == "up", "the invalidation link is let in")

        assert await client.command("SET", "k", "v") == b"+OK\r\n"
        await until(lambda: any(row["tracked"] for row in proxy.links("data")), "the client's link is tracked")
        await warm(client, "k")
        hits = proxy.stats()["l1"]["hits_total"]
        assert await client.command("GET", "k") == b"$1\r\nv\r\n"
        assert proxy.stats()["l1"]["hits_total"] == hits + 1


# -- strange servers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"+surplus\r\n", b"HTTP/1.1 200 OK\r\n", b">1\r\n$10\r\ninvalidate\r\n"])
async def test_control_that_sends_nonsense_is_closed_and_flushed(peer: Peer, serve: Serve, sent: bytes) -> None:
    """A link whose bytes cannot be trusted is lost like one that broke: L1 starts again, clients notice nothing."""
    proxy = await serve(peer)
    client = await _served(peer, proxy)
    (link,) = peer.of("control")
    await until(lambda: not proxy.worker.control._expected, "nothing is owed")

    link.push(sent)
    await until(lambda: link.is_closed, "the link is closed")
    await until(lambda: peer.of("control") and proxy.stats()["upstream"]["state"] == "up", "a new one stands")

    assert not await _is_hit(peer, client)


STRANGE = {
    "null": b"_\r\n",
    "nil": b"$-1\r\n",
    "broken-integer": b":abc\r\n",
    "integer": b":7\r\n",
    "empty": b"*0\r\n",
    "nested": b"*1\r\n*1\r\n+x\r\n",
    "map": b"%1\r\n+a\r\n+b\r\n",
    "simple": b"+x\r\n",
    "broken-double": b",x\r\n",
}


@pytest.mark.parametrize("command", ["INFO", "COMMAND", "CLIENT ID", "CLIENT INFO", "ACL", "CLIENT TRACKING"])
@pytest.mark.parametrize("reply", STRANGE.values(), ids=STRANGE)
async def test_control_survives_replies_of_the_wrong_kind(peer: Peer, serve: Serve, command: str, reply: bytes) -> None:
    """A server that answers the first commands in a way no Redis does ends no worker; clients are answered."""
    peer.on(command, reply)
    proxy = await serve(peer)
    client = await proxy.connect()

    assert await client.command("PING") in (b"+PONG\r\n", b"-ERR respite: upstream unavailable\r\n")
    assert (await client.command("MULTI"))[:1] in b"+-"
    peer.as_usual(command)
    peer.kill()
    await until(lambda: proxy.stats()["upstream"]["state"] == "up", "the link stands once the server is sane")


async def test_control_refused_command_leaves_clients_served(peer: Peer, serve: Serve) -> None:
    """A user who may not run COMMAND is served all the same, without L1; the state says what was refused."""
    peer.on("COMMAND", error("NOPERM this user has no permissions to run the 'command' command"))
    proxy = await serve(peer)
    client = await proxy.connect()

    assert await client.command("SET", "k", "new") == b"+OK\r\n"
    assert [await client.command("GET", "k") for _ in range(2)] == NOT_CACHED_TWICE
    assert proxy.stats()["upstream"]["state"] == "refused"
    assert "NOPERM" in proxy.stats()["upstream"]["why"]


async def test_control_learns_a_command_it_did_not_know(peer: Peer, serve: Serve) -> None:
    """A command that appears later (a module was loaded) is asked for and then travels on the shared link."""
    proxy = await serve(peer)
    client = await proxy.connect()
    await proxy.settled() if await client.command("PING") == b"+PONG\r\n" else None
    peer.on("FRESH", b"+fresh\r\n")
    row = b"*6\r\n$5\r\nfresh\r\n:1\r\n*1\r\n$8\r\nreadonly\r\n:0\r\n:0\r\n:0\r\n"
    known = peer.model.commands[b"COMMAND"]

    def command(link: PeerLink, words: list[bytes]) -> bytes:
        count, _, rows = known(peer.model, link.model, words).partition(b"\r\n")
        return b"*%d\r\n%b%b" % (int(count[1:]) + 1, rows, row)

    peer.on("COMMAND", command)
    assert await client.command("FRESH") == b"+fresh\r\n"
    await until(lambda: proxy.worker.table.find([b"FRESH"]).name == b"FRESH", "it is known")
    other = await proxy.connect()
    assert await other.command("FRESH") == b"+fresh\r\n"

    assert [one.link.kind for one in peer.seen("FRESH")] == ["pinned", "data"]
