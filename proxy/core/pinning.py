"""Why a session holds a connection of its own, and when that ends.

Owns the state that Redis keeps per connection and that therefore cannot live on a shared link. It is fed with what is
sent and what comes back; `is_free` says when the link can be given back, `is_clean` whether it can be used again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import attrs

from proxy.wire.reply import elements, text

if TYPE_CHECKING:
    from proxy.core.notice_slots import Notice
    from proxy.values.dependencies import Dependents
    from proxy.wire.request import Raw

ACKS: Final = frozenset([b"subscribe", b"psubscribe", b"ssubscribe", b"unsubscribe", b"punsubscribe", b"sunsubscribe"])
KEPT_MAX_BYTES: Final = 64 * 1024 * 1024
"""Of what a client's MULTI has queued; more is not queued anew."""

MESSAGES: Final = frozenset([b"message", b"pmessage", b"smessage", b"invalidate"])


@attrs.define
class Pinning:
    """The state of one pinned session."""

    multi: bool = False
    watching: bool = False
    tracking: bool = False  # CLIENT TRACKING by the app itself
    sticky: bool = False  # until RESET or the end: READONLY, SCRIPT DEBUG, unknown stateful commands
    stream: bool = False  # MONITOR, PSYNC: nothing is matched any more
    once: bool = False  # the commands after this one wait for its reply
    used: bool = False  # something was done that the next user of the link must not inherit
    subscriptions: dict[bytes, set[bytes]] = attrs.field(factory=dict)  # "", "p", "s" -> names
    asked_names: int = 0  # of SUBSCRIBEs that are not acknowledged yet, are queued, or whose replies nobody matches
    queued_keys: list[bytes] = attrs.field(factory=list)  # written by what MULTI has queued, as bulk strings
    queued_all: bool = False  # MULTI has queued a write whose keys are unknown
    queued_script: bool = False  # MULTI has queued a script, which may write what it does not declare
    queued_unmatched: bool = False  # MULTI has queued SUBSCRIBE, AUTH or HELLO: after EXEC nothing can be matched
    queued: int = 0  # commands MULTI has queued
    queued_commands: set[bytes] = attrs.field(factory=set)  # .. and which, each once
    rights: object = None  # what its client was allowed to run when MULTI was sent
    # With the database they are looked at in: keys whose bytes the queue looks at, which are unwrapped before EXEC ..
    queued_bare: list[tuple[int, bytes]] = attrs.field(factory=list)
    queued_fenced: list[tuple[int, bytes]] = attrs.field(factory=list)  # .. and those that a fence may cover
    queued_whole: dict[int, list[bytes]] = attrs.field(factory=dict)  # place -> the keys whose values are its reply
    # (database, key) -> (stored, value) queued
    queued_sealed: dict[tuple[int, bytes], list[tuple[bytes, bytes]]] = attrs.field(factory=dict)
    queued_ours: list[int] = attrs.field(factory=list)  # places of what we have queued: not the client's to know
    queued_dependents: dict[int, Dependents] = attrs.field(factory=dict)  # by database: what it drops besides its keys
    queued_notices: list[tuple[int, Notice]] = attrs.field(factory=list)  # place, and how it is announced
    notice_places: list[tuple[int, int, Notice]] = attrs.field(factory=list)  # place of ours, of what it announces
    ours_refused: bytes = b""  # the error that kept one of ours from being queued
    queued_raws: list[bytes] = attrs.field(factory=list)  # what MULTI was given, as far as it is kept
    queued_bytes: int = 0  # .. and how much that would be
    preparing: bool = False  # EXEC waits for what must happen on other links before it
    queued_changes: list[tuple[int, str, object]] = attrs.field(factory=list)  # place, attribute of the session, value

    @property
    def subscribed(self) -> bool:
        """Return whether any subscription stands."""
        return any(self.subscriptions.values())

    @property
    def is_free(self) -> bool:
        """Return whether nothing holds the session to its link, once no reply is owed."""
        return not (self.multi or self.watching or self.tracking or self.sticky or self.stream or self.subscribed)

    @property
    def outlives_drain(self) -> bool:
        """Return whether what holds the link has no end of its own: nobody waits for a subscriber to finish."""
        return self.stream or self.sticky or self.tracking or (self.subscribed and not self.multi)

    @property
    def may_queue_anew(self) -> bool:
        """Return whether what MULTI has queued can be discarded and queued again, and nobody knows."""
        return len(self.queued_raws) == self.queued and not (
            self.watching or self.queued_changes or self.queued_unmatched
        )

    def queues_in(self, db: int) -> int:
        """Return the database in which EXEC will run what is queued next; `db` is the session's."""
        return next((to for _, what, to in reversed(self.queued_changes) if what == "db" and isinstance(to, int)), db)

    def keep(self, raw: Raw) -> None:
        """Keep what MULTI is given to queue."""
        self.queued_bytes += len(raw)
        if self.queued_bytes <= KEPT_MAX_BYTES:
            self.queued_raws.append(bytes(raw))
        else:
            self.queued_raws.clear()

    def end_multi(self) -> None:
        """Forget the transaction: EXEC or DISCARD has been answered, and neither leaves a WATCH."""
        self.multi = self.watching = self.queued_all = self.queued_script = self.queued_unmatched = False
        self.queued = self.queued_bytes = 0
        self.queued_raws = []
        self.queued_commands = set()
        self.queued_keys = []
        self.queued_changes = []
        self.queued_bare = []
        self.queued_fenced = []
        self.queued_whole = {}
        self.queued_sealed = {}
        self.queued_ours = []
        self.queued_dependents = {}
        self.queued_notices = []
        self.notice_places = []
        self.ours_refused = b""

    def acknowledged(self, frame: bytes) -> bytes:
        """Take a (un)subscribe acknowledgement; return its kind, b"" when the frame is none."""
        kind = push_kind(frame)
        if kind not in ACKS:
            return b""
        parts = elements(frame)
        family = kind.removesuffix(b"unsubscribe") if kind.endswith(b"unsubscribe") else kind.removesuffix(b"subscribe")
        names = self.subscriptions.setdefault(family, set())
        if kind.endswith(b"unsubscribe"):
            names.discard(text(parts[1]))
        else:
            names.add(text(parts[1]))
        return kind

    def acks_expected(self, words: Sequence[bytes]) -> int:
        """Return how many acknowledgements a (un)subscribe command gets. Source: Redis documentation, Pub/Sub."""
        if len(words) > 1:
            return len(words) - 1
        name = bytes(words[0]).lower()
        if not name.endswith(b"unsubscribe"):
            return 1  # an error
        return max(1, len(self.subscriptions.get(name.removesuffix(b"unsubscribe"), ())))


def push_kind(frame: bytes) -> bytes:
    """Return the first word of a push (or RESP2 message), b"" when it does not start with a bulk string."""
    head = frame.find(b"\n") + 1
    if frame[head : head + 1] != b"$":
        return b""
    start = frame.find(b"\n", head) + 1
    return frame[start : frame.find(b"\r", start)]
