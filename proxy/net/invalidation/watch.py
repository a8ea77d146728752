"""What a server is asked again and again on the invalidation link: who may read what, and how it bears the tracking.

    ACL LIST        changed --> L1 is dropped; sessions of users that are gone are closed; links of the default user,
                    if it was that, are opened anew: whoever has not logged in shares them
                    refused --> every few seconds L1 is dropped, but for the user of upstream.url
    INFO keyspace   fields that expire by themselves --> no replies about hashes are kept
    INFO stats      the tracking table fills --> core.governor --> what is tracked is narrowed

Owns what the answers mean; when it is time, and the link, are `control`'s.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import hiredis

from proxy.core.governor import EVERY_S as GOVERN_EVERY_S
from proxy.core.governor import Governor
from proxy.core.outage.stand_in import BRIEF
from proxy.core.session import Identity
from proxy.log import get_logger
from proxy.wire.encode import command

if TYPE_CHECKING:
    from proxy.core.engine import Engine
    from proxy.core.tracking import Tracking
    from proxy.net.invalidation.control import ControlLink

ACL_LIST: Final = command("ACL", "LIST")
INFO_KEYSPACE: Final = command("INFO", "keyspace")
INFO_STATS: Final = command("INFO", "stats")
CONFIG_MAX_KEYS: Final = command("CONFIG", "GET", "tracking-table-max-keys")
DISTRUST_EVERY_S: Final = 5.0  # how long a right that was taken may still be served where ACLs cannot be read
_VOLATILE_FIELDS: Final = re.compile(rb"(?:keys_with_volatile_items|subexpiry)=[1-9]")
log = get_logger("control")


class Watch:
    """Watch one server after another, through the link that leads to it."""

    def __init__(self, control: ControlLink, engine: Engine, tracking: Tracking) -> None:
        self.governor = Governor()
        self.has_field_expiry = False  # the server lets fields of a hash expire
        self.on_users: Callable[[set[bytes]], None] = lambda _: None
        self.on_default: Callable[[], None] = lambda: None  # what Redis lets those do who do not log in has changed
        self.acl_digest = b""  # of what was seen last, on whatever link
        self._control = control
        self._engine = engine
        self._tracking = tracking
        self._is_first = True  # nothing has been seen on the present link
        self._governed_at = 0.0
        self._distrusted_at = 0.0
        self._is_distrusting = False
        self._default: list[bytes] = []  # the rules of the default user, on whatever link they were seen

    def begin(self) -> None:
        """Begin with a link that has just come up."""
        self._is_first = True
        if self.has_field_expiry:
            self._engine.let_fields_expire(0.0)  # until the server has said that no field does

    def begin_governing(self) -> None:
        """Ask how large the table of what is tracked may become."""
        if self._tracking.redirects:
            self._control.ask(CONFIG_MAX_KEYS, self._limit)
            self._governed_at = self._engine.now

    def turn(self) -> None:
        """Ask what is due."""
        self.check_acl()
        if self.has_field_expiry:
            self._control.ask(INFO_KEYSPACE, self._fields)

    def turn_governor(self) -> None:
        """Ask how full the table is, if that is due."""
        now = self._engine.now
        if self._tracking.redirects and now - self._governed_at >= GOVERN_EVERY_S:
            self._governed_at = now
            self._control.ask(INFO_STATS, self._pressure)

    def check_acl(self) -> None:
        """Look at the ACLs now."""
        self._control.ask(ACL_LIST, self._acls)

    def _limit(self, reply: Any) -> None:
        self.governor.limit(None if isinstance(reply, hiredis.ReplyError) else reply)

    def _pressure(self, reply: Any) -> None:
        if isinstance(reply, bytes) and self.governor.judge(reply) == "narrow" and not self._tracking.narrowed:
            self._tracking.narrowed = True
            self._engine.l1.admit = "second_read"
            self._control.lose("what is tracked is narrowed")

    def _fields(self, reply: Any) -> None:
        if is_brief(reply):
            return  # no field is given an end before Redis answers again
        # Valkey's word, and Redis'. A user who may not ask gets an error: then nothing is known.
        if isinstance(reply, hiredis.ReplyError) or _VOLATILE_FIELDS.search(reply):
            self._engine.let_fields_expire(0.0)
        else:
            self._engine.keep_fields()

    def _acls(self, reply: Any) -> None:
        if is_brief(reply):
            return  # nor are ACLs changed by then
        if isinstance(reply, hiredis.ReplyError):
            if "unknown command" not in str(reply).lower():  # a server before 6 has no users
                self._distrust(str(reply))
            return
        self._is_distrusting = False
        digest = hashlib.sha256(repr(reply).encode()).digest()
        if digest != self.acl_digest:
            if self.acl_digest:
                log.info("ACLs changed, L1 is dropped")
            # At the first look, too: what was read before it may be what was taken just now.
            self._engine.flush()
            if not self._is_first:  # another link may lead to another server, which lets in whom it knows
                self.on_users({line.split()[1] for line in reply})
        self.acl_digest, self._is_first = digest, False
        self._engine.selective = frozenset(_selective(reply))
        default = [line for line in reply if _is_default(line)] if isinstance(reply, list) else []
        if self._default and default != self._default:
            self.on_default()
        self._default = default

    def _distrust(self, why: str) -> None:
        """Keep nothing for long of users whose rights cannot be watched; those of our own are not changed under us."""
        now = self._engine.now
        if not self._is_distrusting:
            log.warning(
                "ACLs cannot be watched: L1 keeps little for users who log in", why=why, every_s=DISTRUST_EVERY_S
            )
        if not self._is_distrusting or now - self._distrusted_at >= DISTRUST_EVERY_S:
            self._is_distrusting, self._distrusted_at = True, now
            self._engine.forget_users(self._control.own_user)


def _selective(lines: object) -> Iterator[bytes]:
    """Yield the users that have selectors: who may GET a key may then not MGET it, nor it together with another."""
    for line in lines if isinstance(lines, list) else ():
        words = line.split() if isinstance(line, bytes) else []
        if any(word.startswith(b"(") for word in words[2:]):
            yield words[1]
            if _is_default(line):
                yield Identity().user


def _is_default(line: object) -> bool:
    return isinstance(line, bytes) and line.split()[1:2] == [b"default"]


def is_brief(reply: object) -> bool:
    """Return whether Redis only says that it cannot answer now: it loads, or runs a script."""
    return isinstance(reply, hiredis.ReplyError) and f"-{reply}".encode().startswith(BRIEF)
