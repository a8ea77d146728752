"""A Redis of a few commands for scripted tests: who executes what, and when, is the test's to say.

    Respite --bytes--> connection.unread --execute--> data, tracking table --> connection.answers --deliver--> Respite

Owns the data of 16 databases, the tracking table and the connections. Nothing happens by itself: a command waits until
the test lets it be executed, an answer or a push waits until the test lets it be delivered. Keys expire when they are
looked at, as in Redis; nobody pushes before. Every change of a key gets a number, so that a test can say which of two
values is the newer one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

import attrs
import hiredis

from proxy.wire.encode import bulk

OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"
WRONGTYPE = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
Place = tuple[int, bytes]
"""Database and key."""

Handler = Callable[["ModelRedis", "Connection", list[bytes]], bytes]
"""What executes a command: server, connection, words -> reply."""


@attrs.define
class Value:
    """What a key holds; a list is only something that is no string."""

    data: bytes
    expires_at: float = float("inf")
    is_list: bool = False


@attrs.frozen
class State:
    """One state a key was in: `number` rises by one with every change, `data` None means that it was missing."""

    number: int
    data: bytes | None
    since: float
    expires_at: float = float("inf")


@attrs.define
class Executed:
    """A command that was executed, and the number of the state each key it changed is in since."""

    connection_id: int
    words: list[bytes]
    changes: dict[Place, int] = attrs.field(factory=dict)


@attrs.define(eq=False)
class Connection:
    """A connection of Respite (or of a foreigner) and what waits on it."""

    id: int
    redis: ModelRedis
    name: str = ""
    db: int = 0
    protocol: int = 2
    user: bytes = b""
    open: bool = True  # the server's side
    redirect: int = 0
    broadcast: bool = False
    noloop: bool = False
    tracked: set[bytes] = attrs.field(factory=set)
    queued: list[list[bytes]] | None = None
    watched: dict[Place, int] = attrs.field(factory=dict)
    unread: deque[list[bytes]] = attrs.field(factory=deque)
    answers: bytearray = attrs.field(factory=bytearray)
    reader: hiredis.Reader = attrs.field(factory=hiredis.Reader)

    def receive(self, data: bytes) -> None:
        """Take bytes; whole commands wait in `unread`."""
        self.reader.feed(data)
        while (words := self.reader.gets()) is not False:
            self.unread.append(words)

    def execute(self, count: int = 1_000_000) -> int:
        """Execute up to so many of the commands that wait; return how many there were."""
        done = 0
        while self.unread and done < count:
            words = self.unread.popleft()
            reply = self.redis.run(self, words)
            if self.open:
                self.answers += reply
            self.redis.push_pending()
            done += 1
        return done

    @property
    def nil(self) -> bytes:
        """The nil of this connection's protocol."""
        return b"$-1\r\n" if self.protocol == 2 else b"_\r\n"


class ModelRedis:
    """The server."""

    def __init__(self, clock: Callable[[], float], commands: Mapping[bytes, Handler]) -> None:
        self.clock = clock
        self.commands = commands
        self.dbs: list[dict[bytes, Value]] = [{} for _ in range(16)]
        self.connections: dict[int, Connection] = {}
        self.history: dict[Place, list[State]] = {}
        self.log: list[Executed] = []
        self.forbidden: set[bytes] = set()  # users who may not GET
        self.acl_version = 0
        self._last_id = 0
        self._pending: list[tuple[Connection, bytes | None]] = []

    def connect(self, user: bytes = b"") -> Connection:
        """Open a connection."""
        self._last_id += 1
        connection = self.connections[self._last_id] = Connection(self._last_id, self, user=user)
        return connection

    def drop_connection(self, connection: Connection) -> None:
        """Close a connection on the server's side: its tracking is forgotten without a word."""
        connection.open = False
        self.connections.pop(connection.id, None)

    def foreign(self, *words: str | bytes | int, db: int = 0) -> bytes:
        """Execute a command of somebody who does not use Respite."""
        stranger = Connection(0, self, db=db)
        reply = self.run(stranger, [w if isinstance(w, bytes) else str(w).encode() for w in words])
        self.push_pending()
        return reply

    def executed(self, name: str) -> int:
        """Return how many commands of a name have been executed."""
        return sum(entry.words[0].upper() == name.encode() for entry in self.log)

    def states(self, db: int, key: bytes) -> list[State]:
        """Return every state a key has had; the first is what it was before anything happened."""
        return self.history.setdefault((db, key), [State(0, None, float("-inf"))])

    # -- data and tracking -------------------------------------------------------------------------------------------

    def look(self, db: int, key: bytes) -> Value | None:
        """Look a key up; one that has expired is deleted now, and only now announced."""
        value = self.dbs[db].get(key)
        if value is not None and value.expires_at <= self.clock():
            del self.dbs[db][key]
            self._changed(None, db, key)
            return None
        return value

    def change(self, author: Connection | None, db: int, key: bytes, value: Value | None) -> None:
        """Set a key, or delete it."""
        if value is None:
            self.dbs[db].pop(key, None)
        else:
            self.dbs[db][key] = value
        self._changed(author, db, key)

    def _changed(self, author: Connection | None, db: int, key: bytes) -> None:
        self._note(db, key)
        for connection in self.connections.values():
            if connection.broadcast or key in connection.tracked:
                connection.tracked.discard(key)
                if not (connection.noloop and connection is author):
                    self._pending.append((connection, key))

    def _note(self, db: int, key: bytes) -> None:
        """Give a number to the state a key is in now."""
        states = self.states(db, key)
        value = self.dbs[db].get(key)
        if value is None:
            states.append(State(states[-1].number + 1, None, self.clock()))
        else:
            states.append(State(states[-1].number + 1, value.data, self.clock(), value.expires_at))
        if self.log:
            self.log[-1].changes[(db, key)] = states[-1].number

    def flush(self, dbs: list[int]) -> None:
        """Delete everything; trackers are sent the push that names no key."""
        for db in dbs:
            keys = list(self.dbs[db])
            self.dbs[db].clear()
            for key in keys:
                self._note(db, key)
        for connection in self.connections.values():
            if connection.broadcast or connection.redirect:
                connection.tracked.clear()
                self._pending.append((connection, None))

    def swap(self, one: int, other: int) -> None:
        """Swap two databases; trackers hear nothing of it."""
        self.dbs[one], self.dbs[other] = self.dbs[other], self.dbs[one]
        for db in (one, other):
            for key in {key for at, key in self.history if at in (one, other)} | set(self.dbs[db]):
                self._note(db, key)

    def push_pending(self) -> None:
        """Send the pushes of the commands just executed, after their replies."""
        pending, self._pending = self._pending, []
        for connection, key in pending:
            body = b"_\r\n" if key is None else b"*1\r\n" + bulk(key)
            target = connection if connection.broadcast else self.connections.get(connection.redirect)
            if target is not None:
                target.answers += b">2\r\n$10\r\ninvalidate\r\n" + body
            elif connection.protocol == 3:
                connection.answers += b">2\r\n$21\r\ntracking-redir-broken\r\n:%d\r\n" % connection.redirect

    # -- commands ----------------------------------------------------------------------------------------------------

    def run(self, connection: Connection, words: list[bytes]) -> bytes:
        """Execute one command and return its reply."""
        name = words[0].upper()
        if connection.queued is not None and name not in (b"EXEC", b"DISCARD", b"MULTI"):
            connection.queued.append(words)
            return QUEUED
        self.log.append(Executed(connection.id, words))
        handler = self.commands.get(name)
        assert handler is not None, f"the model knows no {name!r}"
        return handler(self, connection, words)
