"""What is held in memory of the keys of one user and database while Redis is away.

    find(key) --> held here?  its value           bytes a string, dict a hash, None no key
              --> what L1 knew before Redis went  (Known)
              --> nothing: taken for a key that is not there

Owns the items, their lives, and the bound in bytes (`Room`, shared by all stores of a worker). Which command does what
is `strings`', `hashes`' and `lives`'. An item also says what Redis may be told of it later: a value that owes nothing
to what was there (ABSOLUTE) stands for itself; one that was made from a value L1 knew (DERIVED) only where Redis still
holds that; one that was made from nothing because nothing was known (GUESSED) is never written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, NamedTuple

import attrs

from proxy.cache.entry import held_bytes
from proxy.errors import RespiteError

Value = bytes | dict[bytes, bytes] | None
"""A string, a hash, or no key at all."""

ITEM_BYTES: Final = 400
"""What an item takes besides its key and its value: the object 136, numbers of its own 32 each, its place in two dicts;
tests/core/offline/test_store.py measures it."""
FIELD_BYTES: Final = 72
"""What a field of a hash takes besides its name and its value: its place in a dict that may just have grown."""

WRONG_TYPE: Final = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
NO_ROOM: Final = b"-OOM respite: no room left for writes while Redis is away (outage.memory_bytes)\r\n"


class RefusedError(RespiteError):
    """A command that gets an error: `reply` is what the client reads."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply.decode("utf-8", "replace").strip())
        self.reply = reply


class NoRoomError(RefusedError):
    """A write that does not fit into the bound."""

    def __init__(self) -> None:
        super().__init__(NO_ROOM)


class UnsureError(RespiteError):
    """The answer depends on what only Redis knows: nothing may be said."""


class Standing(Enum):
    """What the value of an item owes to what was there before."""

    ABSOLUTE = 0
    DERIVED = 1
    GUESSED = 2


class Known(NamedTuple):
    """What L1 knew of a key: its whole value as Redis held it, and a version above all that were written by then.

    Up to `sure` it was no other: a later version, up to that one, may be another's.
    """

    value: Value
    version: int
    sure: int = 0


@attrs.define(eq=False)
class Item:
    """One key. All moments are milliseconds of the server's clock, since 1970."""

    value: Value = None
    ends_ms: int | None = None
    """When it ends; None: never, or, with `keeps_life`, whenever it does in Redis."""
    keeps_life: bool = False
    standing: Standing = Standing.GUESSED
    base: Value = None
    """Of a DERIVED one: what Redis must still hold."""
    since: int = 0
    """What is stored in Redis under a later version has won; 0 where there are no versions."""
    sure: int = 0
    """Of a DERIVED one: what is stored under a later version has won, too, if it is not what this was made from."""
    version: int = 0
    """Of the last change; 0 where there are no versions."""
    size_bytes: int = 0
    changes: int = 0
    """How often it was changed: whoever tells Redis of it finds whether that was the last word."""
    told_version: int = 0
    """Of what Redis may have heard of already, if the reply was lost; 0 for nothing."""
    told: bytes | None = None
    """.. and what it was told then."""
    refusals: int = 0
    """How often Redis has refused to hear of it."""


class Room:
    """The bound in bytes that all stores of a worker share."""

    __slots__ = ("max_bytes", "used_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Take so much more, or give so much back. Raises NoRoomError, and nothing is taken."""
        if size_bytes > 0 and self.used_bytes + size_bytes > self.max_bytes:
            raise NoRoomError
        self.used_bytes += size_bytes


class Store:
    """The keys of one user and database. Set `now_ms` before each command, and `version` before each write."""

    __slots__ = ("_has_version", "_known", "_on_hold", "items", "now_ms", "room", "version")

    def __init__(
        self,
        room: Room,
        known: Callable[[bytes], Known | None] = lambda _key: None,
        on_hold: Callable[[bytes], None] = lambda _key: None,
        has_version: Callable[[bytes], bool] = lambda _key: False,
    ) -> None:
        """`known` tells what L1 knew of a key, None for nothing; `on_hold` is told of each key held from now on.

        `has_version` says whether values of a key carry versions.
        """
        self.items: dict[bytes, Item] = {}
        self.room = room
        self.now_ms = 0
        self.version = 0
        self._known = known
        self._on_hold = on_hold
        self._has_version = has_version

    def find(self, key: bytes) -> Value:
        """Return the value of a key; a hash is not to be changed."""
        item = self.items.get(key)
        if item is None:
            known = self._known(key)
            return None if known is None else known.value
        if item.ends_ms is not None and item.ends_ms < self.now_ms:
            self._end(key, item)
        return item.value

    def string(self, key: bytes) -> bytes | None:
        """Return a string, None when there is no such key. Raises RefusedError for a key of another type."""
        value = self.find(key)
        if isinstance(value, dict):
            raise RefusedError(WRONG_TYPE)
        return value

    def hash(self, key: bytes) -> Mapping[bytes, bytes] | None:
        """Return a hash, None when there is no such key. Raises RefusedError for a key of another type."""
        value = self.find(key)
        if isinstance(value, bytes):
            raise RefusedError(WRONG_TYPE)
        return value

    def ends_ms(self, key: bytes) -> int | None:
        """Return when a key that is there ends, None for never. Raises UnsureError where only Redis knows."""
        item = self.items.get(key)
        if item is None or item.keeps_life:
            raise UnsureError
        return item.ends_ms

    def put(self, key: bytes, value: bytes, *, ends_ms: int | None = None, keeps: bool = False) -> None:
        """Hold a string that owes nothing to what was there. `keeps`: it lives as long as what was there does.

        Raises NoRoomError.
        """
        was_there = self.find(key) is not None
        item = self._change(key, _size(key, value), is_absolute=True)
        item.value = value
        if not keeps:
            item.ends_ms, item.keeps_life = ends_ms, False
        elif not was_there and item.changes == 1:
            item.keeps_life = True  # nothing was known of the key, so nothing of its life

    def expect(self, values: Mapping[bytes, Value]) -> None:
        """Raise NoRoomError if these values do not fit, all together; nothing is taken."""
        grown = sum(
            _size(key, value) - (self.items[key].size_bytes if key in self.items else 0)
            for key, value in values.items()
        )
        if grown > 0:
            self.room.take(grown)
            self.room.take(-grown)

    def replace(self, key: bytes, value: bytes) -> None:
        """Hold a string made from the one that was there, or from none; it lives on as that did. Raises NoRoomError."""
        self.find(key)
        self._change(key, _size(key, value)).value = value

    def set_fields(self, key: bytes, fields: Mapping[bytes, bytes]) -> None:
        """Set fields of a hash, made if it is not there. Raises NoRoomError."""
        held = self.find(key)
        assert not isinstance(held, bytes)
        size = self._size(key, {} if held is None else held)
        for field, value in fields.items():
            before = held.get(field) if held is not None else None
            size += held_bytes(value) + (_field_bytes(field) if before is None else -held_bytes(before))
        item = self._change(key, size)
        if not isinstance(item.value, dict):
            item.value = {}
        item.value.update(fields)

    def drop_fields(self, key: bytes, fields: Mapping[bytes, None]) -> int:
        """Take fields out of a hash; return how many were there. The last one takes the key with it."""
        held = self.find(key)
        assert not isinstance(held, bytes)
        gone = [field for field in fields if held is not None and field in held]
        if not gone and self._is_certain(key):
            return 0
        size = self._size(key, held)
        if held is not None:
            size -= sum(_field_bytes(field) + held_bytes(held[field]) for field in gone)
        item = self._change(key, size)
        if isinstance(item.value, dict):
            for field in gone:
                del item.value[field]
            if not item.value:
                self._end(key, item)
        return len(gone)

    def remove(self, key: bytes) -> bool:
        """Hold that a key is not there; return whether it was. Raises NoRoomError."""
        was_there = self.find(key) is not None
        self._end(key, self._change(key, _size(key, None), is_absolute=True))
        return was_there

    def live_until(self, key: bytes, ends_ms: int | None) -> None:
        """Give a key that is there another end, None for none; one that has passed removes it. Raises NoRoomError."""
        item = self._change(key, self._size(key, self.find(key)))
        item.ends_ms, item.keeps_life = ends_ms, False
        if ends_ms is not None and ends_ms <= self.now_ms:
            self._end(key, item)

    def forget(self, key: bytes) -> None:
        """Hold a key no more."""
        item = self.items.pop(key)
        self.room.take(-item.size_bytes)

    def _change(self, key: bytes, size_bytes: int, *, is_absolute: bool = False) -> Item:
        """Return the item of a key for a change that makes it so large. Raises NoRoomError, and nothing is changed."""
        item = self.items.get(key)
        self.room.take(size_bytes - (0 if item is None else item.size_bytes))
        if item is None:
            item = self.items[key] = self._new(key)
            self._on_hold(key)
        item.size_bytes = size_bytes
        item.changes += 1
        item.version = self.version if self._has_version(key) else 0
        if is_absolute:
            item.standing, item.base = Standing.ABSOLUTE, None
        if item.standing is not Standing.DERIVED:
            item.since = item.version
        return item

    def _is_certain(self, key: bytes) -> bool:
        """Return whether Redis holds, or will hold, just what is found here."""
        item = self.items.get(key)
        return self._known(key) is not None if item is None else item.standing is not Standing.GUESSED

    def _new(self, key: bytes) -> Item:
        known = self._known(key)
        if known is None:
            return Item()
        value = dict(known.value) if isinstance(known.value, dict) else known.value
        return Item(
            value,
            keeps_life=value is not None,
            standing=Standing.DERIVED,
            base=None if isinstance(value, dict) else value,
            since=known.version,
            sure=known.sure,
        )

    def _end(self, key: bytes, item: Item) -> None:
        """Make an item say that its key is not there."""
        item.value, item.ends_ms, item.keeps_life = None, None, False
        size_bytes = _size(key, None)
        self.room.take(size_bytes - item.size_bytes)
        item.size_bytes = size_bytes

    def _size(self, key: bytes, value: Value | Mapping[bytes, bytes]) -> int:
        """Return what an item counts with a value; nothing is counted anew where it has that value now."""
        item = self.items.get(key)
        return item.size_bytes if item is not None and item.value is value else _size(key, value)


def _size(key: bytes, value: Value | Mapping[bytes, bytes]) -> int:
    """Return what an item counts."""
    size = held_bytes(key) + ITEM_BYTES
    if value is None:
        return size
    if isinstance(value, bytes):
        return size + held_bytes(value)
    return size + FIELD_BYTES + sum(_field_bytes(field) + held_bytes(held) for field, held in value.items())


def _field_bytes(field: bytes) -> int:
    return held_bytes(field) + FIELD_BYTES
