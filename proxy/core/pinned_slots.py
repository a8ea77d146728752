"""Replies on pinned links that change what is known of a session, or that others must hear of first.

Owns what follows the reply of a script, of MULTI and of EXEC, before the client has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.core.downstream import Downstream, PinnedConnection
from proxy.core.engine import Engine
from proxy.core.notices import Notices
from proxy.core.pinning import Pinning
from proxy.core.slots import CallSlot, Failure, Slot
from proxy.core.value_commands import ValueCommands
from proxy.core.value_slots import DependentSlot, What
from proxy.core.values import Values
from proxy.wire.encode import OK, array, command
from proxy.wire.reply import elements

PING: Final = command("PING")
Fence = Callable[[Callable[[], None]], None]  # core.downstream.Services.fence


class ScriptSlot(DependentSlot):
    """The reply of a script: held until the pushes of the keys that it did not declare have been applied."""

    __slots__ = ("_fence",)
    is_undone = False  # a script may write before it fails

    def __init__(
        self, client: Downstream, engine: Engine, keys: list[bytes], fence: Fence, *, values: Values | None, what: What
    ) -> None:
        super().__init__(client, engine, keys, values, what)
        self._fence = fence

    def fill(self, reply: bytes) -> None:
        """End the write, wait for the fence, then answer."""
        self._fence(lambda: super(ScriptSlot, self).fill(reply))


class MultiSlot(Slot):
    """The reply of MULTI. Redis runs what was sent behind one that it refuses as it comes, and so nothing is queued."""

    __slots__ = ("_client", "_link", "_values")
    needs_whole = True

    def __init__(self, client: Downstream, link: PinnedConnection, values: ValueCommands | None) -> None:
        super().__init__(client)
        self._client = client
        self._link = link
        self._values = values

    def land(self, raw: bytes) -> None:
        """Look at it, then answer."""
        if (raw if self.parts is None else self.parts.chunks[0])[:1] in b"-!":
            self._never_began()
        super().land(raw)

    def _never_began(self) -> None:
        """Do, once what was sent behind it has run, what EXEC would have brought about."""
        link, values, state, session = self._link, self._values, self._link.state, self._client.session
        dependents, state.queued_dependents = state.queued_dependents, {}
        changes, state.queued_changes = state.queued_changes, []
        state.used = True
        if not (state.once or state.preparing):  # else EXEC is on its way, and ends it
            state.end_multi()
            session.multi = -1

        def ran(_: bytes) -> bytes:
            for _at, attribute, value in changes:
                setattr(session, attribute, value)
            link.move(session)
            if dependents and values is not None:
                values.drop(dependents, lambda _error: None)
            return b""

        if dependents or changes:
            link.submit(PING, CallSlot(None, ran))


class ExecSlot(Slot):
    """The reply of EXEC: what was queued has been applied, or nothing of it."""

    __slots__ = ("_after", "_client", "_engine", "_fence", "_noticed", "_state", "_values")
    is_write = True
    needs_whole = True

    def __init__(
        self,
        client: Downstream,
        engine: Engine,
        state: Pinning,
        fence: Fence,
        after: Callable[[], None] | None,
        *,
        values: ValueCommands | None,
        noticed: tuple[Notices, PinnedConnection] | None,
    ) -> None:
        """`noticed`: who announces what was queued, and on which link; `after`: what follows once it is applied."""
        super().__init__(client)
        self._after = after
        self._client = client
        self._noticed = noticed
        self._engine = engine
        self._state = state
        self._fence = fence
        self._values = values

    def may_stream(self, size: int) -> bool:
        """Stream unless the reply must be read for what it changed in the session, or must wait for what it drops."""
        state = self._state
        return not (
            self._after is not None
            or state.notice_places
            or state.queued_changes
            or state.queued_dependents
            or state.queued_whole
            or state.queued_ours
            or state.queued_unmatched
        )

    def fill(self, reply: bytes) -> None:
        """End the writes that were queued, then answer."""
        state = self._state
        if self._noticed is not None:
            notices, link = self._noticed
            if (
                state.ours_refused
                and reply.startswith(b"-EXECABORT")
                and notices.exec_bare(self._client, link, state, self)
            ):
                return
            notices.settle_exec(self._client, link, state, reply)
        self._engine.end_write(state.queued_keys)
        if state.queued_all:
            self._engine.end_write_all()
        if self._after is not None and reply[:1] == b"*" and reply[:2] != b"*-":
            self._after()
        if state.queued_changes and reply[:1] == b"*" and reply[:3] != b"*-1":
            replies = elements(reply)
            for at, attribute, value in state.queued_changes:
                if replies[at] == OK:
                    setattr(self._client.session, attribute, value)
            if self._client.pin is not None:
                self._client.pin.move(self._client.session)
        if state.queued_unmatched and reply[:1] == b"*":
            state.stream = state.used = True
        if self._values is not None:
            reply = self._values.finish_exec(state, reply)
        elif state.queued_ours:
            reply = without_ours(state, reply)
        dependents = state.queued_dependents if reply[:1] == b"*" and reply[:3] != b"*-1" else {}
        has_script = state.queued_script
        is_watching = state.watching and reply.startswith(b"-ERR EXEC without MULTI")
        state.end_multi()
        state.watching = is_watching  # there was no transaction to end it
        self._client.session.multi = -1
        if dependents and self._values is not None:  # without: meanwhile no class asks for anything any more
            self._values.drop(dependents, lambda error: self._answer(error or reply, has_script))
        else:
            self._answer(reply, has_script)

    def fail(self, failure: Failure) -> None:
        """Drop what depends on the queue all the same, if it may have been applied."""
        dependents = self._state.queued_dependents
        if self._values is not None and dependents and failure is not Failure.UNAVAILABLE:
            self._values.drop(dependents, lambda _error: None)
        if self._noticed is not None:
            self._noticed[0].lose_exec(self._client, self._state, failure)
        if self._after is not None and failure in (Failure.LOST, Failure.TIMED_OUT):
            self._after()
        super().fail(failure)

    def _answer(self, reply: bytes, has_script: bool) -> None:
        if has_script:
            self._fence(lambda: super(ExecSlot, self).fill(reply))
        else:
            super().fill(reply)


def without_ours(state: Pinning, reply: bytes) -> bytes:
    """Return EXEC's reply without the replies to what we have queued ourselves."""
    if reply[:1] != b"*" or reply[:2] == b"*-":
        return reply
    ours = set(state.queued_ours)
    return array([part for at, part in enumerate(elements(reply)) if at not in ours])
