"""Passwords of `listen.users` as the file may keep them: a salted hash that is slow to try.

    $scrypt$ln=14,r=8,p=5$<salt>$<hash>      base64 without padding, the parameters in the text

Only computes; when, where and how often a password is tried is `core.rights.logins`' and `net.door.logins`'.
Source: RFC 7914 (scrypt), the PHC string format.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import Final

import attrs

# 16 MiB and about a fifth of a second a try: what OWASP's password storage cheat sheet calls equal to 128 MiB at p=1,
# and little enough to be done while clients are served.
LOG_N: Final = 14
BLOCK: Final = 8
PARALLEL: Final = 5
SALT_BYTES: Final = 16
HASH_BYTES: Final = 32
_FORM: Final = re.compile(r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)")
# A hash of a file may cost what it says: more would be a way to stall the proxy by a slip of the pen.
_LOG_N_RANGE: Final = range(10, 21)
_MEMORY_MAX: Final = 256 * 1024 * 1024
_WORK_MAX: Final = 16  # times what a try of ours costs


@attrs.frozen
class PasswordHash:
    """What is kept of a password. `memory_bytes` are taken, for a moment, by each try."""

    log_n: int
    block: int
    parallel: int
    salt: bytes
    digest: bytes = attrs.field(repr=False)

    @property
    def memory_bytes(self) -> int:
        """Return the memory that a try takes."""
        return 128 * self.block * ((1 << self.log_n) + self.parallel + 2)

    def matches(self, password: bytes) -> bool:
        """Try a password, in a time that does not tell how close it is. Slow on purpose: never in the reactor."""
        return hmac.compare_digest(self._of(password), self.digest)

    def _of(self, password: bytes) -> bytes:
        return hashlib.scrypt(
            password,
            salt=self.salt,
            n=1 << self.log_n,
            r=self.block,
            p=self.parallel,
            maxmem=2 * self.memory_bytes,
            dklen=len(self.digest),
        )

    @classmethod
    def make(cls, password: bytes, salt: bytes) -> PasswordHash:
        """Hash a password with the present parameters; the salt is random, and the caller's."""
        empty = cls(LOG_N, BLOCK, PARALLEL, salt, bytes(HASH_BYTES))
        return attrs.evolve(empty, digest=empty._of(password))

    def __str__(self) -> str:
        """Return the text that stands in the file."""
        return f"$scrypt$ln={self.log_n},r={self.block},p={self.parallel}${_pack(self.salt)}${_pack(self.digest)}"

    @classmethod
    def parse(cls, text: str) -> PasswordHash:
        """Read the text of a file. Raises ValueError; its text never holds the hash."""
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError("a password_hash is what `respite hash-password` prints")
        log_n, block, parallel = (int(found[number]) for number in (1, 2, 3))
        try:
            parsed = cls(log_n, block, parallel, _unpack(found[4]), _unpack(found[5]))
        except binascii.Error:
            raise ValueError("a password_hash is cut short") from None
        work = (block * parallel << log_n) / (BLOCK * PARALLEL << LOG_N)
        is_possible = block and parallel and log_n < 16 * block  # RFC 7914, section 2: N is less than 2^(128 * r / 8)
        if not is_possible or log_n not in _LOG_N_RANGE or work > _WORK_MAX or parsed.memory_bytes > _MEMORY_MAX:
            raise ValueError("a password_hash asks for too little work, or for too much")
        if len(parsed.salt) < SALT_BYTES or len(parsed.digest) < HASH_BYTES:
            raise ValueError("a password_hash is cut short")
        return parsed


def _pack(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


def _unpack(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
