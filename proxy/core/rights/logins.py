"""Whose password is right: what can be said at once, and what must be tried, slowly, elsewhere.

    known?  name and password, under a key of this process --> in at once: plain passwords, and hashed ones that were
            |                                                  right before (a pool of 50 connections is one try)
            no --> try the hash of the user, or a hash of nobody: whether there is such a user takes no other time

Owns what is known; the trying, its threads and delays, is `net.door.logins`'.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Final

from cachetools import LRUCache

from proxy.config.passwords import HASH_BYTES, PasswordHash
from proxy.config.users import ProxyUser

KNOWN_MAX: Final = 4096
WRONGPASS: Final = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"


class Logins:
    """The users of `listen.users` and what they have proved. One a worker."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._users: tuple[ProxyUser, ...] = ()
        self._hashes: dict[bytes, PasswordHash] = {}
        self._plain: frozenset[bytes] = frozenset()
        self._proved: LRUCache[bytes, PasswordHash] = LRUCache(KNOWN_MAX)
        self._nobody: PasswordHash | None = None  # tried for those whom nobody knows, where others have hashes

    def take(self, users: Sequence[ProxyUser]) -> None:
        """Take the users of the configuration. What was proved of those whose hash is the same stays proved."""
        if tuple(users) == self._users:
            return
        self._users = tuple(users)
        self._hashes = {user.name.encode(): user.password_hash for user in users if user.password_hash is not None}
        self._plain = frozenset(
            self.mark(user.name.encode(), user.password.encode()) for user in users if user.password_hash is None
        )
        self._nobody = None
        if self._hashes:
            like = max(self._hashes.values(), key=lambda one: one.memory_bytes * one.parallel)
            salt, digest = secrets.token_bytes(len(like.salt)), secrets.token_bytes(HASH_BYTES)
            self._nobody = PasswordHash(like.log_n, like.block, like.parallel, salt, digest)

    def mark(self, name: bytes, password: bytes) -> bytes:
        """Return what stands for a name and a password in this process: looking it up tells nobody anything."""
        return hashlib.blake2b(b"%d %b%b" % (len(name), name, password), key=self._key, digest_size=32).digest()

    def knows(self, name: bytes, password: bytes) -> bool:
        """Return whether the password is known to be right."""
        mark = self.mark(name, password)
        if mark in self._plain:
            return True
        proved = self._proved.get(mark)
        return proved is not None and self._hashes.get(name) == proved

    def hash_to_try(self, name: bytes) -> PasswordHash | None:
        """Return the hash a password that is not known is to be tried against; None where nobody has one."""
        return self._hashes.get(name, self._nobody)

    def prove(self, name: bytes, password: bytes, against: PasswordHash) -> bool:
        """Note that a password matched a hash; return whether that is the user's still."""
        if self._hashes.get(name) != against:
            return False
        self._proved[self.mark(name, password)] = against
        return True
