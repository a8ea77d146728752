"""CLIENT: what is answered from the session, what Redis is asked first, and what is sent to Redis instead."""

from __future__ import annotations

import pytest

from proxy.core.session import Identity

from .scripted import URL_USER, Conversation, ScriptedClient, ScriptedServices, table_without

OK = b"+OK\r\n"
NOPERM = b"-NOPERM this user has no permissions to run the 'client|list' command\r\n"
NOBODY = b"9223372036854775807"


@pytest.fixture
def services() -> ScriptedServices:
    """Make a worker in front of a Redis that knows all of CLIENT."""
    return ScriptedServices()


@pytest.fixture
def talk(services: ScriptedServices) -> Conversation:
    """Take the session commands of that worker."""
    return Conversation(services)


@pytest.fixture
def client(services: ScriptedServices) -> ScriptedClient:
    """Connect a client to it, with id 1."""
    return services.client()


# -- answered here -----------------------------------------------------------------------------------------------------


def test_client_id_is_the_sessions(services: ScriptedServices, talk: Conversation) -> None:
    """Ids are given by Respite, one after the other, whatever links Redis sees."""
    first, second = services.client(), services.client()

    assert talk.here(first, "CLIENT ID") == [b":1\r\n"]
    assert talk.here(second, "client id") == [b":2\r\n"]


def test_client_name_is_the_sessions(talk: Conversation, client: ScriptedClient) -> None:
    """SETNAME and GETNAME never reach a link that others share; no name is the nil of the protocol."""
    assert talk.here(client, "CLIENT GETNAME") == [b"$-1\r\n"]
    client.session.protocol = 3
    assert talk.here(client, "CLIENT GETNAME") == [b"_\r\n"]

    assert talk.here(client, "CLIENT SETNAME app:1") == [OK]
    assert talk.here(client, "CLIENT GETNAME") == [b"$5\r\napp:1\r\n"]
    assert talk.here(client, ("CLIENT", "SETNAME", "")) == [OK]
    assert talk.here(client, "CLIENT GETNAME") == [b"_\r\n"]


@pytest.mark.parametrize("name", ["two words", "new\nline", "t\tab", "naïve", "\x7f"])
def test_client_name_that_redis_refuses_is_redis_own(talk: Conversation, client: ScriptedClient, name: str) -> None:
    """Redis has the words, and the name stays."""
    refusal = b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"

    assert talk.asks(client, ("CLIENT", "SETNAME", name), refusal)[1] == refusal
    assert client.session.name == b""


def test_client_setinfo_is_kept_where_the_server_has_it(
    services: ScriptedServices, talk: Conversation, client: ScriptedClient
) -> None:
    """What libraries say of themselves belongs to the session; a server before 7.2 has the words for not knowing it."""
    assert talk.here(client, "CLIENT SETINFO lib-name app") == [OK]
    assert talk.here(client, "CLIENT SETINFO LIB-VER 1.2") == [OK]
    assert (client.session.lib_name, client.session.lib_version) == (b"app", b"1.2")
    assert talk.here(client, "CLIENT SETINFO nonsense x") is None
    assert talk.here(client, ("CLIENT", "SETINFO", "lib-name", "a b")) is None

    services.table = table_without("SETINFO")
    assert talk.here(client, "CLIENT SETINFO lib-name app") is None


@pytest.mark.parametrize("subcommand", ["NO-EVICT", "NO-TOUCH"])
def test_client_switches_are_remembered_where_the_server_has_them(
    services: ScriptedServices, talk: Conversation, client: ScriptedClient, subcommand: str
) -> None:
    """They are the session's, for the links are shared."""
    attribute = subcommand.lower().replace("-", "_")
    assert talk.here(client, f"CLIENT {subcommand} on") == [OK]
    assert getattr(client.session, attribute) is True
    assert talk.here(client, f"CLIENT {subcommand} OFF") == [OK]
    assert getattr(client.session, attribute) is False
    assert talk.here(client, f"CLIENT {subcommand} maybe") is None

    services.table = table_without(subcommand)
    assert talk.here(client, f"CLIENT {subcommand} on") is None


def test_client_reply_switches_replies(talk: Conversation, client: ScriptedClient) -> None:
    """OFF and SKIP say nothing themselves; ON answers, and ends both."""
    assert talk.here(client, "CLIENT REPLY SKIP") == []
    assert (client.session.muted, client.session.skips) == (False, 1)
    assert talk.here(client, "CLIENT REPLY OFF") == []
    assert client.session.muted
    assert talk.here(client, "CLIENT REPLY SKIP") == []  # nothing is sent anyway
    client.muting = True

    assert talk.here(client, "CLIENT REPLY ON") == [OK]
    assert (client.session.muted, client.session.skips, client.muting) == (False, 0, False)
    assert talk.here(client, "CLIENT REPLY MAYBE") is None


@pytest.mark.parametrize(
    "line",
    [
        "CLIENT",
        "CLIENT NOSUCH",
        "CLIENT ID 1",
        "CLIENT GETNAME x",
        "CLIENT SETNAME",
        "CLIENT SETNAME a b",
        "CLIENT REPLY",
        "CLIENT INFO x",
        "CLIENT HELP",
        "CLIENT GETREDIR",
        "CLIENT LIST",
        "CLIENT INFO",
    ],
)
def test_client_of_another_form_is_redis_own(talk: Conversation, client: ScriptedClient, line: str) -> None:
    """What is malformed, unknown or needs a right goes to Redis, which may refuse it in its own words."""
    refusal = b"-ERR wrong number of arguments\r\n"

    assert talk.asks(client, line, refusal) == (line.encode().split(), refusal)
    assert not talk.link.state.used
    talk.asks(client, "CLIENT NOSUCH")
    assert talk.link.state.used  # a server of a later day has it: nobody else gets the connection


def test_client_of_a_user_redis_has_not_let_in_is_redis_own(talk: Conversation, client: ScriptedClient) -> None:
    """Nothing is answered in the name of a user whom Redis would answer NOAUTH."""
    client.unproven = True

    assert talk.asks(client, "CLIENT ID", b"-NOAUTH Authentication required.\r\n")[1].startswith(b"-NOAUTH")


@pytest.mark.parametrize(
    ("line", "reply", "expected"),
    [
        ("CLIENT ID", b":99\r\n", b":1\r\n"),
        ("CLIENT GETNAME", b"$3\r\nold\r\n", b"$-1\r\n"),
        ("CLIENT SETNAME new", OK, OK),
        ("CLIENT NO-EVICT on", OK, OK),
        ("CLIENT SETINFO lib-name app", OK, OK),
    ],
)
def test_client_of_a_user_who_logged_in_is_asked_of_redis_first(
    services: ScriptedServices, talk: Conversation, line: str, reply: bytes, expected: bytes
) -> None:
    """Such a user may have fewer rights than the one of the URL: Redis says whether, the session says what."""
    client = services.client(identity=Identity(b"bob", b"pw"))

    assert talk.asks(client, line, NOPERM)[1] == NOPERM
    session = client.session
    assert (session.name, session.no_evict, session.lib_name) == (b"", False, b"")
    assert talk.asks(client, line, reply) == (line.encode().split(), expected)
    assert session.name == (b"new" if "SETNAME" in line else b"")
    assert session.no_evict is ("NO-EVICT" in line)
    assert session.lib_name == (b"app" if "SETINFO" in line else b"")
    assert talk.here(client, "CLIENT REPLY SKIP") == []  # it has no reply that could be waited for


# -- LIST and INFO -----------------------------------------------------------------------------------------------------


def test_client_list_shows_sessions_once_redis_allows_it(
    services: ScriptedServices, talk: Conversation, client: ScriptedClient
) -> None:
    """The lines are about connections to Respite, in order of id; Redis' own list is thrown away."""
    second = services.client(identity=Identity(b"bob", b"pw"), db=2, protocol=3)
    second.session.name = b"second"
    services.clock += 5

    asked, answer = talk.asks(client, "CLIENT LIST", b"$9\r\nid=99 ...\r\n")

    assert asked == [b"CLIENT", b"LIST"]
    head, _, body = answer.partition(b"\r\n")
    assert int(head[1:]) == len(body) - 2
    assert body.splitlines()[:2] == [
        b"id=1 addr=192.0.2.1:4001 laddr=192.0.2.9:6380 name= age=5 idle=0 flags=N db=0 user=url resp=2 cmd=ping "
        b"qbuf=0",
        b"id=2 addr=192.0.2.1:4002 laddr=192.0.2.9:6380 name=second age=5 idle=0 flags=N db=2 user=bob resp=3 cmd=ping "
        b"qbuf=0",
    ]
    client.session.protocol = 3
    assert talk.asks(client, "CLIENT LIST")[1].startswith(b"=")


@pytest.mark.parametrize("line", ["CLIENT LIST", "CLIENT INFO", "CLIENT KILL ID 2", "CLIENT KILL USER url"])
def test_client_list_and_kill_of_a_user_without_the_right_are_refused(
    services: ScriptedServices, talk: Conversation, client: ScriptedClient, line: str
) -> None:
    """Redis judges who may; its refusal is the answer, and nothing happens."""
    other = services.client()

    assert talk.asks(client, line, NOPERM)[1] == NOPERM
    assert not other.is_closed


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ("ID 2", [2]),
        ("ID 1 3", [1, 3]),
        ("ID 1 ID 3", [1, 3]),
        ("TYPE normal", [1, 2]),
        ("TYPE pubsub", [3]),
        ("TYPE replica", []),
        ("USER bob", [2]),
        ("ADDR 192.0.2.1:4003", [3]),
        ("LADDR 192.0.2.9:6380", [1, 2, 3]),
        ("MAXAGE 10", [1]),
        ("SKIPME yes", [2, 3]),
        ("skipme no user url", [1, 3]),
        ("ID 7", []),
    ],
)
def test_client_list_filters(services: ScriptedServices, talk: Conversation, filters: str, ids: list[int]) -> None:
    """Each filter of Redis chooses among sessions; several must all be met."""
    client = services.client()
    services.clock += 20
    services.client(identity=Identity(b"bob"))
    services.client().session.subscriptions = 1

    answer = talk.asks(client, f"CLIENT LIST {filters}", b"$0\r\n\r\n")[1]

    assert [int(line.split()[0][3:]) for line in answer.splitlines() if line.startswith(b"id=")] == ids


def test_client_info_is_the_sessions_line(talk: Conversation, client: ScriptedClient) -> None:
    """Once Redis has let the user ask."""
    asked, answer = talk.asks(client, "CLIENT INFO", b"$7\r\nid=99 x\r\n")

    assert asked == [b"CLIENT", b"INFO"]
    assert answer.splitlines()[1].startswith(b"id=1 addr=192.0.2.1:4001 ")


# -- KILL --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "closed"),
    [
        ("ID 2", [2]),
        ("USER url", [3]),
        ("USER url SKIPME no", [1, 3]),
        ("TYPE normal", [2, 3]),
        ("ADDR 192.0.2.1:4002 USER bob", [2]),
        ("ADDR 192.0.2.1:4002 USER url", []),
        ("ID 99", []),
        ("MAXAGE 10 SKIPME no", [1]),
    ],
)
def test_client_kill_ends_sessions_after_redis_allowed_it(
    services: ScriptedServices, talk: Conversation, filters: str, closed: list[int]
) -> None:
    """Redis is asked the same with an id nobody has, so that it kills none; the count is of sessions."""
    clients = [services.client()]
    services.clock += 20
    clients += [services.client(identity=Identity(b"bob")), services.client()]

    asked, answer = talk.asks(clients[0], f"CLIENT KILL {filters}", b":0\r\n")

    assert asked[-2:] == [b"ID", NOBODY]
    assert not {b"2", b"99"} & set(asked)
    assert answer == b":%d\r\n" % len(closed)
    assert [one.session.id for one in clients if one.is_closed or one.ended] == closed
    assert clients[0].ended is (1 in closed)  # it still reads its answer
    assert not clients[0].is_closed


def test_client_kill_of_an_address_wants_one_that_is_there(
    services: ScriptedServices, talk: Conversation, client: ScriptedClient
) -> None:
    """The old form names one address; Redis' own ignorance of it says nothing."""
    other = services.client()
    nobody = b"-ERR No such client\r\n"

    asked, answer = talk.asks(client, "CLIENT KILL 192.0.2.1:4002", nobody)
    assert (asked, answer) == ([b"CLIENT", b"KILL", b"0.0.0.0:0"], OK)
    assert other.is_closed
    assert talk.asks(client, "CLIENT KILL 192.0.2.1:9", nobody)[1] == nobody
    assert talk.asks(client, "CLIENT KILL 192.0.2.1:4002", NOPERM)[1] == NOPERM


@pytest.mark.parametrize(
    "line", ["CLIENT KILL ID x", "CLIENT KILL TYPE nosuch", "CLIENT KILL USER nobody", "CLIENT KILL A B"]
)
def test_client_kill_that_redis_refuses_kills_nobody(
    services: ScriptedServices, talk: Conversation, client: ScriptedClient, line: str
) -> None:
    """Wrong filters are Redis' to name."""
    other = services.client()
    refusal = b"-ERR client-id should be greater than 0\r\n"

    assert talk.asks(client, line, refusal)[1] == refusal
    assert not other.is_closed


def test_client_kill_without_arguments_is_redis_own(talk: Conversation, client: ScriptedClient) -> None:
    """Nothing is put in its place."""
    refusal = b"-ERR wrong number of arguments for 'client|kill' command\r\n"

    assert talk.asks(client, "CLIENT KILL", refusal) == ([b"CLIENT", b"KILL"], refusal)


# -- what is sent in another form --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pinned", "sent"), [(True, b"900"), (False, NOBODY)])
def test_client_unblock_names_the_link_that_the_session_holds(
    services: ScriptedServices, talk: Conversation, client: ScriptedClient, pinned: bool, sent: bytes
) -> None:
    """The id of a session becomes the id of its connection to Redis; one that holds none is nobody there."""
    blocked = services.client()
    blocked.session.upstream_id = 900 if pinned else 0

    asked, answer = talk.asks(client, "CLIENT UNBLOCK 2 ERROR", b":1\r\n")

    assert (asked, answer) == ([b"CLIENT", b"UNBLOCK", sent, b"ERROR"], b":1\r\n")


@pytest.mark.parametrize("number", ["99", "1"])
def test_client_unblock_of_nobody_never_hits_a_link_of_ours(
    talk: Conversation, client: ScriptedClient, number: str
) -> None:
    """An id that names no session that blocks must not be taken for the id of one of Respite's connections."""
    assert talk.asks(client, f"CLIENT UNBLOCK {number}", b":0\r\n")[0] == [b"CLIENT", b"UNBLOCK", NOBODY]


@pytest.mark.parametrize(
    ("line", "reply", "expected"),
    [
        ("CLIENT PAUSE 1500", OK, [1.5]),
        ("CLIENT PAUSE 200 WRITE", OK, [0.2]),
        ("CLIENT UNPAUSE", OK, [0.0]),
        ("CLIENT PAUSE 1500", b"-NOPERM no\r\n", []),
        ("CLIENT PAUSE x", b"-ERR timeout is not an integer or out of range\r\n", []),
        ("CLIENT UNPAUSE x", b"-ERR wrong number of arguments\r\n", []),
    ],
)
def test_client_pause_counts_once_redis_has_allowed_it(
    services: ScriptedServices, talk: Conversation, line: str, reply: bytes, expected: list[float]
) -> None:
    """Replies are late again, or not, from the moment Redis says so."""
    asked, answer = talk.asks(services.client(), line, reply)

    assert (asked, answer) == (line.encode().split(), reply)
    assert services.paused == expected


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        ("CLIENT TRACKING on", "CLIENT TRACKING on"),
        ("CLIENT TRACKING ON REDIRECT 2", "CLIENT TRACKING ON REDIRECT 900"),
        ("CLIENT TRACKING ON redirect 2 BCAST", "CLIENT TRACKING ON redirect 900 BCAST"),
        ("CLIENT TRACKING ON REDIRECT 3", f"CLIENT TRACKING ON REDIRECT {NOBODY.decode()}"),
        ("CLIENT TRACKING ON REDIRECT 0", "CLIENT TRACKING ON REDIRECT 0"),
        ("CLIENT TRACKING ON REDIRECT", "CLIENT TRACKING ON REDIRECT"),
        ("CLIENT TRACKING ON REDIRECT x", "CLIENT TRACKING ON REDIRECT x"),
    ],
)
def test_client_tracking_of_the_app_redirects_to_the_link_of_the_session(
    services: ScriptedServices, talk: Conversation, line: str, sent: str
) -> None:
    """REDIRECT names a session, Redis is told its connection; the link is kept while tracking is on."""
    client, target, _ = services.client(), services.client(), services.client()
    target.session.upstream_id = 900

    assert talk.asks(client, line) == (sent.encode().split(), OK)
    assert (talk.link.state.tracking, talk.link.state.used) == (True, True)
    assert talk.asks(client, "CLIENT TRACKING off")[1] == OK
    assert not talk.link.state.tracking
    assert talk.link.state.used


def test_client_tracking_that_redis_refuses_holds_nothing(talk: Conversation, client: ScriptedClient) -> None:
    """The link can be given back."""
    talk.asks(client, "CLIENT TRACKING ON BCAST NOLOOP OPTIN", b"-ERR no\r\n")

    assert talk.link.state.is_free
    assert not talk.link.state.used


def test_client_caching_keeps_the_link_it_was_said_on(talk: Conversation, client: ScriptedClient) -> None:
    """What a connection remembers for the next command must not be lost, nor met by another."""
    assert talk.asks(client, "CLIENT CACHING YES", b"-ERR CLIENT CACHING can be called only when ..\r\n")
    assert talk.link.state.is_free
    talk.asks(client, "CLIENT CACHING YES")

    assert not talk.link.state.is_free
    assert client.session.identity == URL_USER
