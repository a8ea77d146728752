"""Whose password is right: what is known at once, and what must be tried."""

from __future__ import annotations

import attrs

from proxy.config.passwords import PasswordHash
from proxy.config.users import ProxyUser
from proxy.core.rights.logins import Logins

QUICK = PasswordHash(10, 8, 1, bytes(16), bytes(32))


def _hash(password: bytes, salt: bytes = bytes(16)) -> PasswordHash:
    return attrs.evolve(QUICK, salt=salt, digest=attrs.evolve(QUICK, salt=salt)._of(password))


def _logins(*users: ProxyUser) -> Logins:
    made = Logins()
    made.take(users)
    return made


PLAIN = ProxyUser("plain", "pw")
HASHED = ProxyUser("hashed", password_hash=_hash(b"pw"))


def test_plain_password_is_known_at_once() -> None:
    """And nothing that looks like it: neither another user's nor a name and a password that read the same together."""
    logins = _logins(PLAIN, ProxyUser("a", "bc"))

    assert logins.knows(b"plain", b"pw")
    assert not any(logins.knows(*pair) for pair in ((b"plain", b"pW"), (b"a", b"pw"), (b"ab", b"c"), (b"", b"abc")))


def test_hashed_password_is_known_once_it_was_proved() -> None:
    """A pool of connections is one try."""
    logins = _logins(PLAIN, HASHED)
    assert not logins.knows(b"hashed", b"pw")
    against = logins.hash_to_try(b"hashed")
    assert against is not None
    assert against.matches(b"pw")

    assert logins.prove(b"hashed", b"pw", against)

    assert logins.knows(b"hashed", b"pw")
    assert not logins.knows(b"hashed", b"other")


def test_nobody_and_a_plain_user_are_tried_as_long_as_anybody() -> None:
    """Against a hash of nobody with the same parameters: how long a refusal takes tells nothing."""
    logins = _logins(PLAIN, HASHED)

    tried = [logins.hash_to_try(name) for name in (b"nobody", b"plain")]

    for one in tried:
        assert one is not None
        assert (one.log_n, one.block, one.parallel) == (QUICK.log_n, QUICK.block, QUICK.parallel)
        assert not one.matches(b"pw")
    assert _logins(PLAIN).hash_to_try(b"nobody") is None


def test_new_password_ends_what_was_proved_of_the_old_one() -> None:
    """Also where the try was under way while the configuration changed; users that stay the same stay proved."""
    other = ProxyUser("other", password_hash=_hash(b"x"))
    logins = _logins(HASHED, other)
    old = logins.hash_to_try(b"hashed")
    assert old is not None
    assert logins.prove(b"hashed", b"pw", old)
    assert logins.prove(b"other", b"x", _hash(b"x"))

    logins.take((ProxyUser("hashed", password_hash=_hash(b"new", b"s" * 16)), other))

    assert not logins.knows(b"hashed", b"pw")
    assert not logins.prove(b"hashed", b"pw", old)
    assert logins.knows(b"other", b"x")


def test_marks_of_two_processes_have_nothing_in_common() -> None:
    """What stands for a password is worth nothing elsewhere."""
    assert Logins().mark(b"a", b"b") != Logins().mark(b"a", b"b")
