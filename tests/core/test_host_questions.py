"""What a session asks about the whole host where there are other workers, and what it makes of the answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from proxy.core.client_commands import ClientCommands
from proxy.core.respite_commands import RespiteCommands
from proxy.core.session import Filters
from proxy.core.slots import CallSlot, Failure, Pending
from proxy.errors import HOST_SILENT

from .scripted import ScriptedClient, ScriptedLink, ScriptedServices, words_of
from .scripted_slots import ScriptedClient as SlotClient

OK = b"+OK\r\n"
NOBODY = 2**63 - 1


class ScriptedHost:
    """Keep questions until the test answers them."""

    def __init__(self) -> None:
        self.asked: deque[tuple[str, tuple[object, ...], Callable[[Any], None]]] = deque()

    def ask(self, question: str, *arguments: object, then: Callable[[Any], None]) -> None:
        """Keep it."""
        self.asked.append((question, arguments, then))

    def answer(self, value: object) -> tuple[str, tuple[object, ...]]:
        """Answer the oldest question; return what it was."""
        question, arguments, then = self.asked.popleft()
        then(value)
        return question, arguments


@pytest.fixture
def host() -> ScriptedHost:
    """Make other workers."""
    return ScriptedHost()


@pytest.fixture
def services(host: ScriptedHost) -> ScriptedServices:
    """Make a worker among others."""
    made = ScriptedServices()
    made.host = host
    return made


def _land(client: ScriptedClient, then: Callable[[bytes], bytes | Pending], reply: bytes) -> CallSlot:
    """Owe the client a slot, and let Redis' reply land in it."""
    slot = CallSlot(client, then)
    client.owe(slot)
    slot.land(reply)
    return slot


def _pinned(services: ScriptedServices) -> tuple[ScriptedClient, ScriptedLink]:
    client, link = services.client(), ScriptedLink()
    client.pin = link
    return client, link


# -- a reply that is not known yet -------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_early", [True, False])
def test_pending_fills_its_slot_whenever_the_answer_comes(is_early: bool) -> None:
    """Before the slot lands or after, the client is sent it in its turn: what came later waits behind it."""
    client, pending = SlotClient(), Pending()
    slot = CallSlot(client, lambda _: pending)
    client.owe(slot)
    client.reply(b"+later\r\n")
    if is_early:
        pending.settle(b"+asked\r\n")
    slot.land(OK)
    if not is_early:
        assert client.received == b""
        pending.settle(b"+asked\r\n")

    assert client.received == b"+asked\r\n+later\r\n"


def test_pending_of_a_client_that_has_gone_is_dropped() -> None:
    """An answer to nobody harms nobody."""
    client, pending = SlotClient(), Pending()
    slot = CallSlot(client, lambda _: pending)
    client.owe(slot)
    slot.land(OK)
    client.queue.clear()
    slot.orphan()

    pending.settle(b"+asked\r\n")

    assert client.received == b""


# -- RESPITE -----------------------------------------------------------------------------------------------------------


ANSWERED: list[tuple[str, tuple[object, ...], object, str]] = [
    ("RESPITE STATS", ("stats",), {"a": 1}, '{"a": 1}'),
    ("RESPITE INFO", ("stats",), {"a": 1, "l1": {"b": 2}}, "# Respite\r\na:1\r\n\r\n# L1\r\nb:2\r\n"),
    ("RESPITE INFO l1", ("stats",), {"a": 1, "l1": {"b": 2}}, "# L1\r\nb:2\r\n"),
    ("RESPITE INFO nosuch", ("stats",), {"a": 1}, ""),
    ("RESPITE LINKS", ("stats",), {"links": [{"id": 1, "worker": 0}]}, "id=1 worker=0\n"),
    ("RESPITE EXPLAIN k", ("explain", b"k"), {"l1": []}, '{"l1": [], "value": {"error": "ERR away"}}'),
    ("RESPITE CLIENTS", ("lines", Filters()), ["id=1", "id=2"], "id=1\nid=2\n"),
]


def _ask_respite(services: ScriptedServices, line: str) -> ScriptedClient:
    """Ask as a client whom Redis lets run CONFIG."""
    client = services.client()
    client.away = b"-ERR away\r\n"  # what Redis says of a value is test_respite_commands'
    _, then = RespiteCommands(services).ask(client, words_of(line))
    _land(client, then, b"*0\r\n")
    return client


@pytest.mark.parametrize(("line", "question", "answer", "body"), ANSWERED)
def test_respite_is_about_all_workers(  # noqa: PLR0917 - a row of the table each
    services: ScriptedServices,
    host: ScriptedHost,
    line: str,
    question: tuple[object, ...],
    answer: object,
    body: str,
) -> None:
    """The question goes to all, and the client reads the answer in the form one worker's would have."""
    client = _ask_respite(services, line)
    assert client.replies == []

    name, arguments = host.answer(answer)

    assert (name, *arguments) == question
    assert client.replies == [b"$%d\r\n%b\r\n" % (len(body), body.encode())]


def test_respite_l1_clear_counts_all_workers(services: ScriptedServices, host: ScriptedHost) -> None:
    """One number for all."""
    client = _ask_respite(services, "RESPITE L1 CLEAR")

    assert host.answer(7) == ("clear_l1", ())
    assert client.replies == [b":7\r\n"]


@pytest.mark.parametrize("line", [row[0] for row in ANSWERED] + ["RESPITE L1 CLEAR"])
def test_respite_without_an_answer_is_an_error(services: ScriptedServices, host: ScriptedHost, line: str) -> None:
    """No figures are made up when the others are silent."""
    client = _ask_respite(services, line)

    host.answer(None)

    assert client.replies == [HOST_SILENT]


@pytest.mark.parametrize("line", ["RESPITE HELP", "RESPITE NOSUCH", "RESPITE"])
def test_respite_that_is_the_same_in_all_asks_nobody(services: ScriptedServices, host: ScriptedHost, line: str) -> None:
    """Help, and what is wrong, is answered at once."""
    client = _ask_respite(services, line)

    assert not host.asked
    assert len(client.replies) == 1


def test_respite_of_a_user_without_config_asks_nobody(services: ScriptedServices, host: ScriptedHost) -> None:
    """Redis' refusal stands."""
    client = services.client()
    _, then = RespiteCommands(services).ask(client, words_of("RESPITE STATS"))
    _land(client, then, b"-NOPERM no\r\n")

    assert (client.replies, len(host.asked)) == ([b"-NOPERM no\r\n"], 0)


# -- CLIENT ------------------------------------------------------------------------------------------------------------


def _client(services: ScriptedServices, line: str) -> tuple[ScriptedClient, ScriptedLink, bytes, Any]:
    client, link = _pinned(services)
    raw, then = ClientCommands(services).ask(client, link, words_of(line), b"raw")
    return client, link, bytes(raw), then


def test_client_list_is_of_all_workers(services: ScriptedServices, host: ScriptedHost) -> None:
    """The lines come from all, with the filters that were asked for; a wrong filter asks nobody."""
    client, _, _, then = _client(services, "CLIENT LIST TYPE normal")
    _land(client, then, b"$0\r\n\r\n")

    assert host.answer(["id=1", "id=2"]) == ("lines", (Filters(kind="normal"),))
    assert client.replies == [b"$10\r\nid=1\nid=2\n\r\n"]
    client, _, _, then = _client(services, "CLIENT LIST ID nobody")
    _land(client, then, b"$0\r\n\r\n")
    assert client.replies[0].startswith(b"-ERR")
    assert not host.asked


def test_client_kill_counts_this_worker_s_sessions_and_the_others(
    services: ScriptedServices, host: ScriptedHost
) -> None:
    """Here they end at once, elsewhere when asked; the asker is told by its id to be left alone there."""
    here = services.client()
    client, _, _, then = _client(services, "CLIENT KILL TYPE normal")
    _land(client, then, b":0\r\n")
    assert here.is_closed

    assert host.answer(3) == ("kill", (Filters(kind="normal", skip_me=True), client.session.id))
    assert client.replies == [b":4\r\n"]


@pytest.mark.parametrize(("number", "reply"), [(1, OK), (0, b"-ERR No such client\r\n"), (None, HOST_SILENT)])
def test_client_kill_by_address_looks_everywhere(
    services: ScriptedServices, host: ScriptedHost, number: int | None, reply: bytes
) -> None:
    """Nobody has an address only if no worker knows it."""
    client, _, _, then = _client(services, "CLIENT KILL 10.0.0.1:5")
    _land(client, then, b"-ERR No such client\r\n")

    host.answer(number)

    assert client.replies == [reply]


def test_client_pause_is_told_to_all(services: ScriptedServices, host: ScriptedHost) -> None:
    """No worker takes a paused reply for late; the client waits for nobody to hear it."""
    client, _, _, then = _client(services, "CLIENT PAUSE 250")
    _land(client, then, OK)

    assert client.replies == [OK]
    assert host.answer(None) == ("pause", (0.25,))


@pytest.mark.parametrize("upstream_id", [77, 0, None])
def test_client_unblock_looks_for_the_session_elsewhere(
    services: ScriptedServices, host: ScriptedHost, upstream_id: int | None
) -> None:
    """An id of another worker is looked up there and tried again, on the link the client keeps until then."""
    client, link, raw, then = _client(services, "CLIENT UNBLOCK 99 ERROR")
    assert raw.endswith(b"%d\r\n$5\r\nERROR\r\n" % NOBODY)
    _land(client, then, b":0\r\n")
    assert not link.state.is_free

    assert host.answer(upstream_id) == ("upstream_id", (99,))
    [(again, slot)] = link.submitted
    assert again.endswith(b"%d\r\n$5\r\nERROR\r\n" % (upstream_id or NOBODY))
    assert (client.replies, link.state.is_free) == ([], True)
    slot.land(b":1\r\n")

    assert client.replies == [b":1\r\n"]


def test_client_unblock_of_a_session_here_asks_nobody(services: ScriptedServices, host: ScriptedHost) -> None:
    """Who is here is nowhere else."""
    target = services.client()
    client, _, _, then = _client(services, f"CLIENT UNBLOCK {target.session.id}")
    _land(client, then, b":0\r\n")

    assert (client.replies, len(host.asked)) == ([b":0\r\n"], 0)


def test_client_unblock_whose_second_try_is_lost_is_an_error(services: ScriptedServices, host: ScriptedHost) -> None:
    """A link that dies in between leaves no client waiting."""
    client, link, _, then = _client(services, "CLIENT UNBLOCK 99")
    _land(client, then, b":0\r\n")
    host.answer(77)
    link.submitted[0][1].fail(Failure.LOST)

    assert client.replies == [HOST_SILENT]


def test_client_tracking_redirects_to_a_session_elsewhere(services: ScriptedServices, host: ScriptedHost) -> None:
    """The second try carries the link's id of the other worker, and its success is what the session goes by."""
    client, link, raw, then = _client(services, "CLIENT TRACKING ON REDIRECT 99 BCAST")
    assert b"%d\r\n$5\r\nBCAST\r\n" % NOBODY in raw
    _land(client, then, b"-ERR The client ID you want redirect to does not exist\r\n")

    host.answer(77)
    [(again, slot)] = link.submitted
    assert again.endswith(b"$2\r\n77\r\n$5\r\nBCAST\r\n")
    slot.land(OK)

    assert client.replies == [OK]
    assert link.state.tracking
    assert not link.state.is_free


def test_client_that_lost_its_link_meanwhile_is_sent_nothing_on_it(
    services: ScriptedServices, host: ScriptedHost
) -> None:
    """The link may serve somebody else by now."""
    client, link, _, then = _client(services, "CLIENT UNBLOCK 99")
    _land(client, then, b":0\r\n")
    client.pin = None

    host.answer(77)

    assert link.submitted == []
