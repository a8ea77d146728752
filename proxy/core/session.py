"""Sessions: what a client connection is to Redis, apart from its bytes.

Owns who a client is, which database and protocol it speaks, its name and id, and the list of all of them. What
CLIENT LIST and CLIENT KILL see are these sessions, not the links they share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from proxy.wire.encode import count


def _never() -> float:
    return 0.0


def _nothing() -> None:
    pass


@attrs.frozen
class Identity:
    """Who a link is to Redis. No username and no password: whoever Redis takes an anonymous client for."""

    username: bytes = b""
    password: bytes = attrs.field(default=b"", repr=False)

    @property
    def user(self) -> bytes:
        """The name L1 and links are kept apart by; b"" is the anonymous one."""
        return self.username or (b"default" if self.password else b"")


@attrs.define(eq=False)
class Session:
    """One client connection's state, as Redis keeps it for its own clients."""

    id: int
    address: str
    local_address: str
    created_at: float
    identity: Identity
    db: int = 0
    protocol: int = 2
    name: bytes = b""
    lib_name: bytes = b""
    lib_version: bytes = b""
    muted: bool = False  # CLIENT REPLY OFF
    skips: int = 0  # CLIENT REPLY SKIP: 2 = this command's own reply and the next one's, 1 = the next one's
    no_evict: bool = False
    no_touch: bool = False
    authenticated: bool = True  # false: listen.users asks for AUTH first
    proxy_user: bytes = b""  # which of listen.users it is, b"" none
    subscriptions: int = 0
    patterns: int = 0
    multi: int = -1  # commands queued in a MULTI, -1 = none
    last_words: list[bytes] = attrs.field(factory=list)  # of the last command: its name, and what may be a subcommand
    last_at: Callable[[], float] = _never  # when the client was last heard
    close: Callable[[], None] = _nothing  # end the connection, by CLIENT KILL
    upstream_id: int = 0  # the client id of its pinned link, 0 = not pinned

    @property
    def kind(self) -> str:
        """The TYPE of CLIENT LIST."""
        return "pubsub" if self.subscriptions or self.patterns else "normal"

    @property
    def flags(self) -> str:
        """The flags of CLIENT LIST."""
        return ("P" if self.kind == "pubsub" else "") + ("x" if self.multi >= 0 else "") or "N"

    def end(self) -> None:
        """Let go of the connection, which is closed: the two would hold each other until a collection finds them."""
        self.close, self.last_at = _nothing, _never

    def line(self, now: float, fields: Sequence[str], command: bytes) -> str:
        """Return the session's line in CLIENT LIST, with the fields the server itself would show, in its order.

        `command` is the full name of the last one. What only Redis could know is 0. Source: Redis documentation,
        CLIENT LIST.
        """
        known: Mapping[str, object] = {
            "id": self.id,
            "addr": self.address,
            "laddr": self.local_address,
            "name": _shown(self.name),
            "age": int(now - self.created_at),
            "idle": int(now - self.last_at()),
            "flags": self.flags,
            "db": self.db,
            "sub": self.subscriptions,
            "psub": self.patterns,
            "multi": self.multi,
            "events": "r",
            "cmd": _shown(command.lower()) or "NULL",
            "user": _shown(self.identity.user or b"default"),
            "redir": -1,
            "resp": self.protocol,
            "lib-name": _shown(self.lib_name),
            "lib-ver": _shown(self.lib_version),
            "capa": "",
        }
        return " ".join(f"{field}={known.get(field, 0)}" for field in fields)


def _shown(value: bytes) -> str:
    return value.decode("utf-8", "replace")


class Sessions:
    """All sessions by id. Of several workers each counts from a number of its own, so that no two ids are the same."""

    __slots__ = ("_by_id", "_next_id", "_step")

    def __init__(self, first: int = 1, step: int = 1) -> None:
        self._by_id: dict[int, Session] = {}
        self._next_id = first
        self._step = step

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_id.values()))

    def next_id(self) -> int:
        """Return an id never given before: `first`, and each time `step` more."""
        next_id = self._next_id
        self._next_id += self._step
        return next_id

    def add(self, session: Session) -> None:
        """Register a session."""
        self._by_id[session.id] = session

    def remove(self, session: Session) -> None:
        """Forget a session that has ended."""
        self._by_id.pop(session.id, None)

    def get(self, session_id: int) -> Session | None:
        """Return the session with an id."""
        return self._by_id.get(session_id)

    def matching(self, filters: Filters, asker: Session, now: float) -> list[Session]:
        """Return the sessions that pass every filter, in order of id."""
        return [session for session in self if filters.match(session, asker, now)]


_OTHERS: Final = frozenset([b"FLAGS", b"NAME", b"LIB-NAME", b"LIB-VER", b"DB", b"CAPA", b"IP"])
_UNWANTED: Final = frozenset(b"NOT-" + option for option in (*_OTHERS, b"USER", b"ADDR", b"LADDR"))


class FilterError(ValueError):
    """A filter Redis would refuse; the text is its error, without `-`."""


@attrs.define
class Filters:
    """The filters of CLIENT LIST and CLIENT KILL. None = not asked for.

    `others` and `unwanted` (NOT-..) are those of Valkey 9, by the word of the client.
    """

    ids: set[int] | None = None
    kind: str | None = None
    user: str | None = None
    address: str | None = None
    local_address: str | None = None
    min_age_s: int | None = None
    min_idle_s: int | None = None
    others: dict[str, str] = attrs.field(factory=dict)
    unwanted: dict[str, str | set[int]] = attrs.field(factory=dict)
    skip_me: bool = False

    def match(self, session: Session, asker: Session, now: float) -> bool:
        """Return whether a session passes."""
        return not (
            (self.ids is not None and session.id not in self.ids)
            or (self.kind is not None and session.kind != self.kind)
            or (self.user is not None and _shown(session.identity.user or b"default") != self.user)
            or (self.address is not None and session.address != self.address)
            or (self.local_address is not None and session.local_address != self.local_address)
            or (self.min_age_s is not None and now - session.created_at < self.min_age_s)
            or (self.min_idle_s is not None and now - session.last_at() < self.min_idle_s)
            or (self.skip_me and session is asker)
            or any(not _fits(session, option, value) for option, value in self.others.items())
            or any(_fits(session, option, value) for option, value in self.unwanted.items())
        )

    @classmethod
    def parse(cls, words: Sequence[bytes], *, skip_me: bool) -> Filters:
        """Read filters in any order. Raises FilterError. ID takes one id (KILL) or as many as follow (LIST)."""
        filters = cls(skip_me=skip_me)
        at = 0
        while at < len(words):
            option = bytes(words[at]).upper()
            if at + 1 >= len(words):
                raise FilterError("ERR syntax error")
            value = _shown(bytes(words[at + 1]))
            at += 2
            if option in (b"ID", b"NOT-ID"):
                ids = {_id(words[at - 1])}
                while at < len(words) and count(bytes(words[at])) is not None:
                    ids.add(_id(words[at]))
                    at += 1
                if option == b"ID":
                    filters.ids = ids | (filters.ids or set())
                else:
                    filters.unwanted["ID"] = ids
            elif option in (b"TYPE", b"NOT-TYPE"):
                kind = value.lower()
                if kind not in ("normal", "master", "primary", "replica", "slave", "pubsub"):
                    raise FilterError(f"ERR Unknown client type '{value}'")
                if option == b"TYPE":
                    filters.kind = kind
                else:
                    filters.unwanted["TYPE"] = kind
            elif option == b"USER":
                filters.user = value
            elif option == b"ADDR":
                filters.address = value
            elif option == b"LADDR":
                filters.local_address = value
            elif option == b"MAXAGE" and (age_s := count(bytes(words[at - 1]))) is not None:
                filters.min_age_s = age_s
            elif option == b"IDLE" and (idle_s := count(bytes(words[at - 1]))) is not None:
                filters.min_idle_s = idle_s
            elif option in _OTHERS:
                filters.others[option.decode()] = value
            elif option in _UNWANTED:
                filters.unwanted[option[4:].decode()] = value
            elif option == b"SKIPME" and value.lower() in ("yes", "no"):
                filters.skip_me = value.lower() == "yes"
            else:
                raise FilterError("ERR syntax error")
        return filters


def _fits(session: Session, option: str, value: str | set[int]) -> bool:
    """Return whether one filter takes a session. Source: Valkey documentation, CLIENT LIST."""
    if not isinstance(value, str):
        return session.id in value
    match option:
        case "FLAGS":
            return all(flag in session.flags for flag in value)
        case "CAPA":
            return False  # what a client can do is its connection's to Redis
        case "IP":
            return session.address.rpartition(":")[0] == value
        case "TYPE":
            return session.kind == value
        case "USER":
            return _shown(session.identity.user or b"default") == value
        case "ADDR":
            return session.address == value
        case "LADDR":
            return session.local_address == value
        case "DB":
            return str(session.db) == value
    texts = {"NAME": session.name, "LIB-NAME": session.lib_name, "LIB-VER": session.lib_version}
    return bool(texts[option]) and _shown(texts[option]) == value


def _id(word: bytes) -> int:
    number = count(bytes(word))
    if number is None:
        raise FilterError("ERR client-id should be greater than 0")
    return number
