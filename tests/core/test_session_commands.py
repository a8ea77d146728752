"""HELLO, AUTH, SELECT, RESET, QUIT: what is answered here, what Redis is asked, and what the session learns."""

from __future__ import annotations

import pytest

from proxy.cache.entry import Scope
from proxy.core.session import Identity
from proxy.core.slots import Slot

from .scripted import URL_USER, Conversation, ScriptedClient, ScriptedServices

OK = b"+OK\r\n"
NOAUTH = b"-NOAUTH Authentication required.\r\n"
WRONGPASS = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
GREETING_2 = b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$2\r\nid\r\n:77\r\n"
GREETING_3 = b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$2\r\nid\r\n:77\r\n"


@pytest.fixture
def services() -> ScriptedServices:
    """Make a worker in front of a Redis that has answered nothing yet."""
    return ScriptedServices()


@pytest.fixture
def talk(services: ScriptedServices) -> Conversation:
    """Take the session commands of that worker."""
    return Conversation(services)


@pytest.fixture
def client(services: ScriptedServices) -> ScriptedClient:
    """Connect a client to it, with id 1."""
    return services.client()


# -- SELECT ------------------------------------------------------------------------------------------------------------


def test_select_of_a_database_that_redis_has_accepted_is_answered_here(
    services: ScriptedServices, talk: Conversation, client: ScriptedClient
) -> None:
    """A database with a data link that stands is known to be there: no question, and the client's place moves."""
    services.good.add(Scope(b"url", 3, 2))

    assert talk.here(client, "SELECT 3") == [OK]
    assert client.session.db == 3
    assert client.scopes == [Scope(b"url", 3, 2)]


@pytest.mark.parametrize("reply", [OK, b"-ERR DB index is out of range\r\n", b"-NOPERM no\r\n"])
def test_select_of_an_unknown_database_is_redis_own(talk: Conversation, client: ScriptedClient, reply: bytes) -> None:
    """Redis is asked, its reply is the client's, and the session moves only when it agreed."""
    asked, answer = talk.asks(client, "SELECT 5", reply)

    assert (asked, answer) == ([b"SELECT", b"5"], reply)
    assert client.session.db == (5 if reply == OK else 0)
    assert talk.link.place == ((URL_USER, 5, 2) if reply == OK else None)


def test_select_of_the_present_database_needs_no_link(talk: Conversation, client: ScriptedClient) -> None:
    """SELECT 0 in database 0 is answered, even with Redis away."""
    assert talk.here(client, "SELECT 0") == [OK]


@pytest.mark.parametrize(
    "line", ["SELECT", "SELECT x", "SELECT 1 2", "SELECT -1", "SELECT 01", "SELECT +1", "SELECT 1x"]
)
def test_select_that_is_malformed_is_redis_own(
    services: ScriptedServices, talk: Conversation, client: ScriptedClient, line: str
) -> None:
    """Redis has the words for what is wrong."""
    services.good.add(Scope(b"url", 1, 2))
    refusal = b"-ERR invalid DB index\r\n"

    assert talk.asks(client, line, refusal)[1] == refusal
    assert client.session.db == 0


@pytest.mark.parametrize("line", ["SELECT " + "9" * 5000, "CLIENT PAUSE " + "9" * 5000, "CLIENT UNBLOCK " + "9" * 5000])
def test_numbers_of_thousands_of_digits_are_redis_own(talk: Conversation, client: ScriptedClient, line: str) -> None:
    """A number that fits nothing is passed on as it is: Redis has the words."""
    refusal = b"-ERR value is not an integer or out of range\r\n"

    asked, answer = talk.asks(client, line, refusal)

    assert (asked[-1], answer) == (b"9" * 5000, refusal)


def test_select_behind_replies_still_owed_waits(
    services: ScriptedServices, talk: Conversation, client: ScriptedClient
) -> None:
    """The next command would travel on another link, and could overtake what is under way."""
    services.good.add(Scope(b"url", 3, 2))
    client.queue.append(Slot(None))

    assert talk.here(client, "SELECT 3") is None
    client.queue.clear()
    assert talk.here(client, "SELECT 3") == [OK]


# -- HELLO -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reply", "protocol"), [(GREETING_3, 3), (GREETING_2, 2)])
def test_hello_first_is_asked_and_then_remembered(
    services: ScriptedServices, talk: Conversation, client: ScriptedClient, reply: bytes, protocol: int
) -> None:
    """Redis' greeting is passed on with the session's own id; the next client is answered from it."""
    line = f"HELLO {protocol}"
    asked, answer = talk.asks(client, line, reply)
    assert asked == line.encode().split()
    assert answer == reply.replace(b":77", b":1")
    assert client.session.protocol == protocol
    assert talk.link.place == (URL_USER, 0, protocol)

    second = services.client()
    assert talk.here(second, line) == [reply.replace(b":77", b":2")]
    assert second.session.protocol == protocol
    assert second.scopes == [Scope(b"url", 0, protocol)]


def test_hello_without_a_version_keeps_the_protocol(talk: Conversation, client: ScriptedClient) -> None:
    """HELLO alone only tells."""
    client.session.protocol = 3
    assert talk.asks(client, "HELLO", GREETING_3)[0] == [b"HELLO"]

    assert talk.here(client, "HELLO") == [GREETING_3.replace(b":77", b":1")]
    assert client.session.protocol == 3


def test_hello_greeting_of_one_user_is_not_anothers(
    services: ScriptedServices, talk: Conversation, client: ScriptedClient
) -> None:
    """What Redis told one user says nothing about another."""
    talk.asks(client, "HELLO 3", GREETING_3)

    assert talk.here(services.client(identity=Identity(b"bob", b"pw")), "HELLO 3") is None


def test_hello_behind_replies_still_owed_waits(
    services: ScriptedServices, talk: Conversation, client: ScriptedClient
) -> None:
    """Another protocol is another link, which must not overtake the present one."""
    talk.asks(services.client(), "HELLO 3", GREETING_3)
    client.queue.append(Slot(None))

    assert talk.here(client, "HELLO 3") is None


@pytest.mark.parametrize("line", ["HELLO 4", "HELLO x", "HELLO 3 NONSENSE", "HELLO 3 AUTH bob", "HELLO 3 SETNAME"])
def test_hello_that_redis_refuses_changes_nothing(
    services: ScriptedServices, talk: Conversation, client: ScriptedClient, line: str
) -> None:
    """An error of Redis leaves protocol, name and user as they were."""
    refusal = b"-NOPROTO unsupported protocol version\r\n"

    assert talk.asks(client, line, refusal)[1] == refusal
    assert (client.session.protocol, client.session.name, client.session.identity) == (2, b"", URL_USER)
    assert (services.adopted, services.hellos) == ([], {})


def test_hello_with_auth_and_name_makes_the_session_that_user(
    services: ScriptedServices, talk: Conversation, client: ScriptedClient
) -> None:
    """What Redis accepted in one HELLO all takes effect: user, name, protocol."""
    asked, answer = talk.asks(client, "HELLO 3 SETNAME app AUTH bob pw", GREETING_3)

    assert asked == [b"HELLO", b"3", b"SETNAME", b"app", b"AUTH", b"bob", b"pw"]
    assert answer == GREETING_3.replace(b":77", b":1")
    session = client.session
    assert (session.identity, session.name, session.protocol) == (Identity(b"bob", b"pw"), b"app", 3)
    assert services.adopted == [Identity(b"bob", b"pw")]
    assert services.hellos == {(b"bob", 3): GREETING_3}


def test_hello_reply_without_an_id_is_passed_on(talk: Conversation, client: ScriptedClient) -> None:
    """A greeting that is put together otherwise is the client's as it is."""
    assert talk.asks(client, "HELLO 3", b"%0\r\n")[1] == b"%0\r\n"


# -- AUTH --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "identity"),
    [
        ("AUTH pw", Identity(b"", b"pw")),
        ("AUTH bob pw", Identity(b"bob", b"pw")),
        ("AUTH bob ''", Identity(b"bob", b"''")),
    ],
)
def test_auth_that_redis_accepts_makes_the_session_that_user(
    services: ScriptedServices, talk: Conversation, client: ScriptedClient, line: str, identity: Identity
) -> None:
    """The session is who Redis let in, and its links are that user's."""
    assert talk.asks(client, line) == (line.encode().split(), OK)

    assert client.session.identity == identity
    assert services.adopted == [identity]
    assert talk.link.place == (identity, 0, 2)


@pytest.mark.parametrize("line", ["AUTH pw", "AUTH bob pw", "AUTH", "AUTH a b c"])
def test_auth_that_redis_refuses_changes_nothing(
    services: ScriptedServices, talk: Conversation, client: ScriptedClient, line: str
) -> None:
    """A refused AUTH leaves the session who it was, as in Redis."""
    assert talk.asks(client, line, WRONGPASS)[1] == WRONGPASS
    assert client.session.identity == URL_USER
    assert (services.adopted, talk.link.place) == ([], None)


# -- listen.users ------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(services: ScriptedServices) -> ScriptedClient:
    """Connect a client to a worker that has users of its own."""
    services.proxy_users = {b"app": b"one", b"default": b"two"}
    return services.client()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("AUTH app one", OK),
        ("AUTH two", OK),
        ("AUTH default two", OK),
        ("AUTH app two", WRONGPASS),
        ("AUTH one", WRONGPASS),
        ("AUTH nobody one", WRONGPASS),
        ("AUTH app on", WRONGPASS),
        ("AUTH APP one", WRONGPASS),
    ],
)
def test_users_of_ours_are_checked_here(
    talk: Conversation, guarded: ScriptedClient, line: str, expected: bytes
) -> None:
    """With listen.users Redis is not asked; who gets in is to Redis still the user of the URL."""
    assert talk.here(guarded, line) == [expected]
    assert guarded.session.authenticated is (expected == OK)
    assert guarded.session.identity == URL_USER


@pytest.mark.parametrize(
    ("line", "refusal"),
    [("AUTH", b"-ERR wrong number of arguments for 'auth' command\r\n"), ("AUTH a b c", b"-ERR syntax error\r\n")],
)
def test_users_of_ours_read_redis_words_for_an_auth_that_is_none(
    talk: Conversation, guarded: ScriptedClient, line: str, refusal: bytes
) -> None:
    """Redis is not asked, and says it so."""
    assert talk.here(guarded, line) == [refusal]


@pytest.mark.parametrize("line", ["AUTH app one", "HELLO 3 AUTH app one"])
def test_users_of_ours_whose_password_must_be_tried_are_parked(
    services: ScriptedServices, talk: Conversation, guarded: ScriptedClient, line: str
) -> None:
    """Nothing is answered, and nothing else of the client is looked at, until the password has been tried."""
    services.untried = {b"app"}

    assert talk.here(guarded, line) is None
    assert (guarded.parked, guarded.session.authenticated) == ("login", False)


@pytest.mark.parametrize("line", ["SELECT 1", "CLIENT ID", "CLIENT LIST", "CLIENT KILL ID 1"])
def test_users_of_ours_get_nothing_before_auth(talk: Conversation, guarded: ScriptedClient, line: str) -> None:
    """Until then every command but AUTH, HELLO, QUIT and RESET is refused as Redis does."""
    assert talk.here(guarded, line) == [NOAUTH]


def test_users_of_ours_read_of_hello_what_redis_would_say(talk: Conversation, guarded: ScriptedClient) -> None:
    """HELLO without AUTH is refused in Redis' words."""
    (reply,) = talk.here(guarded, "HELLO 3") or []

    assert reply.startswith(b"-NOAUTH HELLO must be called with the client already authenticated")
    assert not guarded.session.authenticated


def test_users_of_ours_log_in_with_hello_and_redis_never_sees_their_password(
    talk: Conversation, guarded: ScriptedClient
) -> None:
    """HELLO's AUTH is ours, the rest of it is Redis'."""
    asked, answer = talk.asks(guarded, "HELLO 3 AUTH app one SETNAME x", GREETING_3)

    assert asked == [b"HELLO", b"3", b"SETNAME", b"x"]
    assert answer == GREETING_3.replace(b":77", b":1")
    session = guarded.session
    assert (session.authenticated, session.identity, session.name) == (True, URL_USER, b"x")


def test_users_of_ours_with_a_wrong_password_in_hello_are_refused(talk: Conversation, guarded: ScriptedClient) -> None:
    """Redis is asked nothing: who is not let in costs it no connection."""
    assert talk.here(guarded, "HELLO 3 AUTH app wrong") == [WRONGPASS]
    assert (guarded.session.authenticated, guarded.session.protocol) == (False, 2)


@pytest.mark.parametrize(
    ("line", "refusal"),
    [
        ("HELLO 3 AUTH app one NONSENSE", "-ERR Syntax error in HELLO option 'NONSENSE'"),
        ("HELLO 3 AUTH app", "-ERR Syntax error in HELLO option 'AUTH'"),
        ("HELLO 3 AUTH app one SETNAME", "-ERR Syntax error in HELLO option 'SETNAME'"),
        ("HELLO 4 AUTH app one", "-NOPROTO unsupported protocol version"),
        ("HELLO x AUTH app one", "-ERR Protocol version is not an integer or out of range"),
    ],
)
def test_users_of_ours_are_not_let_in_by_a_hello_that_is_refused(
    talk: Conversation, guarded: ScriptedClient, line: str, refusal: str
) -> None:
    """A HELLO takes effect as a whole or not at all, in Redis' words, and its password is not even tried."""
    assert talk.here(guarded, line) == [refusal.encode() + b"\r\n"]
    assert not guarded.session.authenticated


@pytest.mark.parametrize("line", ["HELLO 3 AUTH app no AUTH app one", "HELLO 3 SETNAME AUTH AUTH app one"])
def test_users_of_ours_passwords_stay_here_however_hello_is_put(
    talk: Conversation, guarded: ScriptedClient, line: str
) -> None:
    """No word of an AUTH reaches Redis, and no other word is lost."""
    asked, _ = talk.asks(guarded, line, GREETING_3)

    assert asked in ([b"HELLO", b"3"], [b"HELLO", b"3", b"SETNAME", b"AUTH"])


# -- RESET and QUIT ----------------------------------------------------------------------------------------------------


def test_reset_makes_the_session_as_new(services: ScriptedServices, talk: Conversation, client: ScriptedClient) -> None:
    """User and database are those of the URL again; name, protocol, CLIENT REPLY and pinned link are gone."""
    services.initial_db = 5
    session = client.session
    session.identity, session.db, session.protocol, session.name = Identity(b"bob", b"pw"), 4, 3, b"app"
    session.muted, session.skips, session.no_evict, session.no_touch, session.multi = True, 1, True, True, 2
    session.subscriptions, session.patterns = 3, 2
    client.muting, client.pin = True, talk.link

    assert talk.here(client, "RESET") == [b"+RESET\r\n"]

    assert (session.identity, session.db, session.protocol, session.name) == (URL_USER, 5, 2, b"")
    assert (session.muted, session.skips, session.no_evict, session.no_touch) == (False, 0, False, False)
    assert (session.multi, session.subscriptions, session.patterns, session.id) == (-1, 0, 0, 1)
    assert (client.muting, client.pin) == (False, None)
    assert client.scopes == [Scope(b"url", 5, 2)]


def test_reset_waits_for_replies_still_owed(talk: Conversation, client: ScriptedClient) -> None:
    """What was asked before is answered in the old state."""
    client.session.db = 4
    client.queue.append(Slot(None))

    assert talk.here(client, "RESET") is None
    client.queue.clear()
    assert talk.here(client, "RESET") == [b"+RESET\r\n"]


def test_reset_of_a_user_of_ours_asks_for_auth_again(talk: Conversation, guarded: ScriptedClient) -> None:
    """As Redis does where the default user has a password."""
    assert talk.here(guarded, "AUTH app one") == [OK]
    assert talk.here(guarded, "RESET") == [b"+RESET\r\n"]

    assert talk.here(guarded, "SELECT 0") == [NOAUTH]


def test_reset_with_arguments_is_redis_own(talk: Conversation, client: ScriptedClient) -> None:
    """Redis has the words, and nothing is reset."""
    client.session.db = 4
    refusal = b"-ERR wrong number of arguments for 'reset' command\r\n"

    assert talk.asks(client, "RESET now", refusal) == ([b"RESET", b"now"], refusal)
    assert client.session.db == 4


@pytest.mark.parametrize("line", ["QUIT", "quit", "QUIT now"])
def test_quit_says_ok_and_ends(talk: Conversation, client: ScriptedClient, line: str) -> None:
    """Whatever follows is not looked at."""
    assert talk.here(client, line) == [OK]
    assert client.ended
