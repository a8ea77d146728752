"""What a server is asked again and again on the invalidation link: who may read what, and how it bears the tracking.

    ACL LIST        changed --> L1 is dropped; sessions of users that are gone are closed
    INFO keyspace   fields that expire by themselves --> no replies about hashes are kept
    INFO stats      the tracking table fills --> core.governor --> what is tracked is narrowed

Owns what the answers mean; when it is time, and the link, are `net.control`'s.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import hiredis

from proxy.core.governor import EVERY_S as GOVERN_EVERY_S
from proxy.core.governor import Governor
from proxy.log import get_logger
from proxy.wire.encode import command

if TYPE_CHECKING:
    from proxy.core.engine import Engine
    from proxy.core.tracking import Tracking
    from proxy.net.control import ControlLink

ACL_LIST: Final = command("ACL", "LIST")
INFO_KEYSPACE: Final = command("INFO", "keyspace")
INFO_STATS: Final = command("INFO", "stats")
CONFIG_MAX_KEYS: Final = command("CONFIG", "GET", "tracking-table-max-keys")
_VOLATILE_FIELDS: Final = re.compile(rb"(?:keys_with_volatile_items|subexpiry)=[1-9]")
log = get_logger("control")


class Watch:
    """Watch one server after another, through the link that leads to it."""

    def __init__(self, control: ControlLink, engine: Engine, tracking: Tracking) -> None:
        self.governor = Governor()
        self.has_field_expiry = False  # the server lets fields of a hash expire
        self.on_users: Callable[[set[bytes]], None] = lambda _: None
        self.acl_digest = b""
        self._control = control
        self._engine = engine
        self._tracking = tracking
        self._governed_at = 0.0

    def begin(self) -> None:
        """Begin with a link that has just come up."""
        self.acl_digest = b""
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
        # Valkey's word, and Redis'. A user who may not ask gets an error: then nothing is known.
        if isinstance(reply, hiredis.ReplyError) or _VOLATILE_FIELDS.search(reply):
            self._engine.let_fields_expire(0.0)
        else:
            self._engine.keep_fields()

    def _acls(self, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            return
        digest = hashlib.sha256(repr(reply).encode()).digest()
        if self.acl_digest and digest != self.acl_digest:
            log.info("ACLs changed, L1 is dropped")
            self._engine.flush()
            self.on_users({line.split()[1] for line in reply})
        self.acl_digest = digest
