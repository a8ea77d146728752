"""Sessions are to clients what Redis' own client structures are: CLIENT LIST, INFO and KILL see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from proxy.core.session import FilterError, Filters, Identity, Session, Sessions

from ..e2e.raw import tree
from ..e2e.servers import REQUIRED_KINDS, Server, find_kind

FIELDS = ("id", "addr", "laddr", "fd", "name", "age", "idle", "flags", "db", "sub", "psub", "ssub", "multi", "resp")


def session(number: int = 1, *, last_at: float = 100.0, **changes: Any) -> Session:
    """Make a session that began at 100."""
    made = Session(number, f"127.0.0.1:{5000 + number}", "127.0.0.1:6380", 100.0, Identity(), last_at=lambda: last_at)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def line(made: Session, now: float = 100.0, fields: Sequence[str] = FIELDS, command: bytes = b"") -> dict[str, str]:
    """Take its line in CLIENT LIST apart."""
    return dict(part.split("=", 1) for part in made.line(now, fields, command).split(" "))


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        (Identity(), b""),
        (Identity(password=b"secret"), b"default"),
        (Identity(b"alice", b"secret"), b"alice"),
        (Identity(b"default", b""), b"default"),
    ],
)
def test_identity_user_keeps_apart_who_redis_keeps_apart(identity: Identity, expected: bytes) -> None:
    """A password alone is the default user's; nobody at all is kept apart from both."""
    assert expected == identity.user


def test_identity_password_is_never_shown() -> None:
    """A password does not get into logs by way of a repr, nor does that of a session."""
    identity = Identity(b"alice", b"secret")

    assert "secret" not in repr(identity)
    assert "secret" not in repr(session(identity=identity))


def test_session_line_says_what_the_session_is() -> None:
    """Every field that we know has its value, in the order that the server itself has; what only Redis knows is 0."""
    made = session(7, name=b"app", db=3, protocol=3, subscriptions=2, patterns=1, multi=4, last_at=108.5)

    shown = made.line(110.9, (*FIELDS, "cmd", "user", "qbuf", "nosuch"), b"CLIENT|LIST")

    assert shown == (
        "id=7 addr=127.0.0.1:5007 laddr=127.0.0.1:6380 fd=0 name=app age=10 idle=2 flags=Px db=3 sub=2 psub=1 ssub=0 "
        "multi=4 resp=3 cmd=client|list user=default qbuf=0 nosuch=0"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "N"),
        ({"subscriptions": 1}, "P"),
        ({"patterns": 1}, "P"),
        ({"multi": 0}, "x"),
        ({"subscriptions": 1, "multi": 2}, "Px"),
    ],
)
def test_session_flags_are_those_of_redis(changes: dict[str, Any], expected: str) -> None:
    """P subscribes, x is in a transaction, N is neither."""
    assert expected == line(session(**changes))["flags"]


def test_session_line_shows_the_user_and_an_unknown_command() -> None:
    """Nobody in particular is shown as the default user; before the first command there is none."""
    made = session(identity=Identity(b"alice", b"x"))

    assert line(made, fields=("user", "cmd")) == {"user": "alice", "cmd": "NULL"}
    assert line(session(), fields=("user",)) == {"user": "default"}


def test_session_line_has_the_fields_of_a_real_server() -> None:
    """For the fields that a server shows, a session's line has the same form, and no field without a value it needs."""
    for name in REQUIRED_KINDS:
        with Server(find_kind(name)) as server, server.connect() as client:
            theirs = tree(client.command("CLIENT", "INFO")).own.split(b"\r\n")[1].decode()
        fields = [part.split("=")[0] for part in theirs.split()]

        ours = session().line(100.0, fields, b"client|info")

        assert fields == [part.split("=")[0] for part in ours.split(" ")]
        assert {"flags=N", "db=0", "user=default", "cmd=client|info", "resp=2", "redir=-1", "events=r"} & set(
            theirs.split()
        ) <= set(ours.split())


def test_sessions_ids_are_never_given_twice() -> None:
    """An id grows with each session, also when others have gone."""
    sessions = Sessions()
    first = session(sessions.next_id())
    sessions.add(first)
    sessions.remove(first)
    second = session(sessions.next_id())
    sessions.add(second)

    assert (first.id, second.id, len(sessions)) == (1, 2, 1)
    assert sessions.get(1) is None
    assert sessions.get(2) is second
    sessions.remove(first)
    assert len(sessions) == 1


def test_sessions_may_go_while_they_are_looked_at() -> None:
    """CLIENT KILL ends sessions while it walks over them."""
    sessions = Sessions()
    for number in range(1, 6):
        sessions.add(session(number))

    for made in sessions:
        sessions.remove(made)

    assert len(sessions) == 0


def everybody() -> Sessions:
    """Make five sessions that differ."""
    sessions = Sessions()
    sessions.add(session(1))
    sessions.add(session(2, subscriptions=1, name=b"listens", lib_name=b"app", lib_version=b"1.0"))
    sessions.add(session(3, identity=Identity(b"alice", b"x")))
    sessions.add(session(4, address="/run/socket:0", local_address="other"))
    sessions.add(session(5, created_at=40.0, last_at=70.0, db=3, multi=0))
    return sessions


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (b"", {1, 2, 3, 4, 5}),
        (b"ID 2", {2}),
        (b"id 2 3 99", {2, 3}),
        (b"ID 1 ID 2", {1, 2}),
        (b"TYPE normal", {1, 3, 4, 5}),
        (b"type PUBSUB", {2}),
        (b"TYPE master", set()),
        (b"TYPE replica", set()),
        (b"USER alice", {3}),
        (b"USER default", {1, 2, 4, 5}),
        (b"USER nobody", set()),
        (b"ADDR 127.0.0.1:5001", {1}),
        (b"LADDR other", {4}),
        (b"MAXAGE 60", {5}),
        (b"MAXAGE 61", set()),
        (b"SKIPME yes", {2, 3, 4, 5}),
        (b"SKIPME YES ID 1 2", {2}),
        (b"SKIPME no", {1, 2, 3, 4, 5}),
        (b"TYPE normal USER default ID 1 2 5", {1, 5}),
        (b"TYPE primary", set()),
        *((b"FLAGS x", {5}), (b"flags P", {2}), (b"FLAGS Px", set()), (b"NOT-FLAGS N", {2, 5}), (b"IDLE 30", {5})),
        *(
            (b"NAME listens", {2}),
            (b"NAME nobody", set()),
            (b"NAME x NAME listens", {2}),
            (b"NOT-NAME x", {1, 2, 3, 4, 5}),
        ),
        *((b"LIB-NAME app", {2}), (b"LIB-VER 1.0", {2}), (b"NOT-LIB-VER 1.0 NOT-LIB-NAME app", {1, 3, 4, 5})),
        *((b"DB 3", {5}), (b"DB 0 ID 4 5", {4}), (b"NOT-DB 0", {5}), (b"CAPA r", set()), (b"NOT-CAPA r ID 1", {1})),
        *((b"IP 127.0.0.1", {1, 2, 3, 5}), (b"NOT-IP 127.0.0.1", {4}), (b"NOT-ADDR 127.0.0.1:5001", {2, 3, 4, 5})),
        *(
            (b"NOT-ID 1 2", {3, 4, 5}),
            (b"NOT-TYPE pubsub", {1, 3, 4, 5}),
            (b"NOT-USER alice NOT-LADDR other", {1, 2, 5}),
        ),
    ],
)
def test_filters_pass_who_fits_all_of_them(words: bytes, expected: set[int]) -> None:
    """Filters in any order and case, all of which must fit; ids add up."""
    sessions = everybody()
    asker = sessions.get(1)
    assert asker is not None
    filters = Filters.parse(words.split(), skip_me=False)

    assert sorted(expected) == [found.id for found in sessions.matching(filters, asker, 100.0)]


def test_filters_skip_me_is_what_the_command_says_first() -> None:
    """KILL spares the one who asks unless told otherwise; LIST does not."""
    sessions = everybody()
    asker = sessions.get(2)
    assert asker is not None

    for words, skip_me, expected in (
        (b"", True, 4),
        (b"SKIPME no", True, 5),
        (b"", False, 5),
        (b"SKIPME yes", False, 4),
    ):
        filters = Filters.parse(words.split(), skip_me=skip_me)
        assert expected == len(sessions.matching(filters, asker, 100.0))


BAD_FILTERS = (
    *(
        b"ID",
        b"ID x",
        b"ID -1",
        b"ID 1.5",
        b"TYPE nosuch",
        b"NOT-TYPE nosuch",
        b"NOT-ID x",
        b"NOT-MAXAGE 3",
        b"NOT-SKIPME yes",
        b"IDLE x",
        b"TYPE",
        b"SKIPME maybe",
        b"NOSUCH x",
        b"ID 1 NOSUCH",
    ),
    *(b"ID \xc2\xb2", b"ID " + b"9" * 5000, b"ID 1 " + b"9" * 5000, b"MAXAGE " + b"9" * 5000, b"MAXAGE \xc2\xb2"),
    *(b"MAXAGE x", b"ADDR", b"\xff x", b"USER"),
)


@pytest.mark.parametrize("words", BAD_FILTERS, ids=lambda words: repr(words[:20]))
def test_filters_malformed_are_refused_and_nothing_else_happens(words: bytes) -> None:
    """Whatever a client writes there, it gets an error line of Redis' kind: never a crash, never everybody."""
    with pytest.raises(FilterError, match=r"^ERR "):
        Filters.parse(words.split(), skip_me=True)


@pytest.mark.parametrize("words", [b"ID x y z", b"ID -1", b"TYPE nosuch", b"SKIPME maybe", b"NOSUCH x", b"ID x"])
def test_filters_errors_are_those_of_a_real_server(words: bytes) -> None:
    """For what both know, the refusal of a KILL has the server's own words."""
    with Server(find_kind("redis7")) as server, server.connect() as client:
        theirs = client.command("CLIENT", "KILL", *words.split())

    with pytest.raises(FilterError) as refused:
        Filters.parse(words.split(), skip_me=True)

    assert theirs == b"-%b\r\n" % str(refused.value).encode()
