"""RESPITE VERSION, SETV, INVALIDATE, and what EXPLAIN says of a value: what must ask Redis before it can answer.

Owns their words and replies. Whether the user may is asked before (core.respite_commands).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from proxy.core.invalidation import Invalidated
from proxy.core.plain import StepSlot
from proxy.core.slots import Pending
from proxy.core.value_slots import DependentSlot, What
from proxy.errors import DamagedValueError
from proxy.values.dependencies import Dependents
from proxy.values.envelope import Codec, read_header
from proxy.values.scripts import facts, set_newer
from proxy.wire.encode import NIL, bulk, count, error, integer
from proxy.wire.reply import elements, text

if TYPE_CHECKING:
    from proxy.core.downstream import Downstream, Services
    from proxy.core.values import Values

VERSION_BITS: Final = 16  # a version is milliseconds since 1970, and so many bits of their fraction
_MS_MAX: Final = 1 << 48
VERSION_MAX: Final = (1 << 63) - 1  # a reply is a signed integer
NOT_VERSIONED: Final = "ERR respite: the class of the key has no version = true"
BAD_VERSION: Final = (
    "ERR respite: a version is a positive integer: milliseconds since 1970, or what RESPITE VERSION says"
)
BAD_TTL: Final = "ERR invalid expire time in 'respite' command"
SYNTAX: Final = "ERR syntax error"


def as_version(number: int) -> int:
    """Return the version that a number names: small ones are milliseconds since 1970."""
    return number << VERSION_BITS if number < _MS_MAX else number


def version(client: Downstream, services: Services, key: bytes) -> Pending | bytes:
    """Answer RESPITE VERSION: the version of a key's value, nil where it has none."""
    nil = NIL[client.session.protocol]

    def then(reply: bytes) -> bytes:
        if reply[:1] != b"*":
            return reply
        known = value_facts(reply)
        return integer(known["version"]) if known.get("version") else nil

    return _ask(client, _facts(services, key), then)


def set_versioned(client: Downstream, services: Services, words: Sequence[bytes]) -> Pending | bytes:
    """Answer RESPITE SETV key version value [EX s | PX ms]: 1 where it was written, 0 over a newer value."""
    values = services.values
    key, wanted, value, *rest = words
    number = count(wanted)
    rules = values.rules.find(key)
    if rules is None or not rules.version:
        return error(NOT_VERSIONED)
    if not number or as_version(number) > VERSION_MAX:
        return error(BAD_VERSION)
    ttl_ms: int | None = None
    if rest:
        unit = rest[0].upper()
        if len(rest) != 2 or unit not in (b"EX", b"PX"):
            return error(SYNTAX)
        asked = count(rest[1])
        if not asked:
            return error(BAD_TTL)
        ttl_ms = asked * 1000 if unit == b"EX" else asked
    engine = values.engine
    if rules.has_ttl:
        ttl_ms = values.lifetimes.decide_for(rules, key, ttl_ms, engine.now).ttl_ms or ttl_ms
    stored = values.sealer.seal_as(rules, value, as_version(number), engine.now)
    link = client.route()
    if link is None:
        return client.why_not()
    pending = Pending()
    keys = [bulk(key)]
    engine.begin_write(keys)
    what = values.dependents_of(key)
    slot = PendingWrite(pending, values, keys, {} if what is None else {client.session.db: what})
    raw, notices = set_newer(key, stored, ttl_ms), values.notices
    notice = None
    if notices is not None:
        notice = notices.of_keys(client, [key], b"RESPITE|SETV", version=as_version(number))
    if notices is None or notice is None:
        link.submit(raw, slot)
    else:
        notices.submit(client, link, notice, (raw, slot))
    return pending


def invalidate(client: Downstream, services: Services, what: bytes, names: Sequence[bytes]) -> Pending:
    """Answer RESPITE INVALIDATE KEY k [k ..] | MATCH glob | TAG tag, with what was dropped, as JSON says it."""
    pending = Pending()
    dropped = Dependents(*(tuple(names) if what == word else () for word in (b"KEY", b"MATCH", b"TAG")))

    def then(result: Invalidated) -> None:
        pending.settle(error(result.error) if result.error else integer(result.dropped))

    services.invalidate(dropped, client.session.db, then)
    return pending


def ask_value(client: Downstream, services: Services, key: bytes, then: Callable[[dict[str, Any]], None]) -> None:
    """Find out what Redis holds of a key, in figures; {"error"} where it cannot be asked."""

    def answered(reply: bytes) -> None:
        then(value_facts(reply))

    link = client.route()
    if link is None:
        answered(client.why_not())
    else:
        link.submit(_facts(services, key), StepSlot(1, lambda replies: answered(replies[0]), answered))


def value_facts(reply: bytes) -> dict[str, Any]:
    """Read the reply to `scripts.facts`: what a key holds, in figures; {"error"} when Redis gave one."""
    if reply[:1] != b"*":
        return {"error": text(reply).decode("utf-8", "replace")}
    kind, *rest = elements(reply)
    found: dict[str, Any] = {"type": text(kind).decode()}
    if not rest:
        return found
    head, stored, pttl = bytes.fromhex(text(rest[0]).decode()), int(text(rest[1])), int(text(rest[2]))
    found |= {"stored_bytes": stored, "raw_bytes": stored, "ttl_ms": pttl if pttl >= 0 else None}
    try:
        header = read_header(head)
    except DamagedValueError:
        return found
    return found | {
        "version": header.version,
        "codec": Codec(header.codec).name.lower(),
        "dictionary": header.dictionary,
        "raw_bytes": header.raw_length,
    }


class PendingWrite(DependentSlot):
    """The reply of a write of ours: handed on once it, and what depends on it, is done."""

    __slots__ = ("_pending",)

    def __init__(self, pending: Pending, values: Values, keys: list[bytes], what: What) -> None:
        super().__init__(None, values.engine, keys, values, what)
        self._pending = pending

    def answer(self, reply: bytes) -> None:
        """Hand it on."""
        super().answer(reply)
        self._pending.settle(reply)


def _facts(services: Services, key: bytes) -> bytes:
    """Ask as somebody who only reads, where the server knows such scripts: others would need the right to write."""
    return facts(key, read_only=services.table.find([b"EVAL_RO"]).name == b"EVAL_RO")


def _ask(client: Downstream, raw: bytes, then: Callable[[bytes], bytes]) -> Pending | bytes:
    link = client.route()
    if link is None:
        return client.why_not()
    pending = Pending()
    link.submit(raw, StepSlot(1, lambda replies: pending.settle(then(replies[0])), pending.settle))
    return pending
