"""Commands on how long keys live, as Redis 7 has them, on a store; what each takes and raises is said in `strings`."""

from __future__ import annotations

from typing import Final

from proxy.core.outage.offline.replies import ONE, ZERO
from proxy.core.outage.offline.store import Store
from proxy.core.outage.offline.words import expire_conditions, expire_moment_ms
from proxy.wire.encode import integer as integer_reply

NO_KEY: Final = b":-2\r\n"
NO_END: Final = b":-1\r\n"


def expire(store: Store, args: list[bytes], protocol: int) -> bytes:
    """EXPIRE, PEXPIRE, EXPIREAT and PEXPIREAT, with NX, XX, GT and LT."""
    name, key = args[0].upper(), args[1]
    conditions = expire_conditions(args[3:])
    scale = 1 if name.startswith(b"P") else 1000
    ends_ms = expire_moment_ms(name, args[2], scale, 0 if name.endswith(b"AT") else store.now_ms)
    if store.find(key) is None:
        return ZERO
    if conditions:
        now_ends_ms = store.ends_ms(key)
        if (
            (b"NX" in conditions and now_ends_ms is not None)
            or (b"XX" in conditions and now_ends_ms is None)
            or (b"GT" in conditions and (now_ends_ms is None or ends_ms <= now_ends_ms))
            or (b"LT" in conditions and now_ends_ms is not None and ends_ms >= now_ends_ms)
        ):
            return ZERO
    store.live_until(key, ends_ms)
    return ONE


def persist(store: Store, args: list[bytes], protocol: int) -> bytes:
    """PERSIST."""
    if store.find(args[1]) is None or store.ends_ms(args[1]) is None:
        return ZERO
    store.live_until(args[1], None)
    return ONE


def ttl(store: Store, args: list[bytes], protocol: int) -> bytes:
    """TTL and PTTL."""
    ends_ms = _ends_ms(store, args[1])
    if isinstance(ends_ms, bytes):
        return ends_ms
    left_ms = max(0, ends_ms - store.now_ms)
    return integer_reply(left_ms if args[0].upper() == b"PTTL" else (left_ms + 500) // 1000)


def expiretime(store: Store, args: list[bytes], protocol: int) -> bytes:
    """EXPIRETIME and PEXPIRETIME."""
    ends_ms = _ends_ms(store, args[1])
    if isinstance(ends_ms, bytes):
        return ends_ms
    return integer_reply(ends_ms if args[0].upper() == b"PEXPIRETIME" else (ends_ms + 500) // 1000)


def _ends_ms(store: Store, key: bytes) -> int | bytes:
    """Return when a key ends, or the reply for one that does not, or is not there."""
    if store.find(key) is None:
        return NO_KEY
    ends_ms = store.ends_ms(key)
    return NO_END if ends_ms is None else ends_ms
